"""Bad input at submit gives a clear, typed error and changes nothing."""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    Command,
    ConfigError,
    DuplicateId,
    InvalidCommand,
    LaneConfig,
    LaneObsError,
    MemorySink,
    NotStarted,
    QueueManager,
    RetryPolicy,
    ShutdownInProgress,
    UnknownCommand,
    UnknownLane,
    VirtualClock,
    WrongLoop,
)
from tests.unit.runtime.support import noop, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LANES = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1.0))}


class Job(Command[int]):
    async def execute(self) -> int:
        return 1


async def by_submit(manager: QueueManager, lane: Any, work: Any, *args: Any, **options: Any) -> Any:
    return await manager.submit(lane, work, *args, **options)


async def by_submit_nowait(manager: QueueManager, lane: Any, work: Any, *args: Any, **options: Any) -> Any:
    return manager.submit_nowait(lane, work, *args, **options)


async def by_submit_many(manager: QueueManager, lane: Any, work: Any, *args: Any, **options: Any) -> Any:
    return await manager.submit_many(lane, [noop, (work, *args), noop], **options)


WAYS = pytest.mark.parametrize("way", [by_submit, by_submit_nowait, by_submit_many])


async def refused(
    clock: VirtualClock, use: Callable[[QueueManager], Awaitable[Any]], error: type[LaneObsError], *texts: str
) -> None:
    """Checks that `use` raises what it should and leaves a busy queue exactly as it was."""
    sink = MemorySink()
    async with running(clock, LANES, sinks=[sink]) as manager:
        for _ in range(3):
            await manager.submit("a", noop, delay=100)
        await manager.submit("a", noop, id="taken", key="known", delay=100)
        await clock.advance(0)
        stats, submitted = manager.stats(), sink.keys().count("queue.command.submitted")
        with pytest.raises(error) as caught:
            await use(manager)
        assert caught.type is error
        for text in texts:
            assert text in str(caught.value)
        after = manager.stats()
        assert (after.lanes, after.submitted) == (stats.lanes, stats.submitted)
        await clock.advance(0)
        assert sink.keys().count("queue.command.submitted") == submitted
        assert clock.pending == 1


@WAYS
@pytest.mark.parametrize("lane", ["c", "", "A", None, 5, ["a"]], ids=repr)
async def test_an_unknown_lane_names_the_known_ones(clock: VirtualClock, way: Any, lane: Any) -> None:
    await refused(clock, lambda manager: way(manager, lane, noop), UnknownLane, f"{lane!r}", "known lanes: 'a', 'b'")


@WAYS
@pytest.mark.parametrize("work", [5, None, object(), b"noop", {"a": 1}], ids=lambda work: type(work).__name__)
async def test_something_that_cannot_be_called_is_no_command(clock: VirtualClock, way: Any, work: Any) -> None:
    await refused(
        clock, lambda manager: way(manager, "a", work), InvalidCommand, repr(work), "give a Command, a function"
    )


@WAYS
async def test_a_name_nothing_is_registered_under_is_refused(clock: VirtualClock, way: Any) -> None:
    await refused(clock, lambda manager: way(manager, "a", "no.such.name"), UnknownCommand, "'no.such.name'")


@WAYS
async def test_a_command_object_takes_no_arguments(clock: VirtualClock, way: Any) -> None:
    await refused(clock, lambda manager: way(manager, "a", Job(), 1, 2), InvalidCommand, "2 more were given")


@WAYS
async def test_a_coroutine_object_that_was_awaited_already_is_refused(clock: VirtualClock, way: Any) -> None:
    used = noop()
    await used
    await refused(clock, lambda manager: way(manager, "a", used), InvalidCommand, "noop", "was awaited already")


@WAYS
async def test_a_coroutine_object_takes_no_arguments(clock: VirtualClock, way: Any) -> None:
    fresh = noop()
    await refused(clock, lambda manager: way(manager, "a", fresh, 1), InvalidCommand, "takes no arguments")
    fresh.close()


@WAYS
async def test_a_coroutine_object_that_a_policy_might_retry_is_refused(clock: VirtualClock, way: Any) -> None:
    fresh = noop()
    await refused(clock, lambda manager: way(manager, "b", fresh), InvalidCommand, "can run only once")
    fresh.close()


BAD_OPTIONS: list[tuple[str, Any, str]] = [
    *[
        (name, value, "seconds above zero")
        for name in ("timeout", "deadline")
        for value in (0, -1, math.inf, True, "3", [1], 10**400)
    ],
    *[("delay", value, "seconds of zero or more") for value in (-0.001, math.inf, True, "3", 10**400)],
    *[("retry", value, "give a RetryPolicy") for value in (3, "exponential", RetryPolicy)],
    *[
        (name, value, "1 to 200 printable characters")
        for name in ("id", "key")
        for value in ("", "  ", "a\nb", "\x1b[0m", "x" * 201, 5, b"x")
    ],
]


def short(value: object) -> str:
    return repr(value)[:30]


@pytest.mark.parametrize("way", [by_submit, by_submit_nowait])
@pytest.mark.parametrize(("option", "value", "allowed"), BAD_OPTIONS, ids=short)
async def test_a_bad_option_is_named_with_what_is_allowed(
    clock: VirtualClock, way: Any, option: str, value: Any, allowed: str
) -> None:
    text = f"{option}: {value!r} is not allowed"
    await refused(clock, lambda manager: way(manager, "a", noop, **{option: value}), ConfigError, text, allowed)


@pytest.mark.parametrize("option", ["timeout", "deadline", "delay"])
async def test_nan_is_no_duration(clock: VirtualClock, option: str) -> None:
    text = f"{option}: nan is not allowed"
    await refused(clock, lambda manager: manager.submit("a", noop, **{option: math.nan}), ConfigError, text)


@WAYS
@pytest.mark.parametrize(
    ("option", "hint"),
    [("timeot", "'timeout'"), ("dealine", "'deadline'"), ("retries", "'retry'"), ("Delay", "'delay'"), ("zzz", "key")],
)
async def test_an_unknown_option_names_its_nearest_match(clock: VirtualClock, way: Any, option: str, hint: str) -> None:
    await refused(clock, lambda manager: way(manager, "a", noop, **{option: 1}), ConfigError, option, hint)


@pytest.mark.parametrize("way", [by_submit, by_submit_nowait])
async def test_a_live_id_cannot_be_used_again(clock: VirtualClock, way: Any) -> None:
    await refused(clock, lambda manager: way(manager, "b", noop, id="taken"), DuplicateId, "a live command", "'taken'")


@pytest.mark.parametrize("options", [{"id": "x"}, {"key": "x"}])
async def test_many_commands_cannot_share_an_id_or_key(clock: VirtualClock, options: dict[str, Any]) -> None:
    await refused(clock, lambda manager: manager.submit_many("a", [noop], **options), ConfigError, "'x'")


async def test_an_empty_tuple_among_many_commands_is_refused(clock: VirtualClock) -> None:
    await refused(clock, lambda manager: manager.submit_many("a", [noop, ()]), InvalidCommand, "item 1 is an empty")


async def test_no_commands_at_all_still_need_a_lane_that_there_is(clock: VirtualClock) -> None:
    await refused(clock, lambda manager: manager.submit_many("c", []), UnknownLane, "'c'", "known lanes: 'a', 'b'")


async def test_work_that_is_missing_arguments_of_its_class_is_refused_by_python(clock: VirtualClock) -> None:
    class Needy(Command[int]):
        def __init__(self, url: str) -> None:
            self.url = url

        async def execute(self) -> int:
            return 1

    async with running(clock) as manager:
        before = manager.stats()
        with pytest.raises(TypeError, match="url"):
            await manager.submit("a", Needy)
        assert manager.stats() == before


@WAYS
@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_a_submit_after_the_shutdown_is_refused(clock: VirtualClock, way: Any, end: str) -> None:
    async with running(clock, LANES) as manager:
        await clock.run(getattr(manager, end)())
        before = manager.stats()
        with pytest.raises(ShutdownInProgress, match="takes no new work"):
            await way(manager, "a", noop)
        assert manager.stats() == before


@WAYS
@pytest.mark.parametrize("lane", ["c", "a"])
async def test_a_refused_coroutine_object_gives_no_warning_of_python(clock: VirtualClock, way: Any, lane: str) -> None:
    async with running(clock, LANES) as manager:
        if lane == "a":
            await manager.shutdown()
        with pytest.raises((UnknownLane, ShutdownInProgress)):
            await way(manager, lane, noop())
        assert manager.stats().submitted == 0


REFUSALS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("a", (), {"timeout": -1}),
    ("a", (), {"timeot": 1}),
    ("a", (), {"id": "x" * 201}),
    ("a", (), {"id": "taken"}),
    ("a", (1,), {}),
    ("b", (), {}),
    ("c", (), {}),
]
"""Lane, arguments and options with which a coroutine object is refused."""


@WAYS
@pytest.mark.parametrize(("lane", "args", "options"), REFUSALS, ids=short)
async def test_a_coroutine_object_refused_for_whatever_reason_is_closed(
    clock: VirtualClock, way: Any, lane: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    async with running(clock, LANES) as manager:
        await manager.submit("a", noop, id="taken", delay=100)
        work = noop()
        with pytest.raises(LaneObsError):
            await way(manager, lane, work, *args, **options)
        assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


@WAYS
@pytest.mark.parametrize(("lane", "args", "options"), [*REFUSALS, ("a", (), {}), ("shut", (), {})], ids=short)
async def test_a_refusal_does_no_harm_to_a_coroutine_object_that_waits_in_the_queue(
    clock: VirtualClock, way: Any, lane: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    async with running(clock, LANES) as manager:
        await manager.submit("a", noop, id="taken", delay=100)
        work = noop(7)
        waiting = await manager.submit("a", work)
        if lane == "shut":
            await manager.shutdown()
        with pytest.raises(LaneObsError):
            await way(manager, lane, work, *args, **options)
        assert await clock.run(waiting) == 7


async def test_all_coroutine_objects_of_a_refused_many_are_closed(clock: VirtualClock) -> None:
    async with running(clock, LANES) as manager:
        for items, options in (([noop(), 5, noop()], {}), ([noop(), (), (noop(), 1)], {}), ([noop()], {"zzz": 1})):
            with pytest.raises(LaneObsError):
                await manager.submit_many("a", items, **options)
            left = [item[0] if isinstance(item, tuple) else item for item in items if item not in (5, ())]
            assert {inspect.getcoroutinestate(work) for work in left} == {inspect.CORO_CLOSED}


async def test_a_coroutine_object_that_is_the_argument_of_a_refused_command_is_the_callers(clock: VirtualClock) -> None:
    async with running(clock, LANES) as manager:
        argument = noop(7)
        with pytest.raises(ConfigError):
            await manager.submit_many("a", [(noop, argument)], timeout=-1)
        assert await argument == 7


def test_a_coroutine_object_refused_where_no_loop_runs_is_closed() -> None:
    manager = QueueManager(LANES)
    for submit, error in ((manager.submit_nowait, WrongLoop), (manager.submit_threadsafe, NotStarted)):
        work = noop()
        with pytest.raises(error):
            submit("a", work)
        assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_a_coroutine_object_whose_submit_waited_for_room_in_vain_is_closed(clock: VirtualClock) -> None:
    for end in ("cancel", "shutdown", "close"):
        async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
            await manager.submit_many("a", [(noop, 1)] * 1)
            await manager.submit("a", noop, delay=1)
            work = noop()
            waiting = asyncio.ensure_future(manager.submit("a", work))
            await clock.advance(0)
            if end == "cancel":
                waiting.cancel()
            else:
                await clock.run(getattr(manager, end)())
            await asyncio.wait([waiting])
            assert waiting.cancelled() or isinstance(waiting.exception(), ShutdownInProgress)
            assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_an_execute_that_is_not_async_fails_the_command_and_frees_its_slot(clock: VirtualClock) -> None:
    class Plain(Command[int]):
        def execute(self) -> int:  # type: ignore[override]
            return 1

    async with running(clock) as manager:
        handle = await manager.submit("a", Plain())
        with pytest.raises(InvalidCommand, match=r"Plain\.execute returned int; make it `async def`"):
            await clock.run(handle)
        assert handle.state == "failed"
        assert await clock.run(await manager.submit("a", noop, 2)) == 2
