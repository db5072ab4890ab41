"""Where the queue runs: files for Docker Compose and Kubernetes, and what makes the generated one of them."""
