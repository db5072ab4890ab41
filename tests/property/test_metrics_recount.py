"""Whatever happens to commands, the metrics are what a plain recount of the events gives."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from lane_obs import (
    DeadLetter,
    LaneConfig,
    LaneObsError,
    MemorySink,
    Partitions,
    PriorityBoost,
    QueueManager,
    RateLimit,
    RetryPolicy,
    VirtualClock,
)
from lane_obs.core.histogram import QUICK_BOUNDS
from lane_obs.events import BLOCKS
from lane_obs.metrics import BUCKETS
from lane_obs.metrics.catalogue import BLOCKED_BY, STATES
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.testing import sleep
from tests.conftest import run_clean

if TYPE_CHECKING:
    from lane_obs.bus import AnySink

LANES = {
    "a": LaneConfig(0, 2, max_pending=3, overflow="drop_oldest", timeout=2.0),
    "b": LaneConfig(0, 1, priority=1, max_pending=3, overflow="reject", retry=RetryPolicy(2, 0.5, jitter="none")),
    "limited": LaneConfig(0, 2, priority=2, boost=PriorityBoost.ageing(0.5), rate_limit=RateLimit.per_second(1)),
    "split": LaneConfig(
        0,
        2,
        priority=1,
        boost=PriorityBoost.standard(2.0),
        partitions=Partitions.by_key(2),
        max_pending=3,
        overflow="drop_oldest",
        retry=RetryPolicy(1, 0.5, jitter="none"),
    ),
}
NAMES = [*LANES]
OUTCOMES = {
    "queue.command.completed": "ok",
    "queue.command.failed": "error",
    "queue.command.timeout": "timeout",
    "queue.command.cancelled": "cancelled",
    "queue.command.expired": "expired",
}
ONE_EACH = {
    "queue.command.submitted": "lane_commands_submitted_total",
    "queue.command.boosted": "lane_commands_boosted_total",
    "queue.command.dead_lettered": "lane_commands_dead_lettered_total",
    "queue.dead_letter.evicted": "lane_dead_letters_evicted_total",
    "queue.dead_letter.requeued": "lane_dead_letters_requeued_total",
}
NOISE = 1e-6
SECONDS = st.sampled_from([0.0, 0.001, 0.3, 1.0, 3.0])
SUBMITS = st.tuples(
    st.just("submit"),
    st.sampled_from([*NAMES, "typo"]),
    st.sampled_from(["ok", "ok", "fail"]),
    SECONDS,
    st.fixed_dictionaries(
        {
            "delay": SECONDS,
            "deadline": st.sampled_from([None, 0.5, 5.0]),
            "cost": st.sampled_from([0.0, 0.25, 1.0]),
            "partition_key": st.sampled_from([None, "k", "l", "m"]),
        }
    ),
)
OTHERS = st.one_of(
    st.tuples(st.just("advance"), SECONDS),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from(NAMES)),
    st.tuples(st.just("prefer"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.tuples(st.just("requeue")),
)
OPERATIONS = st.lists(st.one_of(SUBMITS, OTHERS), max_size=40)


class Walk:
    """A queue that does what it is told."""

    def __init__(self, clock: VirtualClock, manager: QueueManager) -> None:
        self.clock = clock
        self.manager = manager
        self.handles: list[Any] = []

    async def do(self, name: str, *facts: Any) -> None:
        with contextlib.suppress(LaneObsError):
            await getattr(self, name)(*facts)

    async def submit(self, lane: str, how: str, seconds: float, options: dict[str, Any]) -> None:
        async def work() -> None:
            await sleep(self.clock, seconds)
            if how == "fail":
                raise ValueError(how)

        self.handles.append(self.manager.submit_nowait(lane, work, **options))

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def cancel(self, number: int) -> None:
        if number < len(self.handles):
            self.handles[number].cancel()

    async def pause(self, lane: str) -> None:
        self.manager.pause(lane)

    async def resume(self, lane: str) -> None:
        self.manager.resume(lane)

    async def prefer(self, lane: str, priority: int) -> None:
        self.manager.set_lane(lane, priority=priority)

    async def requeue(self) -> None:
        letters: list[DeadLetter] = self.manager.dead_letters.list()
        if letters:
            self.manager.dead_letters.requeue(letters[0].id)


def recount(seen: MemorySink) -> dict[tuple[str, ...], float]:
    """The counters by name and label values, none of them zero."""
    found: Counter[tuple[str, ...]] = Counter()
    for event in seen.events:
        facts, key = event.payload, event.key
        lane = facts.get("lane", "")
        if key in ONE_EACH:
            found[ONE_EACH[key], lane] += 1
        elif key == "queue.command.rejected":
            found["lane_commands_rejected_total", lane if lane in LANES else "unknown", facts["reason"]] += 1
        elif key == "queue.command.retry":
            found["lane_command_retries_total", lane, facts["reason"]] += 1
            found["lane_command_attempts_total", lane, facts["reason"]] += 1
        elif key in OUTCOMES:
            found["lane_commands_finished_total", lane, OUTCOMES[key]] += 1
            if facts["attempt_seconds"] is not None:
                found["lane_command_attempts_total", lane, OUTCOMES[key]] += 1
    return dict(found)


def first_waits(seen: MemorySink, lane: str) -> list[dict[str, float]]:
    starts = [event.payload for event in seen.of("queue.command.started")]
    return [facts["wait_by_cause"] for facts in starts if facts["lane"] == lane and facts["attempt"] == 1]


def times(seen: MemorySink, lane: str) -> dict[str, list[float]]:
    """The values of the histograms of a lane."""
    ends = [event.payload for event in seen.events if event.key in OUTCOMES and event.payload["lane"] == lane]
    retries = [event.payload for event in seen.of("queue.command.retry") if event.payload["lane"] == lane]
    return {
        "lane_command_queue_wait_seconds": [sum(wait[cause] for cause in BLOCKS) for wait in first_waits(seen, lane)],
        "lane_command_duration_seconds": [
            *(facts["run_seconds"] for facts in retries),
            *(facts["attempt_seconds"] for facts in ends if facts["attempt_seconds"] is not None),
        ],
        "lane_command_end_to_end_seconds": [facts["end_to_end_seconds"] for facts in ends],
    }


def seconds_with_ready_work(seen: MemorySink, lane: str, now: float) -> float:
    ready: set[str] = set()
    total = since = 0.0
    for event in [event for event in seen.events if getattr(event, "lane", None) == lane]:
        facts, was_ready = event.payload, bool(ready)
        if event.key == "queue.command.ready" or (
            event.key == "queue.command.submitted" and not facts["delay_seconds"]
        ):
            ready.add(facts["command_id"])
        elif event.key == "queue.command.started" or event.key in OUTCOMES:
            ready.discard(facts["command_id"])
        if was_ready and not ready:
            total += event.at - since
        elif ready and not was_ready:
            since = event.at
    return total + (now - since if ready else 0.0)


def check(registry: CollectorRegistry, seen: MemorySink) -> None:
    counters: dict[tuple[str, ...], float] = {}
    for family in registry.collect():
        if family.type == "counter" and not family.name.startswith(("lane_sink", "lane_busy", "lane_blocked")):
            for sample in family.samples:
                labels = [sample.labels[name] for name in ("lane", "reason", "outcome") if name in sample.labels]
                counters[sample.name, *labels] = sample.value
    assert {key: count for key, count in counters.items() if count} == recount(seen)
    series = collected(registry)
    for lane in LANES:
        found = times(seen, lane)
        for name, values in found.items():
            check_histogram(series, name, values, BUCKETS, lane=lane)
        busy = series["lane_busy_seconds_total"][of(lane=lane)]
        assert math.isclose(busy, sum(found["lane_command_duration_seconds"]), abs_tol=NOISE)
        ends = [event.wall for event in seen.events if event.key in OUTCOMES and event.payload["lane"] == lane]
        assert series["lane_last_finish_timestamp_seconds"][of(lane=lane)] == max(ends, default=0.0)
    delays = [wait["scheduler"] for lane in LANES for wait in first_waits(seen, lane)]
    check_histogram(series, "lane_dispatch_delay_seconds", delays, QUICK_BOUNDS)


Series = defaultdict[str, dict[frozenset[tuple[str, str]], float]]


def collected(registry: CollectorRegistry) -> Series:
    found: Series = defaultdict(dict)
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return found


def of(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset({"queue": "default", **labels}.items())


def check_histogram(series: Series, name: str, values: list[float], bounds: tuple[float, ...], **labels: str) -> None:
    for bound in bounds:
        # The split of a wait and the wait itself may differ by the last digits.
        least, most = (sum(value <= bound + noise for value in values) for noise in (-NOISE, NOISE))
        counted = {dict(key)["le"]: count for key, count in series[f"{name}_bucket"].items() if of(**labels) <= key}
        assert least <= counted[repr(bound) if bound >= 0.0001 else "1e-05"] <= most
        assert counted["+Inf"] == len(values)
    assert series[f"{name}_count"][of(**labels)] == len(values)
    assert math.isclose(series[f"{name}_sum"][of(**labels)], sum(values), abs_tol=NOISE)


def check_state(registry: CollectorRegistry, seen: MemorySink, manager: QueueManager) -> None:
    series = collected(registry)
    for lane, stats in manager.stats().lanes.items():
        assert series["lane_active_commands"][of(lane=lane)] == stats.running
        assert series["lane_dead_letters"][of(lane=lane)] == stats.dead
        depths = [series["lane_queue_depth"][of(lane=lane, state=state)] for state in STATES]
        assert depths == [stats.ready, stats.delayed, stats.backoff]
        assert series["lane_oldest_ready_age_seconds"][of(lane=lane)] == (stats.oldest_ready_age or 0.0)
        assert series["lane_oldest_active_age_seconds"][of(lane=lane)] == (stats.oldest_active_age or 0.0)
        assert of(lane=lane, priority=str(stats.priority)) in series["lane_info"]
        blocked = [series["lane_blocked_seconds_total"][of(lane=lane, cause=cause)] for cause in BLOCKED_BY]
        # In virtual time the scheduler is never late, so that nothing else can keep ready work waiting.
        waited = seconds_with_ready_work(seen, lane, manager.clock.now())
        assert math.isclose(sum(blocked), waited, abs_tol=NOISE)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_the_metrics_equal_a_recount_of_the_events(operations: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        clock, registry, seen = VirtualClock(), CollectorRegistry(), MemorySink()
        sinks: list[AnySink] = [PrometheusSink(registry), seen]
        manager = QueueManager(LANES, max_concurrency=2, sinks=sinks, dead_letters=2, clock=clock, seed=1)
        await manager.start()
        walk = Walk(clock, manager)
        for operation in operations:
            await walk.do(*operation)
        await asyncio.sleep(0)
        check(registry, seen)
        check_state(registry, seen, manager)
        for lane in LANES:
            manager.resume(lane)
        await clock.run(manager.drain())
        await asyncio.sleep(0)
        check(registry, seen)
        check_state(registry, seen, manager)
        ended = Counter[str]()
        for lane_stats in manager.stats().lanes.values():
            ended.update(lane_stats.ended)
        finished = sum(count for key, count in recount(seen).items() if key[0] == "lane_commands_finished_total")
        assert finished == sum(ended.values()) == manager.stats().submitted
        await manager.close()

    run_clean(main)
