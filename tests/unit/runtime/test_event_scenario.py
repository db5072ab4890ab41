"""Every kind of event is really emitted, in order, with its documented fields: the reference's main failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CAUSES,
    LaneConfig,
    LaneEvent,
    LaneFullError,
    MemorySink,
    MonitorConfig,
    PriorityBoost,
    QueueManager,
    QueueMonitor,
    RateLimit,
    RetryPolicy,
    Rule,
    VirtualClock,
)
from lane_obs.bus import MAX_FAILURES
from lane_obs.clock import sleep
from lane_obs.events import (
    EVENT_TYPES,
    BrokerDown,
    BrokerLead,
    BrokerUp,
    CommandKept,
    CommandLeaseLost,
    CommandPassedOn,
    CommandRecovered,
    CommandReturned,
    CommandStale,
    LoopBlocked,
    RecoveryComplete,
    RecoveryFailed,
    StorageBack,
    StorageFailed,
)
from lane_obs.monitor.notify import CallbackNotifier
from tests.unit.runtime.support import Attempts, fail, noop, outcome, running, stubborn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs import Alert

COMMAND = {"command_id", "lane", "command_type", "attempt"}
TIMES = {"wait_seconds", "wait_by_cause", "attempt_seconds", "run_seconds", "end_to_end_seconds"}
ERROR = {"error_type", "error"}
LETTER = {"command_id", "lane", "command_type"}
ALERT = {"rule", "value", "threshold", "alert", "severity", "lane", "active_seconds", "silenced", "reason"}
NOTIFICATION = {"notifier", "alerts"}

FIELDS: dict[str, set[str]] = {
    "queue.lane.added": {"lane", "pending", "policies"},
    "queue.lane.removed": {"lane", "pending", "ended"},
    "queue.command.submitted": COMMAND | {"delay_seconds", "deadline_seconds", "requeued"},
    "queue.command.ready": COMMAND,
    "queue.command.started": COMMAND | {"wait_seconds", "wait_by_cause"},
    "queue.command.completed": COMMAND | TIMES,
    "queue.command.failed": COMMAND | TIMES | ERROR,
    "queue.command.timeout": COMMAND | TIMES | ERROR,
    "queue.command.cancelled": COMMAND | TIMES | ERROR,
    "queue.command.expired": COMMAND | TIMES | ERROR,
    "queue.command.retry": COMMAND | ERROR | {"reason", "delay_seconds", "wait_seconds", "run_seconds"},
    "queue.command.dead_lettered": COMMAND | ERROR | {"reason", "wait_seconds", "run_seconds"},
    "queue.command.cancel_requested": COMMAND,
    "queue.command.stuck": COMMAND | {"after_seconds"},
    "queue.command.boosted": COMMAND | {"base", "priority"},
    "queue.command.rejected": {"lane", "command_type", "reason"},
    "queue.dead_letter.evicted": LETTER,
    "queue.dead_letter.requeued": LETTER,
    "queue.lane.pressure": {"lane", "pending", "threshold"},
    "queue.lane.idle": {"lane", "pending"},
    "queue.lane.throttled": {"lane", "pending", "wait_seconds"},
    "queue.lane.unthrottled": {"lane", "pending"},
    "queue.lane.paused": {"lane", "pending"},
    "queue.lane.resumed": {"lane", "pending"},
    "queue.lane.changed": {"lane", "pending", "changes"},
    "queue.started": set(),
    "queue.shutdown.started": {"pending", "running"},
    "queue.shutdown.complete": set(),
    "queue.closed": {"cancelled", "abandoned"},
    "queue.loop.blocked": {"seconds", "command_id", "lane", "command_type", "stack"},
    "queue.sink.failed": {"sink"} | ERROR,
    "queue.sink.disabled": {"sink", "failures"},
    "queue.alert.pending": ALERT,
    "queue.alert.firing": ALERT,
    "queue.alert.resolved": ALERT,
    "queue.alert.cleared": ALERT,
    "queue.alert.notified": NOTIFICATION | {"attempt"},
    "queue.alert.notification_failed": NOTIFICATION | ERROR | {"attempt", "final"},
    "queue.alert.notification_dropped": NOTIFICATION | {"reason"},
    "queue.monitor.started": {"lane_alerts", "queue_alerts", "notifiers"},
    "queue.command.recovered": COMMAND | {"stored_state"},
    "queue.command.kept": LETTER | {"reason"},
    "queue.recovery.complete": {"recovered", "dead_lettered", "kept", "seconds"},
    "queue.recovery.failed": ERROR,
    "queue.storage.failed": ERROR | {"pending"},
    "queue.storage.back": {"seconds"},
    "queue.broker.down": {"error"},
    "queue.broker.up": {"seconds"},
    "queue.broker.lead": {"leads"},
    "queue.command.returned": COMMAND | {"member"},
    "queue.command.lease_lost": COMMAND,
    "queue.command.stale": COMMAND | {"state"},
    "queue.command.passed_on": COMMAND | {"reason", "error", "seconds"},
}


OF_STORAGE = {CommandRecovered, CommandKept, RecoveryComplete, RecoveryFailed, StorageFailed, StorageBack}
OF_BROKER = {BrokerDown, BrokerUp, BrokerLead, CommandReturned, CommandLeaseLost, CommandPassedOn, CommandStale}


class Broken:
    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise OSError("disk full")

    def close(self) -> None:
        pass


async def commands_of_every_end(clock: VirtualClock, manager: QueueManager) -> None:
    await manager.submit("a", noop)
    failed = await manager.submit("a", Attempts(clock, ValueError("x")), retry=RetryPolicy.fixed(1, 1, jitter="none"))
    await manager.submit("a", sleep, clock, 9, timeout=1)
    await manager.submit("a", noop, delay=9, deadline=2)
    stuck = await manager.submit("b", stubborn, clock, 12)
    cancelled = await manager.submit("b", noop)
    await clock.advance(1)
    cancelled.cancel()
    stuck.cancel()
    await clock.run(manager.drain())
    manager.dead_letters.requeue(failed.id)
    await manager.submit("a", noop, delay=1)
    await clock.run(manager.drain())


async def lanes_steered(clock: VirtualClock, manager: QueueManager) -> None:
    manager.pause("b")
    for _ in range(2):
        await manager.submit("b", noop)
    with pytest.raises(LaneFullError):
        await manager.submit("b", noop)
    manager.resume("b")
    manager.set_lane("b", priority=3)
    await clock.run(manager.drain())
    manager.add_lane(
        "c", LaneConfig(0, 1, priority=2, rate_limit=RateLimit.per_minute(1), boost=PriorityBoost.ageing(30))
    )
    for _ in range(2):
        await manager.submit("c", noop)
    await clock.run(manager.drain())
    await clock.run(manager.remove_lane("c"))
    for _ in range(MAX_FAILURES):
        await clock.run(await manager.submit("a", noop))


async def watched_by_a_monitor(clock: VirtualClock, manager: QueueManager) -> None:
    def refuse(alert: Alert) -> None:
        raise ValueError(f"not {alert.alert}")

    notifiers = [
        CallbackNotifier(lambda _: None, "hears"),
        CallbackNotifier(refuse, "refuses"),
        CallbackNotifier(lambda _: sleep(clock, 1_000), "hangs"),
    ]
    rules = [Rule(measure="ready_depth", warning=0, for_seconds=3)]
    config = MonitorConfig(interval=1, pending_warning_threshold=1, rules=rules, notifiers=notifiers)
    monitor = QueueMonitor(manager, config)
    await monitor.start()
    manager.pause("b")
    for _ in range(2):
        await manager.submit("b", noop)
    await clock.advance(2.5)  # for the one alert long enough, too short for the other
    manager.resume("b")
    await clock.advance(2)
    await clock.run(monitor.stop())


async def whole_story() -> list[LaneEvent]:
    clock, sink = VirtualClock(), MemorySink()
    lanes = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1, max_pending=2, overflow="reject", pressure_threshold=2)}
    async with running(clock, lanes, sinks=[Broken(), sink], dead_letters=2, stuck_after=5) as manager:
        await commands_of_every_end(clock, manager)
        await lanes_steered(clock, manager)
        await watched_by_a_monitor(clock, manager)
        await manager.shutdown()
        await clock.run(manager.drain())
    return sink.events


async def test_every_kind_of_event_is_emitted_by_a_plain_run() -> None:
    emitted = {type(event) for event in await whole_story()}
    # The tests of the watchdog block a real loop; those of durable lanes have storages, those of brokers have brokers.
    expected = set(EVENT_TYPES) - {LoopBlocked} - OF_STORAGE - OF_BROKER
    assert {kind.key for kind in expected} - {kind.key for kind in emitted} == set()
    assert emitted == expected


async def test_every_event_has_the_documented_fields_as_plain_data() -> None:
    assert set(FIELDS) == {kind.key for kind in EVENT_TYPES}
    for event in await whole_story():
        assert set(event.payload) == FIELDS[event.key], event.key
        assert json.loads(json.dumps(event.payload)) == event.payload
        assert event.timestamp.timestamp() == pytest.approx(event.wall, abs=1e-5)


async def test_events_are_numbered_without_gaps_and_times_never_go_back() -> None:
    events = await whole_story()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.at for event in events] == sorted(event.at for event in events)
    clock = VirtualClock()
    assert {round(event.wall - event.at, 3) for event in events} == {round(clock.wall() - clock.now(), 3)}


async def test_every_command_tells_its_story_in_order() -> None:
    stories: dict[str, list[str]] = {}
    for event in await whole_story():
        command_id = event.payload.get("command_id")
        if command_id is not None:
            stories.setdefault(command_id, []).append(event.key.removeprefix("queue.").removeprefix("command."))
    told = set(map(tuple, stories.values()))
    assert {story[0] for story in told} == {"submitted"}
    assert ("submitted", "started", "completed") in told
    assert ("submitted", "ready", "started", "completed") in told
    assert ("submitted", "cancelled") in told
    assert ("submitted", "started", "cancel_requested", "stuck", "completed") in told
    assert ("submitted", "started", "timeout", "dead_lettered") in {story[:4] for story in told}
    assert ("submitted", "expired", "dead_lettered") in {story[:3] for story in told}
    once = ("submitted", "started", "retry", "ready", "started", "failed", "dead_lettered")
    assert (*once, "dead_letter.requeued", *once) in {story[:15] for story in told}


async def test_the_letters_of_a_full_dead_letter_queue_are_told_in_order() -> None:
    events = await whole_story()
    keys = [event.key for event in events]
    evicted = keys.index("queue.dead_letter.evicted")
    assert keys[:evicted].count("queue.command.dead_lettered") == 3
    assert keys[-2:] == ["queue.shutdown.complete", "queue.closed"]


async def one(clock: VirtualClock, key: str) -> dict[str, Any]:
    """The payload of one event of a command that waited 2 s, ran 1 s, backed off 4 s, ran 1 s and failed."""
    sink = MemorySink()
    lane = LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 4, jitter="none"))
    async with running(clock, lane, sinks=[sink]) as manager:
        await manager.submit("a", sleep, clock, 2)
        handle = await manager.submit("a", Attempts(clock, ValueError("x"), seconds=1))
        await clock.run(manager.drain())
        found = [event for event in sink.of(key) if event.payload["command_id"] == handle.id]
    return found[-1].payload


async def test_the_end_of_a_command_carries_all_its_times(clock: VirtualClock) -> None:
    payload = await one(clock, "queue.command.failed")
    assert payload["wait_seconds"] == pytest.approx(6)
    assert payload["run_seconds"] == pytest.approx(2)
    assert payload["end_to_end_seconds"] == pytest.approx(8)
    assert payload["wait_by_cause"] == pytest.approx(dict.fromkeys(CAUSES, 0.0) | {"slots": 2.0, "backoff": 4.0})
    assert payload["attempt"] == 2


@pytest.mark.parametrize("key", ["queue.command.retry", "queue.command.dead_lettered"])
async def test_wait_and_run_times_are_told_once_they_are_known(clock: VirtualClock, key: str) -> None:
    payload = await one(clock, key)
    assert payload["wait_seconds"] == pytest.approx(2 if key.endswith("retry") else 6)
    assert payload["run_seconds"] == pytest.approx(1 if key.endswith("retry") else 2)


async def test_events_of_one_queue_only_are_numbered_together(clock: VirtualClock) -> None:
    first, second = MemorySink(), MemorySink()
    async with running(clock, sinks=[first]) as one_queue, running(clock, sinks=[second]) as other:
        await clock.run(await one_queue.submit("a", noop))
        await clock.run(outcome(await other.submit("a", fail, ValueError("x"))))
    assert [event.seq for event in first.events] == list(range(1, len(first.events) + 1))
    assert [event.seq for event in second.events] == list(range(1, len(second.events) + 1))
