"""A story that `lane-obs demo` tells: traffic of agents through the real queue, in chapters, and what became of it."""
