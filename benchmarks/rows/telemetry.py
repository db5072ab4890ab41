"""The price of logs, metrics and traces: against a queue without, and against instruments put in by hand."""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING, Any

from benchmarks import collector
from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile
from benchmarks.retained import kept
from benchmarks.telemetry import DEFAULT_SPANS, PIPELINE, SINKS, Outside, Spent, by_hand, by_lane_obs, missing
from benchmarks.workload import LOOPS, on_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROW = "telemetry"
METRICS = ("metrics",)
FULL = ("metrics", "logs", "traces")
"""What the peer has too."""
SPANS_EACH = 2
"""A submit span and a process span."""
_ALL = "metrics, logs, traces"
_HAND = "PriorityQueue, by hand"
_METRICS_RATIO = 1.5
_HAND_RATIO = 3.0
_DOWN_RATIO = 0.9
_FLAT_BYTES = 1.0
_FLAT_RATIO = 1.25
_GAP_MS = 5.0
_GAP_SERIES = 1_000
_SERIES = (500, _GAP_SERIES, 5_000)
_SLOW_ROUNDS = 3
_SLOW_SHARE = 5
"""Where the SDK's encoding of spans takes most of the time, a fifth of the commands will do."""
_FEW_SHARE = 5
"""Memory is read after a fifth of the commands, and after all."""
_DOWN_COMMANDS = 5_000


class Meter:
    """One contestant: measures runs, and keeps the least of each value.

    Args:
        loop: kind of event loop.
        count: commands of a run.
        work: runs them.
        *args: what it wants besides.
        **outside: options of `Outside`.
    """

    def __init__(self, loop: str, count: int, work: Callable[..., Any], *args: Any, **outside: Any) -> None:
        self._run = functools.partial(_one, loop, count, work, args, outside)
        self._count = count
        self.seconds = self.answered = self.cpu = self.closing = math.inf
        self._spans: list[int] = []

    def __call__(self) -> float:
        """Measures once more."""
        spent = self._run()
        self.seconds, self.answered = min(self.seconds, spent.seconds), min(self.answered, spent.answered)
        self.cpu, self.closing = min(self.cpu, spent.cpu), min(self.closing, spent.closing)
        self._spans.append(spent.spans)
        return spent.seconds

    def each(self, seconds: float) -> float:
        """Microseconds for each command."""
        return seconds / self._count * 1e6

    @property
    def lost(self) -> float:
        """Share of the spans that were not delivered, in per cent, over all runs. (A drain has a span of its own.)"""
        wanted = SPANS_EACH * self._count
        return 100 * sum(max(wanted - spans, 0) for spans in self._spans) / (wanted * len(self._spans))


def _one(loop: str, count: int, work: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Spent:
    with Outside(count, **options) as outside:
        spent: Spent = on_loop(loop, work, outside, *args)
    return spent


def figures(sizes: Sizes) -> Iterator[Figure]:
    """All of it; one line instead where the libraries are not installed."""
    if lacking := missing():
        yield Figure(ROW, _ALL, None, "us", None, f"not measured, not installed: {lacking}")
        return
    for loop in LOOPS:
        yield from _metrics_only(loop, sizes)
    for loop in LOOPS:
        yield from _against_hand(loop, f"{_ALL} (discarded)", sizes.commands, sizes.rounds, _HAND_RATIO)
    yield from _with_collector(sizes)
    yield from _each_alone(sizes)
    yield from _retained(sizes)
    yield from _scrapes(sizes)


def _metrics_only(loop: str, sizes: Sizes) -> Iterator[Figure]:
    ours, bare = (Meter(loop, sizes.commands, by_lane_obs, names) for names in (METRICS, ()))
    best_of({"metrics": ours, "bare": bare}, sizes.rounds)
    for what, mine, without in _times(ours, bare):
        budget = at_most(_METRICS_RATIO, mine / without)
        yield Figure(ROW, f"metrics, {what}, {loop}", mine, "us", without, "no sinks", mine / without, *budget)


def _times(ours: Meter, theirs: Meter) -> Iterator[tuple[str, float, float]]:
    """By the clock on the wall, and by that of the process: the second counts all threads, and no other program."""
    yield "time a command", ours.each(ours.seconds), theirs.each(theirs.seconds)
    yield "CPU a command", ours.each(ours.cpu), theirs.each(theirs.cpu)


def _against_hand(
    loop: str, name: str, count: int, rounds: int, wanted: float | None = None, **outside: Any
) -> Iterator[Figure]:
    """Ours against the peer; every command traced, logged and measured by both."""
    ours, hand = Meter(loop, count, by_lane_obs, FULL, **outside), Meter(loop, count, by_hand, **outside)
    best_of({"ours": ours, "by hand": hand}, rounds)
    for what, mine, theirs in _times(ours, hand):
        budget, holds = ("", None) if wanted is None else at_least(wanted, theirs / mine)
        yield Figure(ROW, f"{name}, {what}, {loop}", mine, "us", theirs, _HAND, theirs / mine, budget, holds)
    yield Figure(ROW, f"{name}, spans lost, {loop}", ours.lost, "%", hand.lost, _HAND)


def _with_collector(sizes: Sizes) -> Iterator[Figure]:
    """The same with spans that go to a real receiver, and with one that is not there."""
    program = collector.agent()
    if program is None:
        yield Figure(ROW, f"{_ALL} (OTLP)", None, "us", None, f"not measured, not installed: {collector.NAME}")
        return
    count, rounds = max(sizes.commands // _SLOW_SHARE, 1), min(sizes.rounds, _SLOW_ROUNDS)
    with collector.quiet(), collector.receiver(program) as port:
        exporter = collector.over_grpc(port)
        for name, room in (("OTLP, room for all", None), (f"OTLP, room for {DEFAULT_SPANS:,}", DEFAULT_SPANS)):
            yield from _against_hand(LOOPS[0], f"{_ALL} ({name})", count, rounds, exporter=exporter, span_room=room)
        yield from _receiver_down(port, count, rounds)
        if sizes.judged:  # it takes half a minute
            yield _down_by_hand()


def _receiver_down(port: int, count: int, rounds: int) -> Iterator[Figure]:
    """With the tracer provider that `OtelSink` sets up, which ends in bounded time."""
    names = ("metrics", "logs", PIPELINE)
    ends = {"up": collector.endpoint(port), "down": collector.endpoint(collector.free_port())}
    meters = {name: Meter(LOOPS[0], count, by_lane_obs, names, endpoint=end) for name, end in ends.items()}
    best_of(meters, rounds)
    up, down = meters["up"], meters["down"]
    mine, theirs = count / down.answered, count / up.answered
    budget = at_least(_DOWN_RATIO, mine / theirs)
    yield Figure(ROW, "receiver down, commands a second", mine, "/s", theirs, "receiver up", mine / theirs, *budget)
    yield Figure(ROW, "receiver down, time to close", down.closing, "s", up.closing, "receiver up")


def _down_by_hand() -> Figure:
    """The same end with the SDK's own provider, once: its shutdown waits for a receiver that is not there."""
    exporter = collector.over_grpc(collector.free_port())
    ours, hand = (
        Meter(LOOPS[0], _DOWN_COMMANDS, work, *args, **options)
        for work, args, options in (
            (by_lane_obs, (("metrics", "logs", PIPELINE),), {"endpoint": collector.endpoint(collector.free_port())}),
            (by_hand, (), {"exporter": exporter}),
        )
    )
    ours(), hand()
    what = f"receiver down, time to close after {_DOWN_COMMANDS:,} commands"
    return Figure(ROW, what, ours.closing, "s", hand.closing, _HAND)


def _each_alone(sizes: Sizes) -> Iterator[Figure]:
    """What each sink costs alone, and all together."""
    meters = {"no sinks": _alone((), sizes)}
    meters |= {name: _alone((name,), sizes) for name in SINKS}
    meters["traces, ratio 0"] = _alone(("traces",), sizes, ratio=0.0)
    meters[f"all {len(SINKS)} sinks"] = _alone(tuple(SINKS), sizes)
    best_of(meters, sizes.rounds)
    bare = meters.pop("no sinks")
    for name, meter in meters.items():
        mine, without = meter.each(meter.cpu), bare.each(bare.cpu)
        yield Figure(ROW, f"{name}, CPU a command", mine, "us", without, "no sinks", mine / without)


def _alone(names: tuple[str, ...], sizes: Sizes, **outside: Any) -> Meter:
    return Meter(LOOPS[0], sizes.commands, by_lane_obs, names, **outside)


def _retained(sizes: Sizes) -> Iterator[Figure]:
    few, many = max(sizes.commands // _FEW_SHARE, 1), sizes.commands
    for method in ("rss", "tracemalloc"):
        found = kept(few, many, method)
        if found is None:
            continue
        after_few, after_many = (value / 1024 for value in found)
        ratio = after_many / max(after_few, 1.0)
        what, name = f"kept after {many:,} commands, {method}", f"after {few:,}"
        yield Figure(ROW, what, after_many, "KiB", after_few, name, ratio, *at_most(_FLAT_RATIO, ratio))
        if method == "tracemalloc":  # the other counts whole pages
            each = (found[1] - found[0]) / (many - few)
            budget = at_most(_FLAT_BYTES, each, "B")
            yield Figure(ROW, f"kept of each command after {few:,}, {method}", each, "B", None, "", None, *budget)


def _scrapes(sizes: Sizes) -> Iterator[Figure]:
    from benchmarks import scrape

    for wanted in _SERIES:
        lanes = scrape.lanes_for(wanted)
        rendered = asyncio.run(scrape.rendering(lanes, sizes.scrapes))
        each = rendered.seconds * 1e6 / rendered.series
        yield Figure(ROW, f"render {rendered.series:,} series, CPU", rendered.seconds * 1e3, "ms")
        yield Figure(ROW, f"render {rendered.series:,} series, CPU a series", each, "us")
        ours = on_loop(LOOPS[0], scrape.gaps, lanes, sizes.scrapes)
        theirs = on_loop(LOOPS[0], functools.partial(scrape.gaps, theirs=True), lanes, sizes.scrapes)
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            mine, other, free = (quantile(v, share) * 1e3 for v in (ours.scraped, theirs.scraped, ours.free))
            budget = at_most(_GAP_MS, mine, "ms") if wanted == _GAP_SERIES else ("", None)
            what = f"longest gap of the loop, scrape of {ours.series:,} series, {name}"
            yield Figure(ROW, what, mine, "ms", other, "prometheus_client's server", None, *budget)
            yield Figure(ROW, f"longest gap of the loop, no scrape, {name}", free, "ms")
