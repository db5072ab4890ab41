"""Queues on Redis: the same work through this library, through its peers and through bare scripts."""
