"""Decides what happens: pure functions and plain state. No await, no clock, no I/O."""
