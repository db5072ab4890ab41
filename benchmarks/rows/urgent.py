"""A control command behind many pending prompt commands: what place it takes in the order of starts, and how soon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Figure, Sizes, at_most, quantile
from benchmarks.workload import LIMIT, LOOPS, on_loop
from lane_obs import DEFAULT_LANES, LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = "urgent"
_SAMPLES = 100
_PROMPTS = DEFAULT_LANES["prompt"].max_concurrency


class Order:
    """Notes who starts when. A prompt runs until it is released; a control command ends at once."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.started_at = 0.0
        self._gates: list[asyncio.Future[None]] = []
        self._open = False

    async def prompt(self) -> None:
        self.names.append("prompt")
        if not self._open:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            await gate

    async def control(self) -> None:
        self.started_at = time.perf_counter()
        self.names.append("control")

    async def until_running(self, count: int) -> None:
        """Returns once this many prompts run."""
        while len(self._gates) < count:
            await asyncio.sleep(0)

    def release_one(self) -> None:
        """Lets the prompt that runs for the longest time end."""
        self._gates.pop(0).set_result(None)

    def release_all(self) -> None:
        """Lets all prompts end, those still to start as well."""
        self._open = True
        while self._gates:
            self.release_one()

    def place_of_control(self, before: int) -> int:
        """The place of the control command among what started since `before` commands had: 1 is next."""
        return self.names.index("control", before) - before + 1


async def with_a_slot_free(pending: int, samples: int) -> tuple[int, list[float]]:
    """The default lanes, the prompt lane full and `pending` waiting in it, and slots free for control commands.

    Returns:
        The worst place a control command took, and for each the milliseconds from submit to start.
    """
    order, worst, waits = Order(), 0, []
    async with QueueManager(max_concurrency=LIMIT) as manager:
        for _ in range(pending + _PROMPTS):
            manager.submit_nowait("prompt", order.prompt)
        await order.until_running(_PROMPTS)
        for _ in range(samples):
            before, start = len(order.names), time.perf_counter()
            await (await manager.submit("control", order.control))
            waits.append((order.started_at - start) * 1e3)
            worst = max(worst, order.place_of_control(before))
        order.release_all()
    return worst, waits


async def with_a_slot_to_come(pending: int, samples: int) -> int:
    """One queue-wide slot, taken by a prompt; a control command is submitted, then the prompt ends.

    Returns:
        The worst place a control command took.
    """
    order, worst = Order(), 0
    lanes = {"control": LaneConfig(0, 1, priority=1), "prompt": LaneConfig(0, 1, priority=5)}
    async with QueueManager(lanes, max_concurrency=1) as manager:
        for _ in range(pending + samples):
            manager.submit_nowait("prompt", order.prompt)
        for _ in range(samples):
            await order.until_running(1)
            before = len(order.names)
            handle = await manager.submit("control", order.control)
            order.release_one()
            await handle
            worst = max(worst, order.place_of_control(before))
        order.release_all()
    return worst


async def semaphore_place(pending: int) -> int:
    """The place of the same command where tasks queue for an `asyncio.Semaphore`, which knows no priority."""
    order, semaphore = Order(), asyncio.Semaphore(1)

    async def run(prompt: bool) -> None:
        async with semaphore:
            await (order.prompt() if prompt else order.control())

    tasks = [asyncio.create_task(run(True)) for _ in range(pending + 1)]
    await order.until_running(1)
    before = len(order.names)
    tasks.append(asyncio.create_task(run(False)))
    order.release_all()
    await asyncio.gather(*tasks)
    return order.place_of_control(before)


def figures(sizes: Sizes) -> Iterator[Figure]:
    """Place in the order of starts, with a slot free and with one to come; then the time it takes."""
    loop, pending = LOOPS[0], sizes.commands
    place, waits = on_loop(loop, with_a_slot_free, pending, _SAMPLES)
    _, alone = on_loop(loop, with_a_slot_free, 0, _SAMPLES)
    theirs = on_loop(loop, semaphore_place, pending)
    budget, holds = at_most(1, place)
    yield Figure(
        ROW,
        f"place behind {pending:,} prompts, a slot free",
        place,
        "",
        theirs,
        "asyncio.Semaphore",
        None,
        budget,
        holds,
    )
    place = on_loop(loop, with_a_slot_to_come, pending, _SAMPLES)
    budget, holds = at_most(1, place)
    yield Figure(
        ROW,
        f"place behind {pending:,} prompts, a slot to come",
        place,
        "",
        theirs,
        "asyncio.Semaphore",
        None,
        budget,
        holds,
    )
    for share in (0.5, 0.99):
        mine, bare = quantile(waits, share), quantile(alone, share)
        what = f"submit to start behind {pending:,}, p{share * 100:g}, {loop}"
        yield Figure(ROW, what, mine, "ms", bare, "nothing pending", mine / bare)
