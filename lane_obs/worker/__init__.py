"""Processes that work on one queue: a supervisor, which knows no app, and the children that it keeps running."""

from lane_obs.worker.child import Child, Served
from lane_obs.worker.slot import Slot, SlotState
from lane_obs.worker.supervisor import Supervisor

__all__ = ["Child", "Served", "Slot", "SlotState", "Supervisor"]
