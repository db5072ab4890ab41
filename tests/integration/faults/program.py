"""A worker or a producer, a process of its own.

It notes `up` once it takes part. A worker ends in order on SIGTERM; a producer then submits nothing more, and ends once
all its commands have.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from lane_obs import (
    LaneConfig,
    Partitions,
    QueueManager,
    RateLimit,
    RetryPolicy,
    SystemClock,
    command,
    current,
)
from lane_obs.distributed import RedisBroker
from lane_obs.errors import BrokerRefused, BrokerUnavailable
from lane_obs.runtime.run import loop_factory
from tests.integration.faults.ledger import Ledger
from tests.integration.faults.rules import KEYS, MOST, PARTS, RETRY_SECONDS, RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Claimed, End, Progress, Turn
    from lane_obs.events import LaneEvent

MANY = 1_000_000
OUTSTANDING = 24
SUBMITTERS = 4

ledger: Ledger


class SkewedClock(SystemClock):
    """A clock that is hours off, and whose wall time jumps."""

    def __init__(self, hours: float) -> None:
        super().__init__()
        self._skew = hours * 3600
        self._rng = random.Random(hours)
        self.now = lambda: time.monotonic() + self._skew  # type: ignore[method-assign]
        self.wall = lambda: time.time() + self._skew * self._rng.choice((-1, 0, 1))  # type: ignore[method-assign]


class NotingBroker(RedisBroker):
    """Writes down what it is given and what it tells."""

    asked = 0.0

    async def open(self, *policies: Any, listener: Listener, **options: Any) -> None:
        on_claimed = listener.on_claimed

        def noted(claimed: Sequence[Claimed]) -> None:
            self._note(claimed, self.asked, pushed=True)  # it is idle since then
            on_claimed(claimed)

        listener.on_claimed = noted  # type: ignore[method-assign]
        await super().open(*policies, listener=listener, **options)

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        asked = time.monotonic()
        if ends:
            ledger.note("told", ids=[end.id for end in ends], states=[end.state for end in ends])
        turn = await super().turn(ends, want, progress)
        before, self.asked = self.asked, asked  # what comes while a turn is under way may have been pushed before it
        self._note(turn.claimed, before)  # and so may some of its answer
        return turn

    @staticmethod
    def _note(claimed: Sequence[Claimed], asked: float, *, pushed: bool = False) -> None:
        for claim in claimed:
            ledger.note(
                "claim", id=claim.id, lane=claim.lane, token=claim.token, attempt=claim.attempt, asked=asked,
                age=claim.age, deaths=claim.deaths, pushed=pushed,
            )  # fmt: skip


class Notes:
    """A sink that writes down what concerns leases."""

    KEYS = frozenset({"queue.command.lease_lost", "queue.command.stale", "queue.command.returned"})

    def handle(self, events: Sequence[LaneEvent]) -> None:
        for event in events:
            if event.key in self.KEYS:
                fields = {name: event.payload.get(name) for name in ("command_id", "attempt", "member")}
                ledger.note(event.key.removeprefix("queue.command."), **fields)

    def close(self) -> None:
        pass


async def take(seconds: float, fails: int, attempt: int) -> None:
    if seconds:
        await asyncio.sleep(seconds)
    if attempt <= fails:
        raise ConnectionError(attempt)


@command("faults.work")
async def work(seconds: float, fails: int) -> list[int]:
    """Takes its time; ends well from the attempt after `fails` on. Its value tells which attempt that was."""
    me = current()
    ledger.note("start", id=me.id, lane=me.lane, attempt=me.attempt)
    try:
        await take(seconds, fails, me.attempt)
    except BaseException as error:
        ledger.note("end", id=me.id, attempt=me.attempt, error=type(error).__name__)
        raise
    ledger.note("end", id=me.id, attempt=me.attempt, error="")
    return [me.attempt]


@command("faults.block")
async def block(seconds: float) -> list[int]:
    """Stops its event loop."""
    me = current()
    ledger.note("start", id=me.id, lane=me.lane, attempt=me.attempt)
    time.sleep(seconds)
    ledger.note("end", id=me.id, attempt=me.attempt, error="")
    return [me.attempt]


@command("faults.linger")
async def linger(seconds: float) -> list[int]:
    """Takes long at its first attempt only."""
    me = current()
    ledger.note("start", id=me.id, lane=me.lane, attempt=me.attempt)
    await asyncio.sleep(seconds if me.attempt == 1 else 0)
    ledger.note("end", id=me.id, attempt=me.attempt, error="")
    return [me.attempt]


def to_config(rule: Rule) -> LaneConfig:
    limit = None
    if rule.rate is not None:
        amount, seconds, burst = rule.rate
        limit = RateLimit.sliding_window(amount, seconds) if burst is None else RateLimit(amount, seconds, burst)
    return LaneConfig(
        1 if rule.most < 6 else 0, rule.most, max_crashes=MANY, rate_limit=limit,
        retry=RetryPolicy.fixed(rule.failures, RETRY_SECONDS) if rule.failures else RetryPolicy(),
        partitions=Partitions.per_key() if rule.parted else None,
    )  # fmt: skip


def to_manager(order: dict[str, Any]) -> QueueManager:
    broker = NotingBroker(
        order["url"], lease=order["lease"], concurrency=order.get("concurrency", 6), result_ttl=order["ttl"],
        timeout=order["timeout"], submit_timeout=2.0,
    )  # fmt: skip
    lanes = {name: to_config(rule) for name, rule in RULES.items()}
    clock = SkewedClock(order["skew"]) if order.get("skew") else None
    works = order["role"] == "worker"
    return QueueManager(lanes, max_concurrency=MOST, broker=broker, work=works, sinks=[Notes()], clock=clock)


async def until_told() -> None:
    """Returns on SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


async def run_worker(order: dict[str, Any]) -> None:
    async with to_manager(order):
        ledger.note("up")
        await until_told()


class Producer:
    """Submits commands at random, and waits for each of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._rng = random.Random(order["seed"])
        self._manager = to_manager(order)
        self._room = asyncio.Semaphore(OUTSTANDING)
        self._waiters: set[asyncio.Task[None]] = set()
        self._left = order["count"]
        self._lanes = order.get("lanes") or list(RULES)
        self._name = order["who"]

    async def run(self) -> None:
        async with self._manager:
            ledger.note("up")
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
            await asyncio.gather(*(self._submitter() for _ in range(SUBMITTERS)))
            while self._waiters:
                await asyncio.gather(*self._waiters)
            ledger.note("done")

    def _stop(self) -> None:
        self._left = 0

    async def _submitter(self) -> None:
        while self._left > 0:
            self._left -= 1
            number = self._left
            await self._room.acquire()
            await self._submit(f"{self._name}.{number}")

    async def _submit(self, name: str) -> None:
        rng = self._rng
        lane = rng.choice(self._lanes)
        rule = RULES[lane]
        options: dict[str, Any] = {"id": name}
        if rule.delayed:
            options["delay"] = rng.uniform(0.0, 0.4)
        if rule.keyed:
            options["key"] = f"key-{rng.randrange(KEYS)}"
        if rule.parted:
            options["partition_key"] = f"part-{rng.randrange(PARTS)}"
        if rng.random() < 0.2:
            options["deadline"] = 3600.0
        fails = rng.randrange(rule.failures + 1) if rule.failures else 0
        seconds = rng.choice((0.0, 0.0, 0.01, 0.03, 0.1))
        about = {"lane": lane, "key": options.get("key"), "part": options.get("partition_key")}
        while True:
            ledger.note("ask", id=name, delay=options.get("delay", 0.0), **about)
            try:
                handle = await self._manager.submit(lane, work, seconds, fails, **options)
                break
            except (BrokerRefused, BrokerUnavailable) as error:  # the same again is safe
                ledger.note("refused", id=name, error=str(error))
                await asyncio.sleep(0.05)
        ledger.note("ack", id=handle.id, name=name, **about)
        waiter = asyncio.ensure_future(self._wait(handle))
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)

    async def _wait(self, handle: Any) -> None:
        error, value = "", None
        try:
            value = await handle
        except Exception as failure:
            error = repr(failure)
        ledger.note("result", id=handle.id, value=value, error=error)
        self._room.release()


async def run_heir(order: dict[str, Any]) -> None:
    """Waits for commands that another process has submitted."""

    async def wait(manager: QueueManager, command_id: str) -> None:
        error, value = "", None
        try:
            value = await manager.result(command_id)
        except Exception as failure:
            error = repr(failure)
        ledger.note("result", id=command_id, value=value, error=error)

    async with to_manager(order) as manager:
        ledger.note("up")
        await asyncio.gather(*(wait(manager, command_id) for command_id in order["ids"]))
        ledger.note("done")


async def run_single(order: dict[str, Any]) -> None:
    """Submits commands of one kind, and waits for them."""
    work_of = {"block": block, "linger": linger}[order["command"]]
    async with to_manager(order) as manager:
        ledger.note("up")
        about = {"lane": "wide", "key": None, "part": None}
        handles = []
        for number in range(order["count"]):
            name = f"{order['who']}.{number}"
            ledger.note("ask", id=name, delay=0.0, **about)
            handles.append(await manager.submit("wide", work_of, order["seconds"], id=name))
            ledger.note("ack", id=name, name=name, **about)
        for handle in handles:
            ledger.note("result", id=handle.id, value=await handle, error="")
        ledger.note("done")


def show_tasks() -> None:
    """Writes down what everything waits for."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=6, file=sys.stderr)
    faulthandler.dump_traceback(sys.stderr)
    sys.stderr.flush()


async def take_part(order: dict[str, Any]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, show_tasks)
    while True:
        try:
            return await ROLES[order["role"]](order)
        except BrokerUnavailable as error:  # as who watches over it would
            ledger.note("start failed", error=str(error))


ROLES: dict[str, Callable[[dict[str, Any]], Coroutine[Any, Any, None]]] = {
    "worker": run_worker,
    "producer": lambda order: Producer(order).run(),
    "heir": run_heir,
    "single": run_single,
}


def begin(order: dict[str, Any]) -> Ledger:
    """What every such process does first."""
    errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 2)
    return Ledger(order["ledger"], order["who"])


def main(order: dict[str, Any]) -> None:
    """What a worker or a producer runs."""
    global ledger
    ledger = begin(order)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(take_part(order))
