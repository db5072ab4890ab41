"""Recorded traffic through the real scheduler."""
