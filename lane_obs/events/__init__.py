"""Every event, one frozen type each: the contract that sinks, tests and documents share.

An event is a fact about the past. `key` is its name on the wire (the keys of A3S Lane 0.1, extended), `seq` its
place in the order in which one queue's events happened, `at` monotonic seconds of the queue's clock and `wall`
Unix seconds. A field that is not known (yet) is `None`.
"""

from __future__ import annotations

from typing import Final

from lane_obs.events.alert import (
    AlertCleared,
    AlertEvent,
    AlertFiring,
    AlertNotificationDropped,
    AlertNotificationFailed,
    AlertNotified,
    AlertPending,
    AlertResolved,
    MonitorStarted,
)
from lane_obs.events.broker import (
    BrokerDown,
    BrokerLead,
    BrokerUp,
    CommandLeaseLost,
    CommandPassedOn,
    CommandReturned,
    CommandStale,
)
from lane_obs.events.command import (
    CommandBoosted,
    CommandCancelled,
    CommandCancelRequested,
    CommandCompleted,
    CommandDeadLettered,
    CommandEnded,
    CommandEvent,
    CommandExpired,
    CommandFailed,
    CommandReady,
    CommandRejected,
    CommandRetry,
    CommandStarted,
    CommandStuck,
    CommandSubmitted,
    CommandTimedOut,
    CommandUnsuccessful,
    DeadLetterEvicted,
    DeadLetterRequeued,
    TracedEvent,
)
from lane_obs.events.event import LaneEvent
from lane_obs.events.queue import (
    LaneAdded,
    LaneChanged,
    LaneIdle,
    LanePaused,
    LanePressure,
    LaneRemoved,
    LaneResumed,
    LaneStateEvent,
    LaneThrottled,
    LaneUnthrottled,
    LoopBlocked,
    QueueClosed,
    QueueStarted,
    ShutdownComplete,
    ShutdownStarted,
    SinkDisabled,
    SinkFailed,
)
from lane_obs.events.storage import (
    CommandKept,
    CommandRecovered,
    RecoveryComplete,
    RecoveryFailed,
    StorageBack,
    StorageFailed,
)
from lane_obs.events.trace import TraceIds
from lane_obs.events.wait import BLOCKS, CAUSES, NO_WAIT, WaitByCause

__all__ = [
    "BLOCKS",
    "CAUSES",
    "EVENT_TYPES",
    "NO_WAIT",
    "AlertCleared",
    "AlertEvent",
    "AlertFiring",
    "AlertNotificationDropped",
    "AlertNotificationFailed",
    "AlertNotified",
    "AlertPending",
    "AlertResolved",
    "BrokerDown",
    "BrokerLead",
    "BrokerUp",
    "CommandBoosted",
    "CommandCancelRequested",
    "CommandCancelled",
    "CommandCompleted",
    "CommandDeadLettered",
    "CommandEnded",
    "CommandEvent",
    "CommandExpired",
    "CommandFailed",
    "CommandKept",
    "CommandLeaseLost",
    "CommandPassedOn",
    "CommandReady",
    "CommandRecovered",
    "CommandRejected",
    "CommandRetry",
    "CommandReturned",
    "CommandStale",
    "CommandStarted",
    "CommandStuck",
    "CommandSubmitted",
    "CommandTimedOut",
    "CommandUnsuccessful",
    "DeadLetterEvicted",
    "DeadLetterRequeued",
    "LaneAdded",
    "LaneChanged",
    "LaneEvent",
    "LaneIdle",
    "LanePaused",
    "LanePressure",
    "LaneRemoved",
    "LaneResumed",
    "LaneStateEvent",
    "LaneThrottled",
    "LaneUnthrottled",
    "LoopBlocked",
    "MonitorStarted",
    "QueueClosed",
    "QueueStarted",
    "RecoveryComplete",
    "RecoveryFailed",
    "ShutdownComplete",
    "ShutdownStarted",
    "SinkDisabled",
    "SinkFailed",
    "StorageBack",
    "StorageFailed",
    "TraceIds",
    "TracedEvent",
    "WaitByCause",
]


def _concrete(kind: type[LaneEvent]) -> list[type[LaneEvent]]:
    found = [kind] if "key" in kind.__dict__ and kind is not LaneEvent else []
    for child in kind.__subclasses__():
        found += _concrete(child)
    return found


EVENT_TYPES: Final = tuple(_concrete(LaneEvent))
"""All kinds of events that a queue emits."""
