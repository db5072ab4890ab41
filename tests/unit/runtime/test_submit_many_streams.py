"""`submit_many` and `submit_stream` over iterators: drawn one by one, and not while the lane is full."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    ConfigError,
    InvalidCommand,
    LaneConfig,
    LaneFullError,
    LaneRemoved,
    QueueManager,
    ShutdownInProgress,
    State,
    UnknownLane,
    VirtualClock,
    command,
)
from lane_obs.clock import sleep
from lane_obs.storage import MemoryStorage
from tests.unit.runtime.support import Gate, noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOM_FOR_TWO = LaneConfig(0, 1, max_pending=2)


class Drawn:
    """Items of work, and how many of them were drawn."""

    def __init__(self, work: Any, count: int, error: Exception | None = None) -> None:
        self._work = work
        self._count = count
        self._error = error
        self.drawn = 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(self._count):
            self.drawn += 1
            yield self._work, number
        if self._error is not None:
            raise self._error


class DrawnLater(Drawn):
    """The same from an async iterator, each item a turn of the loop later."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in Drawn.__iter__(self):
            await asyncio.sleep(0)
            yield item


async def collect(stream: AsyncIterator[Any], into: list[Any]) -> None:
    """Notes the handles as they come, whatever ends the stream."""
    async for handle in stream:
        into.append(handle)


SOURCES = pytest.mark.parametrize("source", [Drawn, DrawnLater])


@SOURCES
async def test_handles_come_in_the_order_of_the_items(clock: VirtualClock, source: type[Drawn]) -> None:
    async with running(clock) as manager:
        handles = await clock.run(manager.submit_many("a", source(noop, 20)))
        assert [await clock.run(handle) for handle in handles] == list(range(20))
        assert [handle.seq for handle in handles] == sorted(handle.seq for handle in handles)


@SOURCES
async def test_a_full_lane_is_not_drawn_for(clock: VirtualClock, source: type[Drawn]) -> None:
    gate = Gate()
    async with running(clock, ROOM_FOR_TWO) as manager:
        items = source(gate, 10)
        task = asyncio.ensure_future(manager.submit_many("a", items))
        await clock.advance(1)
        for started in range(10):
            assert (gate.inside, items.drawn) == ([started], min(started + 3, 10))
            assert manager.stats().lanes["a"].pending == min(2, 9 - started)
            gate.open(started)
            await clock.advance(1)
        assert len(await task) == 10


@SOURCES
async def test_a_million_would_never_be_more_than_the_lane_holds(clock: VirtualClock, source: type[Drawn]) -> None:
    most = 0

    async def look(number: int) -> int:
        nonlocal most
        lane = manager.stats().lanes["a"]
        most = max(most, lane.pending)
        return number

    async with running(clock, LaneConfig(0, 4, max_pending=10)) as manager:
        seen = [await handle async for handle in manager.submit_stream("a", source(look, 2_000))]
        assert seen == list(range(2_000))
    assert most <= 10


@SOURCES
async def test_a_stream_draws_nothing_while_nobody_asks_for_the_next_handle(
    clock: VirtualClock, source: type[Drawn]
) -> None:
    async with running(clock) as manager:
        items = source(noop, 5)
        stream = manager.submit_stream("a", items)
        assert items.drawn == 0
        first = await anext(stream)
        await clock.advance(1)
        assert (items.drawn, first.done()) == (1, True)
        await stream.aclose()
        assert manager.stats().submitted == 1


@SOURCES
async def test_two_streams_and_single_submits_share_a_full_lane_in_turn(
    clock: VirtualClock, source: type[Drawn]
) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:

        async def name(prefix: str, number: int) -> None:
            await gate((prefix, number))

        def named(prefix: str) -> Any:
            async def work(number: int) -> None:
                await name(prefix, number)

            return work

        tasks = [asyncio.ensure_future(manager.submit_many("a", source(named(prefix), 6))) for prefix in "xy"]
        await clock.advance(1)
        single = asyncio.ensure_future(manager.submit("a", named("single"), 0))
        while gate.inside:
            gate.open(gate.inside[0])
            await clock.advance(1)
        await asyncio.gather(*tasks, single)
        assert sorted(gate.started) == sorted([("single", 0)] + [(prefix, n) for prefix in "xy" for n in range(6)])
        assert gate.started.index(("single", 0)) <= 5  # it waited its turn, not for the end of a stream
        for prefix in "xy":
            assert [number for who, number in gate.started if who == prefix] == list(range(6))


@SOURCES
async def test_an_iterator_that_raises_ends_it_and_those_before_run(clock: VirtualClock, source: type[Drawn]) -> None:
    async with running(clock) as manager:
        error = OSError("the file is cut off")
        with pytest.raises(OSError, match="cut off") as caught:
            await clock.run(manager.submit_many("a", source(noop, 3, error)))
        assert caught.value is error
        assert error.__notes__ == ["3 commands before it were enqueued"]
        await clock.run(manager.drain())
        assert manager.stats().lanes["a"].ended["succeeded"] == 3


@pytest.mark.parametrize("bad", [5, (), (noop(), 1), "nothing is registered under this"])
async def test_a_bad_item_ends_it_and_those_before_run(clock: VirtualClock, bad: Any) -> None:
    async with running(clock) as manager:
        later = noop()
        handles: list[Any] = []
        with pytest.raises((InvalidCommand, LookupError)):
            await collect(manager.submit_stream("a", iter([noop, (noop, 1), bad, later])), handles)
        assert [await clock.run(handle) for handle in handles] == [None, 1]
        assert manager.stats().submitted == 2
        if isinstance(bad, tuple) and bad:
            assert inspect.getcoroutinestate(bad[0]) == inspect.CORO_CLOSED
        assert inspect.getcoroutinestate(later) == inspect.CORO_CREATED  # it was never drawn
        later.close()


async def test_an_empty_tuple_is_named_by_its_place(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        with pytest.raises(InvalidCommand, match="item 1 is an empty tuple"):
            await manager.submit_many("a", iter([noop, ()]))


async def test_a_collection_is_still_checked_whole(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        for items in ([noop, 5], (noop, 5), dict.fromkeys([noop, 5])):
            with pytest.raises(InvalidCommand):
                await manager.submit_many("a", items)
        assert manager.stats().submitted == 0


@pytest.mark.parametrize("options", [{"id": "x"}, {"key": "x"}, {"timeout": -1}, {"zzz": 1}])
async def test_a_bad_option_is_told_before_anything_is_drawn(clock: VirtualClock, options: dict[str, Any]) -> None:
    async with running(clock) as manager:
        items = Drawn(noop, 3)
        with pytest.raises(ConfigError):
            manager.submit_stream("a", items, **options)
        with pytest.raises(ConfigError):
            await manager.submit_many("a", iter(items), **options)
        assert items.drawn == 0


@SOURCES
async def test_an_unknown_lane_is_told_before_anything_is_drawn(clock: VirtualClock, source: type[Drawn]) -> None:
    async with running(clock) as manager:
        items = source(noop, 3)
        with pytest.raises(UnknownLane):
            await manager.submit_many("x", items)
        assert items.drawn == 0


async def test_what_is_no_iterable_is_a_type_error(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        with pytest.raises(TypeError):
            await manager.submit_many("a", 5)  # type: ignore[arg-type]


@SOURCES
async def test_a_lane_that_rejects_ends_it_when_it_is_full(clock: VirtualClock, source: type[Drawn]) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=2, overflow="reject")) as manager:
        items = source(gate, 9)
        with pytest.raises(LaneFullError):
            await clock.run(manager.submit_many("a", items))
        assert (items.drawn, manager.stats().submitted) == (4, 3)
        await clock.advance(0)
        gate.open(0)


async def test_a_lane_that_drops_the_oldest_takes_all(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=2, overflow="drop_oldest")) as manager:
        handles = await manager.submit_many("a", iter(Drawn(gate, 6)))
        assert [handle.state for handle in handles].count(State.FAILED) == 3
        assert gate.started == []
        await clock.advance(0)
        gate.open(0)


@SOURCES
@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_a_shutdown_ends_a_stream_that_waits_for_room(clock: VirtualClock, source: type[Drawn], end: str) -> None:
    async def lasting(_: int) -> None:
        await sleep(clock, 10)

    async with running(clock, ROOM_FOR_TWO) as manager:
        items = source(lasting, 9)
        task = asyncio.ensure_future(manager.submit_many("a", items))
        await clock.advance(1)
        await clock.run(getattr(manager, end)())
        await asyncio.wait([task])
        assert isinstance(task.exception(), ShutdownInProgress)
        assert items.drawn == 3


@SOURCES
@pytest.mark.parametrize("cancel", [False, True])
async def test_the_removal_of_its_lane_ends_a_stream(clock: VirtualClock, source: type[Drawn], cancel: bool) -> None:
    async with running(clock, {"a": ROOM_FOR_TWO, "b": ROOM_FOR_TWO}) as manager:

        async def work(_: int) -> None:
            await sleep(clock, 10)

        items = source(work, 9)
        task = asyncio.ensure_future(manager.submit_many("b", items))
        await clock.advance(1)
        await clock.run(manager.remove_lane("b", cancel=cancel))
        assert isinstance(await outcome(task), LaneRemoved)
        assert items.drawn == 3
        assert sum(manager.stats().removed.ended.values()) == 3


@SOURCES
async def test_a_stream_that_is_cancelled_passes_its_place_on(clock: VirtualClock, source: type[Drawn]) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        task = asyncio.ensure_future(manager.submit_many("a", source(gate, 9)))
        await clock.advance(1)
        other = asyncio.ensure_future(manager.submit("a", gate, "other"))
        await clock.advance(0)
        gate.open(0)
        task.cancel()
        for name in (1, "other"):
            await clock.advance(0)
            gate.open(name)
        assert await clock.run(await other) is None
        assert task.cancelled()


async def test_a_long_iterator_lets_the_loop_go_on(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        manager.pause("a")
        await manager.submit_many("a", iter(Drawn(noop, 10_000)))
        counting.cancel()
        assert turns >= 10_000 // 150
        manager.resume("a")
        await clock.run(manager.drain())


async def test_an_iterator_that_submits_itself_is_no_trouble(clock: VirtualClock) -> None:
    async with running(clock) as manager:

        def items() -> Iterator[Any]:
            for number in range(3):
                manager.submit_nowait("a", noop)
                yield noop, number

        handles = await manager.submit_many("a", items())
        assert [await clock.run(handle) for handle in handles] == [0, 1, 2]
        assert manager.stats().submitted == 6


# --- durable lanes ----------------------------------------------------------------------------------------------


@command("test.stream.noop")
async def named(number: int) -> int:
    return number


@SOURCES
async def test_durable_commands_of_an_iterator_are_saved_together_and_in_order(
    clock: VirtualClock, source: type[Drawn]
) -> None:
    async with running(clock, LaneConfig(0, 4, max_pending=50), storage=MemoryStorage()) as manager:
        items = source(named, 300)
        handles = await clock.run(manager.submit_many("a", items))
        assert [await clock.run(handle) for handle in handles] == list(range(300))
        assert [handle.seq for handle in handles] == sorted(handle.seq for handle in handles)


async def test_a_stream_of_durable_commands_from_an_async_iterator_waits_for_each_commit(clock: VirtualClock) -> None:
    async with running(clock, storage=MemoryStorage()) as manager:
        results: list[int] = []

        async def feedback() -> AsyncIterator[Any]:
            for number in range(5):  # the next item needs the result of the one before
                assert len(results) == number
                yield named, number

        async for handle in manager.submit_stream("a", feedback()):
            results.append(await clock.run(handle))
        assert results == list(range(5))


async def test_a_durable_command_that_cannot_be_written_ends_it(clock: VirtualClock) -> None:
    async with running(clock, storage=MemoryStorage()) as manager:
        handles: list[Any] = []
        with pytest.raises(InvalidCommand):
            await collect(manager.submit_stream("a", iter([(named, 1), (named, 2), noop, (named, 3)])), handles)
        assert [await clock.run(handle) for handle in handles] == [1, 2]


async def test_a_lane_of_a_queue_with_a_storage_is_durable_unless_it_says_otherwise(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    async with running(clock, storage=storage) as manager:
        manager.add_lane("kept", LaneConfig(0, 1))
        manager.add_lane("not", LaneConfig(0, 1, durable=False))
        for name in ("kept", "not"):
            manager.pause(name)
        await manager.submit("kept", named, 1)
        await manager.submit("not", named, 2)
        assert manager.storage is not None
        assert manager.storage.commands == 1


async def test_commands_stored_for_a_lane_come_back_when_it_is_added(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    ran: list[int] = []

    @command("test.stream.note")
    async def note(number: int) -> None:
        ran.append(number)

    async with running(clock, storage=storage) as manager:
        manager.add_lane("talk", LaneConfig(0, 1))
        manager.pause("talk")
        await clock.run(manager.submit_many("talk", iter([(note, number) for number in range(3)])))
    async with running(clock, storage=storage) as manager:
        await clock.advance(1)
        assert manager.storage is not None
        assert manager.storage.kept["unknown_lane"] == 3
        manager.add_lane("talk", LaneConfig(0, 1))
        assert manager.storage.kept["unknown_lane"] == 0
        await clock.run(manager.remove_lane("talk"))  # they run first
        assert ran == [0, 1, 2]
        await clock.run(manager.drain())
        assert manager.storage.commands == 0


async def test_a_cancelling_removal_of_a_durable_lane_leaves_nothing_stored(clock: VirtualClock) -> None:
    gate = Gate()

    @command("test.stream.gated")
    async def gated(number: int) -> None:
        await gate(number)

    async with running(clock, {"a": LaneConfig(0, 1), "talk": LaneConfig(0, 1)}, storage=MemoryStorage()) as manager:
        handles = await clock.run(manager.submit_many("talk", iter([(gated, number) for number in range(3)])))
        coming = asyncio.ensure_future(manager.submit("talk", gated, 3))
        await asyncio.sleep(0)  # it is being saved
        await clock.run(manager.remove_lane("talk", cancel=True))
        assert {handle.state for handle in [*handles, await coming]} == {State.CANCELLED}
        await clock.run(manager.drain())
        assert manager.storage is not None
        assert manager.storage.commands == 0
        assert manager.stats().removed.ended["cancelled"] == 4


async def test_a_durable_lane_is_not_removed_while_the_storage_is_read(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    lanes = {"a": LaneConfig(0, 1), "talk": LaneConfig(0, 1)}
    async with running(clock, lanes, storage=storage) as manager:
        manager.pause("talk")
        await clock.run(manager.submit_many("talk", iter([(named, number) for number in range(3)])))
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    task = asyncio.ensure_future(manager.remove_lane("talk"))
    await clock.run(task)
    assert manager.stats().removed.ended["succeeded"] == 3
    await clock.run(manager.close())
