"""The benchmarks' workloads, at tiny sizes: they run, and they count right. No time is judged here."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import collector, compare, memory, peer
from benchmarks.features import EACH, FEATURES, PLAIN, Feature
from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile
from benchmarks.rows import ROWS, idle, lanes, pending, scale, urgent
from benchmarks.workload import LANE, LOOPS, THROUGHPUT, NullSink, OpenQueue, WrongResult, check, on_loop
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TINY = Sizes(
    commands=50, pending=200, shallow=10, lanes=20, samples=3, idle_seconds=0.01, rounds=1, peer_commands=2, scrapes=2
)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", THROUGHPUT)
def test_every_contestant_runs_every_command_and_returns_its_time(name: str, loop: str) -> None:
    assert on_loop(loop, THROUGHPUT[name], 100) > 0


def test_a_contestant_that_loses_a_result_is_found_out() -> None:
    check([1, 1], 2)
    with pytest.raises(WrongResult, match="1 results that sum up to 1, wanted 2"):
        check([1], 2)
    with pytest.raises(WrongResult):
        check([1, 0], 2)


@pytest.mark.parametrize("loop", LOOPS)
def test_idle_latency_gives_one_value_for_each_sample(loop: str) -> None:
    ours = on_loop(loop, idle.latency, 5, random.Random(1))
    bare = on_loop(loop, idle.task_latency, 5, random.Random(1))
    assert len(ours) == len(bare) == 5
    assert min(ours + bare) > 0


def test_an_idle_queue_does_not_turn_the_loop() -> None:
    with_queue, without = idle.counted(idle.idle_queue, 0.05), idle.counted(idle.no_queue, 0.05)
    assert with_queue.turns == without.turns > 0


def test_a_loop_that_is_woken_is_counted_as_such() -> None:
    async def polling(seconds: float) -> idle.Idle:
        task = asyncio.ensure_future(poll())
        found = await idle.no_queue(seconds)
        task.cancel()
        return found

    async def poll() -> None:
        while True:
            await asyncio.sleep(0.001)

    assert idle.counted(polling, 0.05).turns > idle.counted(idle.no_queue, 0.05).turns


async def test_a_control_command_is_next_with_a_slot_free_and_with_one_to_come() -> None:
    place, waits = await urgent.with_a_slot_free(100, 5)
    assert (place, len(waits)) == (1, 5)
    assert await urgent.with_a_slot_to_come(100, 5) == 1


async def test_without_priorities_the_same_command_comes_last() -> None:
    assert await urgent.semaphore_place(100) == 101


async def test_a_place_other_than_the_next_would_be_seen() -> None:
    order = urgent.Order()
    lanes_in_wrong_order = {"control": LaneConfig(0, 1, priority=5), "prompt": LaneConfig(0, 1, priority=1)}
    async with QueueManager(lanes_in_wrong_order, max_concurrency=1) as manager:
        for _ in range(3):
            manager.submit_nowait("prompt", order.prompt)
        await order.until_running(1)
        before = len(order.names)
        handle = await manager.submit("control", order.control)
        order.release_all()
        await handle
    assert order.place_of_control(before) == 3


async def test_pending_workloads_run_all_that_they_submit() -> None:
    submit_seconds, run_seconds = await pending.behind(50, 20)
    assert submit_seconds > 0
    assert run_seconds > 0
    assert await pending.steady(50, 20) > 0
    assert await pending.steady(5, 100) > 0
    assert await pending.waves(10, 40) > 0


@pytest.mark.parametrize("lane_count", [1, 6, 40])
async def test_commands_are_spread_over_lanes_and_all_run(lane_count: int) -> None:
    assert await lanes.spread(lane_count, 100, 6) > 0


@pytest.mark.parametrize("feature", [PLAIN, *FEATURES.values()], ids=["plain", *FEATURES])
async def test_a_lane_with_a_feature_on_runs_all_and_so_does_the_plain_one_beside_it(feature: Feature) -> None:
    assert await scale.through(feature, 50) >= 0
    assert await scale.through(feature.plain, 50) >= 0
    assert await pending.steady(20, 30, feature) >= 0
    assert await lanes.spread(4, 20, 2, feature) >= 0


async def test_a_feature_is_on_in_its_lane_and_off_in_the_plain_one() -> None:
    for feature in FEATURES.values():
        on, off = feature.lane(), feature.plain.lane()
        assert on != off == PLAIN.lane()
        assert feature.options(7) == feature.plain.options(7)


def test_every_boost_that_is_timed_is_made() -> None:
    assert scale.boost_seconds(200, 10) > 0
    assert scale.boost_seconds(10, 10) > 0


@pytest.mark.parametrize("kind", ["lane_obs", "semaphore", *EACH])
def test_a_pending_command_takes_some_memory_but_not_much(kind: str) -> None:
    found = memory.bytes_each(kind, 2_000, "tracemalloc")
    assert found is not None
    assert 100 < found < 5_000


def test_the_least_of_the_rounds_counts_and_all_take_part_in_each() -> None:
    order: list[str] = []
    values = {"a": iter([3.0, 1.0, 2.0]), "b": iter([5.0, 6.0, 4.0])}

    def run(name: str) -> float:
        order.append(name)
        return next(values[name])

    assert best_of({"a": lambda: run("a"), "b": lambda: run("b")}, 3) == {"a": 1.0, "b": 4.0}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_budgets_hold_at_their_very_edge() -> None:
    assert at_least(1.5, 1.5) == ("at least 1.5", True)
    assert at_least(1.5, 1.49) == ("at least 1.5", False)
    assert at_most(450, 450, "B") == ("at most 450 B", True)
    assert at_most(450, 450.5, "B") == ("at most 450 B", False)


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (50, 99, 100)
    assert quantile([7.0], 0.99) == 7
    assert quantile([], 0.5) != quantile([], 0.5)


def made_up(sizes: Sizes) -> Iterator[Figure]:
    yield Figure("lanes", "fine", 1.0, "us", 3.0, "peer", 3.0, *at_least(1, 3.0))
    yield Figure("lanes", "slow", 1_234.5, "us", None, "peer (not installed)", 0.5, *at_least(1, 0.5))


@pytest.fixture
def one_made_up_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "lanes", made_up)


@pytest.mark.usefixtures("one_made_up_row")
def test_compare_prints_one_table_and_exits_0_although_a_budget_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--only", "lanes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (fine,) = [line for line in lines if "fine" in line]
    (slow,) = [line for line in lines if "slow" in line]
    assert [cell.strip() for cell in fine.split("│")[1:-1]] == [
        "lanes", "fine", "1 us", "3 us", "peer", "3", "at least 1", "yes",
    ]  # fmt: skip
    assert [cell.strip() for cell in slow.split("│")[1:-1]] == [
        "lanes", "slow", "1,234 us", "", "peer (not installed)", "0.5", "at least 1", "NO",
    ]  # fmt: skip


@pytest.mark.usefixtures("one_made_up_row")
def test_compare_writes_the_figures_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert compare.main(["--only", "lanes", "--json", str(path)]) == 0
    report = json.loads(path.read_text("utf-8"))
    assert report["quick"] is False
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [figure["holds"] for figure in report["figures"]] == [True, False]
    assert report["figures"][0]["ratio"] == 3.0
    assert "slow" in capsys.readouterr().out


@pytest.mark.usefixtures("one_made_up_row")
def test_compare_prints_the_table_for_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--only", "lanes", "--markdown"]) == 0
    title, blank, *lines = capsys.readouterr().out.splitlines()
    assert (title.startswith("Python "), blank) == (True, "")
    assert lines == [
        "| row | what | ours | against | of | ratio | budget | holds |",
        "| --- | --- | ---: | ---: | --- | ---: | --- | --- |",
        "| lanes | fine | 1 us | 3 us | peer | 3 | at least 1 | yes |",
        "| lanes | slow | 1,234 us |  | peer (not installed) | 0.5 | at least 1 | NO |",
    ]


@pytest.mark.usefixtures("one_made_up_row")
def test_a_quick_comparison_judges_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--only", "lanes", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("not judged") == 2
    assert "NO" not in shown


def test_an_unknown_row_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--only", "speed"])
    assert "throughput" in capsys.readouterr().err


@pytest.mark.parametrize("row", ROWS)
def test_every_row_yields_figures_at_tiny_sizes(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "load", lambda: None)
    monkeypatch.setattr(collector, "agent", lambda: None)
    figures = list(compare.measure([row], TINY))
    assert {figure.row for figure in figures} == {row}
    assert any(figure.budget for figure in figures)
    assert all(figure.holds is not None for figure in figures if figure.budget)


def test_a_peer_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "load", lambda: None)
    named = [figure.peer for figure in compare.measure(["idle"], TINY)]
    assert "a3s-lane (not installed)" in named


class StandInLane:
    """Answers as the peer's lane does, at once."""

    def __init__(self) -> None:
        self.submitted: list[object] = []

    def start(self) -> None:
        pass

    def submit(self, lane: str, command_type: str, payload: object = None) -> object:
        self.submitted.append(payload)
        return payload

    def subscribe_filtered(self, keys: list[str]) -> StandInStream:
        return StandInStream(keys)


class StandInStream:
    def __init__(self, keys: list[str]) -> None:
        self._events = [StandInEvent(key, f"2026-01-01T00:00:00.00{place}000+00:00") for place, key in enumerate(keys)]
        self._next = 0

    def recv(self, timeout_ms: int) -> StandInEvent:
        self._next += 1
        return self._events[(self._next - 1) % len(self._events)]


class StandInEvent:
    def __init__(self, key: str, timestamp: str) -> None:
        self.key = key
        self.timestamp = timestamp


def test_the_peers_report_has_its_throughput_and_its_waits() -> None:
    report = peer.report(StandInLane, 20, 0.01)
    assert report["ran"] == 20
    assert report["waits_ms"] == pytest.approx([1.0] * 20)
    assert report["per_second"] > 0


def events_of(count: int, loop: str) -> int:
    sink = NullSink()
    queue = OpenQueue(loop, sinks=[sink])
    queue.run(queue.submit_and_wait, [LANE] * count)
    queue.close()
    return sink.count


@pytest.mark.parametrize("loop", LOOPS)
def test_a_sink_that_counts_events_sees_three_for_each_command(loop: str) -> None:
    assert events_of(30, loop) - events_of(10, loop) == 3 * 20


@pytest.mark.parametrize("loop", LOOPS)
def test_a_paused_queue_keeps_its_commands_until_it_is_resumed(loop: str) -> None:
    queue = OpenQueue(loop)
    queue.run(queue.pause, 10)
    assert queue.manager.stats().total_pending == 10
    queue.run(queue.resume_and_wait)
    assert queue.manager.stats().total_pending == 0
    queue.close()
