"""lane_obs: an embeddable, observability-first, lane-based priority command queue for asyncio and uvloop."""

from lane_obs.alerts import DEFAULT_RULES, Rule, Slo
from lane_obs.bus import Bus, Sink, SinkStats
from lane_obs.clock import Clock, SystemClock, VirtualClock
from lane_obs.command import Command, command
from lane_obs.config import DEFAULT_LANES, Jitter, LaneConfig, Overflow, QueueConfig, RetryPolicy, load_lanes
from lane_obs.core.state import State
from lane_obs.errors import (
    ClockDeadlock,
    CommandCancelled,
    CommandDropped,
    CommandError,
    CommandExpired,
    CommandTimeout,
    ConfigError,
    DrainTimeout,
    DuplicateCommandType,
    DuplicateId,
    InternalError,
    InvalidCommand,
    LaneFullError,
    LaneNotEmpty,
    LaneObsError,
    LaneRemoved,
    NotEnded,
    NotificationError,
    NotificationRefused,
    NotStarted,
    RetryAfter,
    ShutdownInProgress,
    StorageError,
    StreamClosed,
    TraceError,
    UnknownCommand,
    UnknownLane,
    WrongLoop,
)
from lane_obs.events import CAUSES, LaneEvent, TraceIds, WaitByCause
from lane_obs.monitor import Alert, MonitorConfig, QueueMonitor, Silence, load_monitor
from lane_obs.observability import Logs, Metrics, Observability, Traces
from lane_obs.runtime.builder import QueueManagerBuilder
from lane_obs.runtime.dead_letters import DeadLetter, DeadLetterQueue
from lane_obs.runtime.handle import CommandContext, CommandHandle, current
from lane_obs.runtime.manager import QueueManager
from lane_obs.runtime.options import SubmitOptions
from lane_obs.runtime.queue import CommandQueue
from lane_obs.runtime.run import run
from lane_obs.runtime.stats import DrainReport, Explanation, LaneStats, QueueStats, RemovedLanes
from lane_obs.sinks.background import BackgroundSink
from lane_obs.sinks.emitter import EventEmitter, EventStream
from lane_obs.sinks.memory import MemorySink

__all__ = [
    "CAUSES",
    "DEFAULT_LANES",
    "DEFAULT_RULES",
    "Alert",
    "BackgroundSink",
    "Bus",
    "Clock",
    "ClockDeadlock",
    "Command",
    "CommandCancelled",
    "CommandContext",
    "CommandDropped",
    "CommandError",
    "CommandExpired",
    "CommandHandle",
    "CommandQueue",
    "CommandTimeout",
    "ConfigError",
    "DeadLetter",
    "DeadLetterQueue",
    "DrainReport",
    "DrainTimeout",
    "DuplicateCommandType",
    "DuplicateId",
    "EventEmitter",
    "EventStream",
    "Explanation",
    "InternalError",
    "InvalidCommand",
    "Jitter",
    "LaneConfig",
    "LaneEvent",
    "LaneFullError",
    "LaneNotEmpty",
    "LaneObsError",
    "LaneRemoved",
    "LaneStats",
    "Logs",
    "MemorySink",
    "Metrics",
    "MonitorConfig",
    "NotEnded",
    "NotStarted",
    "NotificationError",
    "NotificationRefused",
    "Observability",
    "Overflow",
    "QueueConfig",
    "QueueManager",
    "QueueManagerBuilder",
    "QueueMonitor",
    "QueueStats",
    "RemovedLanes",
    "RetryAfter",
    "RetryPolicy",
    "Rule",
    "ShutdownInProgress",
    "Silence",
    "Sink",
    "SinkStats",
    "Slo",
    "State",
    "StorageError",
    "StreamClosed",
    "SubmitOptions",
    "SystemClock",
    "TraceError",
    "TraceIds",
    "Traces",
    "UnknownCommand",
    "UnknownLane",
    "VirtualClock",
    "WaitByCause",
    "WrongLoop",
    "command",
    "current",
    "load_lanes",
    "load_monitor",
    "run",
]
