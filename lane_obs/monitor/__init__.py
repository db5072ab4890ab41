"""Watches a queue, follows its alerts and has people told of them."""

from lane_obs.monitor.alert import Alert, AlertState, Notifier
from lane_obs.monitor.config import MonitorConfig
from lane_obs.monitor.file import load_monitor
from lane_obs.monitor.monitor import QueueMonitor
from lane_obs.monitor.silence import Silence

__all__ = ["Alert", "AlertState", "MonitorConfig", "Notifier", "QueueMonitor", "Silence", "load_monitor"]
