"""Acts: runs what the core decided, on the event loop."""
