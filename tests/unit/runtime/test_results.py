"""What awaiting a command gives: its value, its own exception, or why it has neither."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from typing import Any

import pytest

from lane_obs import (
    CommandCancelled,
    CommandDropped,
    CommandError,
    CommandExpired,
    CommandTimeout,
    LaneConfig,
    NotEnded,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Gate, fail, noop, outcome, running


async def test_a_value_is_given_to_everyone_who_asks_again_and_again(clock: VirtualClock) -> None:
    value = object()
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, value)
        assert await clock.run(handle) is value
        assert await handle is value
        assert handle.result() is value
        assert handle.exception() is None
        assert (handle.state, handle.done(), handle.attempt) == (State.SUCCEEDED, True, 1)


@pytest.mark.parametrize("value", [None, 0, "", False, ValueError("a value, not an error")], ids=repr)
async def test_any_value_is_a_value(clock: VirtualClock, value: Any) -> None:
    async with running(clock) as manager:
        assert await clock.run(await manager.submit("a", noop, value)) is value


async def test_an_exception_is_the_very_object_that_was_raised(clock: VirtualClock) -> None:
    error = LookupError("own")
    error.__cause__ = cause = KeyError("cause")
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, error)
        found = await clock.run(outcome(handle))
        assert found is error
        assert found.__cause__ is cause
        assert handle.exception() is error
        assert handle.state is State.FAILED


async def test_the_traceback_leads_to_the_place_that_raised(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, LookupError("own"))
        error = await clock.run(outcome(handle))
        assert error is not None
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "fail"


async def test_the_traceback_does_not_grow_with_every_await(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, LookupError("own"))
        await clock.run(outcome(handle))
        lengths = set()
        for _ in range(50):
            error = await outcome(handle)
            assert error is not None
            lengths.add(len(traceback.extract_tb(error.__traceback__)))
            with pytest.raises(LookupError):
                handle.result()
        assert len(lengths) == 1


async def test_an_unfinished_command_has_no_result_yet(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", sleep, clock, 5)
        for ask in (handle.result, handle.exception):
            with pytest.raises(NotEnded, match=f"{handle.id} has not ended: it is ready"):
                ask()
        assert not handle.done()


async def ended_with(clock: VirtualClock, end: str) -> Any:
    lane = LaneConfig(0, 1, max_pending=1, overflow="drop_oldest")
    async with running(clock, lane) as manager:
        blocker = await manager.submit("a", sleep, clock, 10)
        await clock.advance(0)
        options = {"expired": {"deadline": 5}}.get(end, {})
        handle = await manager.submit("a", noop, **options)  # waits behind the blocker
        if end == "cancelled":
            handle.cancel()
        elif end == "dropped":
            await manager.submit("a", noop)
        elif end == "timeout":
            await clock.run(blocker)
            handle = await manager.submit("a", sleep, clock, 10, timeout=2)
        error = await clock.run(outcome(handle))
        assert await outcome(handle) is error
        return handle, error


@pytest.mark.parametrize(
    ("end", "error", "state", "text"),
    [
        ("timeout", CommandTimeout, State.TIMED_OUT, "ran longer than its timeout"),
        ("cancelled", CommandCancelled, State.CANCELLED, "was cancelled"),
        ("expired", CommandExpired, State.EXPIRED, "deadline"),
        ("dropped", CommandDropped, State.FAILED, "dropped to make room"),
    ],
)
async def test_each_end_without_a_value_has_an_error_of_its_own(
    clock: VirtualClock, end: str, error: type[CommandError], state: State, text: str
) -> None:
    handle, found = await ended_with(clock, end)
    assert type(found) is error
    assert (found.command_id, found.lane) == (handle.id, "a")
    assert text in str(found)
    assert handle.id in str(found)
    assert handle.state is state


async def test_time_outs_and_expiries_are_timeout_errors_for_those_who_catch_them() -> None:
    assert issubclass(CommandTimeout, TimeoutError)
    assert issubclass(CommandExpired, TimeoutError)
    assert not issubclass(CommandCancelled, asyncio.CancelledError)


async def test_many_waiters_get_the_same_result(clock: VirtualClock) -> None:
    gate, error = Gate(), ValueError("x")
    async with running(clock, LaneConfig(0, 2)) as manager:
        good, bad = await manager.submit_many("a", [(gate, "good"), (gate, "bad")])
        waiters = [asyncio.ensure_future(outcome(bad)) for _ in range(200)]
        readers = [asyncio.ensure_future(asyncio.wait_for(good, None)) for _ in range(200)]
        await clock.advance(0)
        gate.open("good", 42)
        gate.break_("bad", error)
        assert await clock.run(asyncio.gather(*readers)) == [42] * 200
        assert all(found is error for found in await clock.run(asyncio.gather(*waiters)))


async def test_a_cancelled_waiter_does_not_cancel_the_command(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock) as manager:
        handle = await manager.submit("a", gate)
        waiters = [asyncio.ensure_future(outcome(handle)) for _ in range(10)]
        await clock.advance(0)
        for waiter in waiters[:9]:
            waiter.cancel()
        await clock.advance(0)
        assert handle.state is State.RUNNING
        gate.open()
        await clock.run(waiters[9])
        assert handle.state is State.SUCCEEDED
        await asyncio.wait(waiters)


async def test_a_waiter_that_times_out_does_not_cancel_the_command(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", sleep, clock, 5)
        waiter = asyncio.ensure_future(outcome(handle))
        await clock.advance(1)
        waiter.cancel()
        await clock.run(manager.drain())
        assert handle.state is State.SUCCEEDED


async def test_a_result_that_nobody_awaits_makes_no_noise(clock: VirtualClock) -> None:
    async with running(clock) as manager:  # the frame of these tests fails on anything never retrieved
        await manager.submit("a", fail, ValueError("ignored"))
        await manager.submit("a", fail, SystemExit(3))
        await manager.submit("a", sleep, clock, 9, timeout=1)
        (await manager.submit("a", noop)).cancel()
        await clock.run(manager.drain())
        gc.collect()
        ended = manager.stats().lanes["a"].ended
        assert (ended["failed"], ended["timed_out"], ended["cancelled"]) == (2, 1, 1)


async def test_a_result_lives_as_long_as_someone_holds_its_handle(clock: VirtualClock) -> None:
    class Value:
        pass

    async with running(clock) as manager:
        handle = await manager.submit("a", noop, Value())
        value = weakref.ref(await clock.run(handle))
        assert value() is handle.result()
        del handle
        gc.collect()
        assert value() is None


async def test_awaiting_inside_a_group_works_like_any_awaitable(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 3)) as manager:
        handles = [await manager.submit("a", noop, number) for number in range(10)]

        async def all_of_them() -> list[Any]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.wait_for(handle, None)) for handle in handles]
            return [task.result() for task in tasks]

        assert await clock.run(all_of_them()) == list(range(10))
