"""Watches a queue and raises alerts."""

from lane_obs.monitor.monitor import MonitorConfig, QueueMonitor

__all__ = ["MonitorConfig", "QueueMonitor"]
