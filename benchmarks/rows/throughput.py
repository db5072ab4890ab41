"""Bare queue: many no-op commands, from first submit to last result, 32 at a time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import peer
from benchmarks.figure import Figure, Sizes, at_least, best_of
from benchmarks.workload import LOOPS, THROUGHPUT, on_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = "throughput"
_BUDGETS = {"asyncio.Semaphore": 1.0, "aiojobs": 1.5, "aiojobs, pending_limit=0": 1.5}


def figures(sizes: Sizes) -> Iterator[Figure]:
    """How many times as fast as each peer, on each event loop."""
    fastest = 0.0
    for loop in LOOPS:
        runs = {name: functools.partial(on_loop, loop, run, sizes.commands) for name, run in THROUGHPUT.items()}
        seconds = best_of(runs, sizes.rounds)
        each = {name: value / sizes.commands * 1e6 for name, value in seconds.items()}
        ours = each.pop("lane_obs")
        fastest = fastest or 1e6 / ours
        for name, theirs in each.items():
            ratio = theirs / ours
            budget, holds = at_least(_BUDGETS[name], ratio) if name in _BUDGETS else ("", None)
            yield Figure(ROW, f"time a command, {loop}", ours, "us", theirs, name, ratio, budget, holds)
    yield _slow_peer(sizes, fastest)


def _slow_peer(sizes: Sizes, ours: float) -> Figure:
    what, found = f"commands a second, {LOOPS[0]}", peer.measure(sizes.peer_commands, 0)
    if found is None:
        return Figure(ROW, what, ours, "/s", None, f"{peer.NAME} (not installed)")
    name, theirs = f"{peer.NAME}, {found['ran']} commands", found["per_second"]
    return Figure(ROW, what, ours, "/s", theirs, name, ours / theirs)
