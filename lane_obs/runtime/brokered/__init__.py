"""What a broker adds to a queue: submits go to it, work comes from it, and results come back through it."""
