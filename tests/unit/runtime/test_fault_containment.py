"""What goes wrong in users' code, in threads and in sinks stays where it is: the queue runs on, and closes."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    Command,
    EventEmitter,
    InvalidCommand,
    LaneConfig,
    MemorySink,
    QueueManager,
    RetryAfter,
    RetryPolicy,
    command,
)
from lane_obs.command import registry, type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs import LaneEvent, VirtualClock


async def noop() -> None:
    """Does nothing."""


class Nameless(Command[int]):
    """Its name cannot be read."""

    @property
    def command_type(self) -> str:  # type: ignore[override]
        raise RuntimeError("no name")

    async def execute(self) -> int:
        return 7


@pytest.mark.both_loops
async def test_a_command_whose_name_cannot_be_read_runs_under_that_of_its_class(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink]) as manager:
        first, second = await manager.submit("a", Nameless()), await manager.submit("a", noop)
        assert await clock.run(first) == 7
        assert await clock.run(second) is None
    assert sink.of("queue.command.started")[0].payload["command_type"] == "Nameless"


async def test_a_start_that_raises_does_not_keep_the_queue_from_waking_again(clock: VirtualClock) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    async with QueueManager({"a": LaneConfig(0, 4)}, clock=clock, close_timeout=0) as manager:
        broken = await manager.submit("a", noop)
        broken._context = None  # an invariant of ours, broken
        await clock.advance(1)
        assert [type(fault["exception"]) for fault in faults] == [AssertionError]
        assert await clock.run(await manager.submit("a", noop)) is None
        manager._dispatcher.stops.abandon(broken)


class Unreadable(RetryAfter):
    """A subclass that forgets its parent's constructor."""

    def __init__(self) -> None:
        pass


@pytest.mark.both_loops
async def test_a_retry_after_without_its_seconds_is_retried_at_once(clock: VirtualClock) -> None:
    async def work() -> None:
        raise Unreadable

    lanes = {"a": LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 5.0))}
    async with QueueManager(lanes, clock=clock) as manager:
        handle = await manager.submit("a", work)
        with pytest.raises(Unreadable):
            await clock.run(handle)
        assert handle.attempt == 2
        assert manager.stats().lanes["a"].running == 0


def test_a_subclass_of_a_registered_command_has_a_name_of_its_own() -> None:
    class Parent(Command[None]):
        async def execute(self) -> None: ...

    command("a registered parent")(Parent)
    try:

        class Child(Parent):
            command_type = "child"

        assert (type_name(Parent()), type_name(Child())) == ("a registered parent", "child")
    finally:
        registry.remove("a registered parent")


class Mute(Exception):
    """Its text cannot be read."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Failing:
    """A sink that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise self.error

    def close(self) -> None:
        """Has nothing to let go of."""


@pytest.mark.parametrize("error", [Mute(), asyncio.CancelledError()], ids=["unreadable", "cancelled"])
async def test_whatever_a_sink_raises_the_next_one_gets_its_events(clock: VirtualClock, error: BaseException) -> None:
    sink = MemorySink()
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[Failing(error), sink]) as manager:
        await clock.run(await manager.submit("a", noop))
        await clock.advance(0)
        assert manager.stats().sinks[0].errors > 0
    assert [event.seq for event in sink.events] == list(range(1, len(sink.events) + 1))
    assert len(sink.of("queue.sink.failed")) == 1


async def test_drops_of_a_subscriber_that_is_gone_stay_counted(clock: VirtualClock) -> None:
    emitter = EventEmitter(1)
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[emitter]) as manager:
        stream = emitter.subscribe()
        await clock.run(await manager.submit("a", noop))
        await clock.advance(0)
        lost = stream.dropped
        assert lost > 0
        del stream
        gc.collect()
        assert emitter.dropped["slow_subscriber"] == lost


async def test_an_idle_thread_keeps_nothing_of_its_last_command() -> None:
    class Big:
        """Something to let go of."""

    async with QueueManager({"a": LaneConfig(0, 1)}) as manager:
        handle = await manager.submit("a", Big)
        kept = weakref.ref(await handle)
        del handle
        for _ in range(100):  # the thread lets go just after it has told the loop
            gc.collect()
            if kept() is None:
                break
            await asyncio.sleep(0.01)
        assert kept() is None


async def test_a_drain_beside_a_close_waits_for_it(clock: VirtualClock) -> None:
    gate = asyncio.Event()
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
    await manager.start()
    handle = await manager.submit("a", gate.wait)
    await clock.advance(0)
    closing = asyncio.ensure_future(manager.close())
    await asyncio.sleep(0)
    assert await clock.run(manager.stop()) is None
    await closing
    assert handle.state == "cancelled"


async def test_a_drain_that_timed_out_on_a_signal_is_not_drained_again(clock: VirtualClock) -> None:
    from lane_obs.runtime.run import _drain_or_close

    gate = asyncio.Event()
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, drain_timeout=2.0) as manager:
        await manager.submit("a", gate.wait)
        began = clock.now()
        await clock.run(_drain_or_close(manager))
    assert clock.now() - began == pytest.approx(2.0)


async def test_a_command_submitted_within_a_first_step_starts_after_its_submit() -> None:
    async def child() -> None: ...

    async def parent(manager: QueueManager) -> Any:
        time.sleep(0.02)  # what a first step may take
        return await manager.submit("a", child)

    async with QueueManager({"a": LaneConfig(0, 4)}) as manager:
        handle = await (await manager.submit("a", parent, manager))
        await handle
        assert handle.started_at >= handle.submitted_at
        assert handle.wait_seconds >= 0


def test_a_decorated_thing_that_takes_no_attributes_is_refused_and_not_registered() -> None:
    from lane_obs import ConfigError, UnknownCommand

    with pytest.raises(ConfigError, match="decorate a function or a Command class"):
        command("a builtin")(threading.get_ident)
    with pytest.raises(UnknownCommand):
        registry.find("a builtin")


@pytest.mark.both_loops
async def test_a_coroutine_object_is_taken_once_and_the_first_submit_is_unharmed(clock: VirtualClock) -> None:
    async def work() -> int:
        return 3

    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock) as manager:
        once = work()
        handle = await manager.submit("a", once)
        with pytest.raises(InvalidCommand, match="was submitted already"):
            manager.submit_nowait("a", once)
        assert await clock.run(handle) == 3
        twice = work()
        with pytest.raises(InvalidCommand, match="was submitted already"):
            await manager.submit_many("a", [twice, twice])
        assert manager.stats().submitted == 1
