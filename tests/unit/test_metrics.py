"""The catalogue of metrics, and how facts are folded and read."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs import LaneConfig, LaneFullError, MemorySink, QueueManager, RetryPolicy, UnknownLane, VirtualClock
from lane_obs.core.histogram import Histogram
from lane_obs.metrics import BUCKETS, CATALOGUE, LABELS, LaneTally, Metric, Reader, Tally, catalogue
from lane_obs.testing import sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.bus import AnySink
    from lane_obs.core.fact import Fact
    from lane_obs.metrics import Rows

SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created")


class Folding:
    """A sink that only folds."""

    def __init__(self, *lanes: str, command_types: int = 0) -> None:
        self.tally = Tally(dict.fromkeys(lanes, BUCKETS), command_types)

    @property
    def a(self) -> LaneTally:
        return self.tally.lanes["a"]

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        self.tally.fold(facts, 0.0)

    def close(self) -> None:
        pass


async def work() -> None:
    pass


async def fail() -> None:
    raise ValueError("no")


async def drained(clock: VirtualClock, manager: QueueManager) -> None:
    await clock.run(manager.drain())
    await asyncio.sleep(0)  # the last batch


# --- the catalogue ----------------------------------------------------------------------------------------------


def test_every_metric_of_the_module_is_in_the_catalogue_once() -> None:
    defined = [value for value in vars(catalogue).values() if isinstance(value, Metric)]
    assert sorted(metric.name for metric in defined) == sorted(metric.name for metric in CATALOGUE)
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_names_follow_the_conventions() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"lane_[a-z_]+[a-z]", metric.name)
        assert (metric.kind == "counter") is metric.name.endswith("_total")
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert metric.unit == ("seconds" if "_seconds" in metric.name else "")
        assert metric.help.endswith(".")


def test_no_family_of_openmetrics_clashes_with_another() -> None:
    families = [metric.name.removesuffix("_total") for metric in CATALOGUE]
    assert len(set(families)) == len(families)
    assert not {family + suffix for family in families for suffix in SUFFIXES} & set(families)


def test_every_label_is_explained_and_used() -> None:
    used = {label for metric in CATALOGUE for label in (*metric.labels, *metric.opt_in)}
    assert used | {"queue"} == set(LABELS)


# --- folding ----------------------------------------------------------------------------------------------------


async def test_a_delay_and_the_wait_before_a_retry_are_no_queue_wait(clock: VirtualClock) -> None:
    sink = Folding("a")
    lanes = {"a": LaneConfig(0, 1, retry=RetryPolicy(1, 2.0, jitter="none"))}
    async with QueueManager(lanes, sinks=[sink], clock=clock) as manager:
        await manager.submit("a", fail, delay=5.0)
        await clock.advance(4.5)
        await manager.submit("a", sleep, clock, 1.0)  # holds the slot for 0.5 s of the other's time
        await drained(clock, manager)
    assert sink.a.wait.total == pytest.approx(0.5)
    assert sink.a.wait.count == 2
    assert sink.tally.dispatch.count == 2
    assert sink.a.end_to_end.total == pytest.approx(5.5 + 2.0 + 1.0)
    assert sink.a.attempts["error"] == 2
    assert sink.a.duration.count == 3


async def test_a_command_that_ends_while_it_waits_ends_no_attempt(clock: VirtualClock) -> None:
    sink = Folding("a")
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink], clock=clock) as manager:
        manager.pause("a")
        await manager.submit("a", work, deadline=3.0)
        await clock.advance(3.0)
        manager.resume("a")
        await drained(clock, manager)
    assert sink.a.unsuccessful == {"error": 0, "timeout": 0, "cancelled": 0, "expired": 1}
    assert (sum(sink.a.attempts.values()), sink.a.duration.count, sink.a.wait.count) == (0, 0, 0)
    assert sink.a.end_to_end.total == 3.0


async def test_waiting_for_slots_is_no_dispatch_delay(clock: VirtualClock) -> None:
    sink, seen = Folding("a", "b"), MemorySink()
    lanes = {"a": LaneConfig(0, 1), "b": LaneConfig(1, 1, priority=1)}
    async with QueueManager(lanes, max_concurrency=2, sinks=[sink, seen], clock=clock) as manager:
        for lane, seconds in (("a", 1.0), ("b", 0.7)):
            for _ in range(4):
                await manager.submit(lane, sleep, clock, seconds)
        await drained(clock, manager)
    assert sink.a.wait.total == pytest.approx(0.0 + 1.0 + 2.0 + 3.0)
    assert sink.tally.dispatch.counts[0] == sink.tally.dispatch.count == 8


async def test_work_that_waits_for_the_start_waits_for_the_scheduler(clock: VirtualClock) -> None:
    sink, seen = Folding("a"), MemorySink()
    manager = QueueManager({"a": LaneConfig(0, 3)}, sinks=[sink, seen], clock=clock)
    for at, do in ((0.0, "submit"), (0.5, "submit"), (1.0, "pause"), (2.0, "resume"), (2.5, "submit")):
        await clock.advance(at - (clock.now() - 1_000_000.0))
        await manager.submit("a", work) if do == "submit" else getattr(manager, do)("a")
    await clock.advance(1.0)
    async with manager:
        await drained(clock, manager)
    assert sink.tally.dispatch.total == pytest.approx(2.5 + 2.0 + 1.0)
    assert sink.a.wait.total == pytest.approx(3.5 + 3.0 + 1.0)
    splits = [event.payload["wait_by_cause"]["scheduler"] for event in seen.of("queue.command.started")]
    assert sum(splits) == pytest.approx(sink.tally.dispatch.total)


async def test_lanes_that_do_not_exist_share_one_count(clock: VirtualClock) -> None:
    sink = Folding("a")
    async with QueueManager({"a": LaneConfig(0, 1, max_pending=1, overflow="reject")}, sinks=[sink], clock=clock) as m:
        m.pause("a")
        m.submit_nowait("a", work)
        with pytest.raises(LaneFullError):
            m.submit_nowait("a", work)
        for number in range(50):
            with pytest.raises(UnknownLane):
                m.submit_nowait(f"typo{number}", work)
        m.resume("a")
        await drained(clock, m)
    assert sink.tally.rejected == {
        ("a", "full"): 1, ("a", "shutting_down"): 0, ("a", "storage"): 0,
        ("unknown", "unknown_lane"): 50, ("unknown", "shutting_down"): 0, ("unknown", "removed"): 0,
    }  # fmt: skip
    assert set(sink.tally.lanes) == {"a"}


async def test_a_lane_that_is_called_unknown_keeps_its_own_counts(clock: VirtualClock) -> None:
    sink = Folding("unknown")
    async with QueueManager({"unknown": LaneConfig(0, 1)}, sinks=[sink], clock=clock) as manager:
        with pytest.raises(UnknownLane):
            manager.submit_nowait("typo", work)
        await manager.submit("unknown", work)
        await drained(clock, manager)
    assert sink.tally.rejected["unknown", "unknown_lane"] == 1
    assert sink.tally.lanes["unknown"].completed == 1


async def test_the_first_types_of_commands_keep_their_run_times_and_later_ones_share(clock: VirtualClock) -> None:
    sink = Folding("a", "b", command_types=2)

    async def late() -> None:
        pass

    async with QueueManager({"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}, sinks=[sink], clock=clock) as manager:
        for lane, command in (("a", work), ("a", fail), ("a", late), ("b", late), ("b", work), ("a", work)):
            await manager.submit(lane, command)
            await drained(clock, manager)
    counts = {
        lane: {kind: part.count for kind, part in tally.durations.items()} for lane, tally in sink.tally.lanes.items()
    }
    assert counts == {"a": {"other": 1, "work": 2, "fail": 1}, "b": {"other": 1, "work": 1}}


async def test_a_type_that_would_make_a_bad_label_is_another_one_of_the_rest(clock: VirtualClock) -> None:
    sink = Folding("a", command_types=5)

    async def odd() -> None:
        pass

    odd.__qualname__ = "\ud800"  # cannot be encoded: a single such label would spoil every scrape
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink], clock=clock) as manager:
        await manager.submit("a", odd)
        await drained(clock, manager)
    assert {kind: part.count for kind, part in sink.a.durations.items()} == {"other": 1}


# --- reading ----------------------------------------------------------------------------------------------------


def rows_of(rows: Rows, metric: Metric) -> dict[tuple[str, ...], Any]:
    return dict(rows[metric])


async def test_a_total_that_is_read_in_the_middle_of_a_change_never_goes_down(clock: VirtualClock) -> None:
    sink = Folding("a")
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink], clock=clock) as manager:
        reader, shown = Reader(sink.tally, manager.bus), []
        for slots in (1.0, 3.0, 2.5, 4.0):
            stats = manager.stats()
            lane = msgspec.structs.replace(stats.lanes["a"], blocked={**stats.lanes["a"].blocked, "slots": slots})
            rows = reader.read(msgspec.structs.replace(stats, lanes={"a": lane}))
            shown.append(rows_of(rows, catalogue.BLOCKED)["a", "slots"])
    assert shown == [1.0, 3.0, 3.0, 4.0]


async def test_several_sinks_of_one_class_are_added_up(clock: VirtualClock) -> None:
    folding = Folding("a")
    given: list[AnySink] = [MemorySink(), folding, MemorySink(2)]
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=given, clock=clock) as manager:
        reader = Reader(folding.tally, manager.bus)
        await manager.submit("a", work)
        await drained(clock, manager)
        rows, sinks = reader.read(manager.stats()), manager.stats().sinks
        events = rows_of(rows, catalogue.SINK_EVENTS)
        assert events == {("MemorySink",): 2 * sinks[1].events, ("Folding",): sinks[1].events}
        assert rows_of(rows, catalogue.SINK_DROPPED)["MemorySink", "full"] == sinks[2].dropped["full"] > 0
        flush = rows_of(rows, catalogue.SINK_FLUSH)
        assert flush["MemorySink",].count == 2 * flush["Folding",].count == 2 * sinks[1].batches
        assert rows_of(rows, catalogue.SINK_LAG)["MemorySink",].count == 2 * sinks[1].batches


async def test_the_lag_of_the_loop_is_that_of_the_watchdog_and_empty_without_one(clock: VirtualClock) -> None:
    class Watching(MemorySink):
        def __init__(self) -> None:
            super().__init__()
            self.loop_lag = Histogram((1.0,))

    folding, watching = Folding("a"), Watching()
    async with (
        QueueManager({"a": LaneConfig(0, 1)}, sinks=[folding, watching], clock=clock) as watched,
        QueueManager({"a": LaneConfig(0, 1)}, sinks=[Folding("a")], clock=clock) as unwatched,
    ):
        watching.loop_lag.observe(0.5)
        seen = Reader(folding.tally, watched.bus).read(watched.stats())
        unseen = Reader(folding.tally, unwatched.bus).read(unwatched.stats())
    assert rows_of(seen, catalogue.LOOP_LAG)[()].total == 0.5
    assert rows_of(unseen, catalogue.LOOP_LAG)[()].count == 0


async def test_every_thread_may_read_while_the_loop_works() -> None:
    folding = Folding("a")
    totals: list[list[float]] = [[], []]
    over = threading.Event()

    def scrape(seen: list[float]) -> None:
        while not over.is_set():
            rows = reader.read(manager.stats())
            seen.append(sum(number for _, number in (*rows[catalogue.BLOCKED], *rows[catalogue.FINISHED])))

    async with QueueManager({"a": LaneConfig(0, 4)}, sinks=[folding]) as manager:
        reader = Reader(folding.tally, manager.bus)
        threads = [threading.Thread(target=scrape, args=(seen,)) for seen in totals]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                await manager.submit_many("a", [work] * 100)
                await manager.drain()
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert folding.a.completed == 2_000
    assert all(seen == sorted(seen) for seen in totals)
