"""Bad input when a queue is built, changed or steered gives a clear, typed error and changes nothing."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CommandQueue,
    ConfigError,
    DeadLetterQueue,
    EventEmitter,
    LaneConfig,
    MemorySink,
    NotStarted,
    QueueManager,
    QueueManagerBuilder,
    UnknownCommand,
    UnknownLane,
    VirtualClock,
    WrongLoop,
)
from tests.unit.runtime.support import Gate, noop, running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BAD_QUEUES: list[tuple[dict[str, Any], str, str]] = [
    ({"lanes": {}}, "lanes", "one lane"),
    ({"lanes": [("a", LaneConfig())]}, "lanes", "LaneConfig by name"),
    ({"lanes": {"a": 3}}, "lanes.a", "give a LaneConfig"),
    ({"lanes": {"a": LaneConfig}}, "lanes.a", "give a LaneConfig"),
    ({"lanes": {"": LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"lanes": {" ": LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"lanes": {"a\tb": LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"lanes": {"\u200b": LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"lanes": {"x" * 201: LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"lanes": {7: LaneConfig()}}, "lane name", "1 to 200 printable characters"),
    ({"max_concurrency": 0}, "max_concurrency", "whole number of 1 or more"),
    ({"max_concurrency": -1}, "max_concurrency", "whole number of 1 or more"),
    ({"max_concurrency": True}, "max_concurrency", "whole number of 1 or more"),
    ({"max_concurrency": 8.0}, "max_concurrency", "whole number of 1 or more"),
    ({"max_concurrency": math.inf}, "max_concurrency", "whole number of 1 or more"),
    ({"max_concurrency": 5}, "max_concurrency", "the lanes reserve 6 slots"),
    ({"dead_letters": 0}, "max_size", "whole number of 1 or more"),
    ({"dead_letters": True}, "max_size", "whole number of 1 or more"),
    ({"dead_letters": 10.0}, "max_size", "whole number of 1 or more"),
    ({"stuck_after": 0}, "stuck_after", "seconds above zero"),
    ({"stuck_after": -1}, "stuck_after", "seconds above zero"),
    ({"drain_timeout": -1}, "drain_timeout", "seconds of zero or more"),
    ({"drain_timeout": True}, "drain_timeout", "seconds of zero or more"),
    ({"close_timeout": math.inf}, "close_timeout", "seconds of zero or more"),
    ({"clock": "x"}, "clock", "give a Clock"),
    ({"clock": 5}, "clock", "give a Clock"),
    ({"clock": VirtualClock}, "clock", "give a Clock"),
    ({"seed": "x"}, "seed", "a whole number, or None"),
    ({"seed": 1.5}, "seed", "a whole number, or None"),
    ({"seed": True}, "seed", "a whole number, or None"),
    ({"sinks": None}, "sinks", "a list of sinks"),
    ({"sinks": MemorySink()}, "sinks", "a list of sinks"),
    ({"sinks": [None]}, "sinks", "handle(events)"),
    ({"sinks": "x"}, "sinks", "handle(events)"),
]


@pytest.mark.parametrize(("options", "field", "allowed"), BAD_QUEUES, ids=lambda value: repr(value)[:40])
def test_a_bad_value_for_a_queue_is_named_with_what_is_allowed(
    options: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        QueueManager(**options)
    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert repr(caught.value.value) in str(caught.value)


def test_names_of_one_to_two_hundred_printable_characters_are_fine() -> None:
    names = ["a", "x" * 200, "über 7 {a}", "läne/1"]
    assert list(QueueManager(dict.fromkeys(names, LaneConfig())).lanes) == names


def test_a_builder_refuses_the_same_lane_twice() -> None:
    builder = QueueManagerBuilder().with_lane("query", LaneConfig(0, 1))
    with pytest.raises(ConfigError, match=r"^lane name: 'query' is not allowed; each lane needs a name of its own"):
        builder.with_lane("query", LaneConfig(0, 2))
    with pytest.raises(ConfigError, match=r"^lane name: 'query'"):
        builder.with_default_lanes()
    assert builder.build().lanes["query"] == LaneConfig(0, 1)


def test_a_builder_makes_what_the_constructor_makes() -> None:
    emitter, sink = EventEmitter(), MemorySink()
    builder = QueueManagerBuilder(emitter).with_lane("a", LaneConfig(1, 5), 3).with_lane("b", LaneConfig(0, 2))
    manager = builder.with_sink(sink).with_dlq(7).with_max_concurrency(4).build()
    assert manager.lanes == {"a": LaneConfig(1, 5, priority=3), "b": LaneConfig(0, 2)}
    assert manager.stats().max_concurrency == 4
    assert manager.dead_letters.max_size == 7
    assert [stats.name for stats in manager.stats().sinks] == ["EventEmitter", "MemorySink"]


@pytest.mark.parametrize(
    ("add", "field"),
    [
        (lambda builder: builder.with_lane("a", 5, 1), "lanes.a"),
        (lambda builder: builder.with_lane("a", 5), "lanes.a"),
        (lambda builder: builder.with_lane("a", None, 1), "lanes.a"),
        (lambda builder: builder.with_lane("a", LaneConfig, 1), "lanes.a"),
        (lambda builder: builder.with_lane("a", LaneConfig(), "high"), "priority"),
        (lambda builder: builder.with_lane("", LaneConfig()), "lane name"),
        (lambda builder: builder.with_dlq(0), "size"),
        (lambda builder: builder.with_dlq("5"), "size"),
        (lambda builder: builder.with_max_concurrency(True), "max_concurrency"),
        (lambda builder: builder.with_max_concurrency("8"), "max_concurrency"),
    ],
)
def test_a_builder_refuses_a_bad_part_by_name_and_goes_on_without_it(
    add: Callable[[QueueManagerBuilder], Any], field: str
) -> None:
    builder = QueueManagerBuilder()
    with pytest.raises(ConfigError) as caught:
        add(builder)
    assert caught.value.field == field
    assert builder.with_lane("a", LaneConfig(1, 2)).build().lanes == {"a": LaneConfig(1, 2)}


def test_a_builder_builds_as_many_managers_as_it_is_asked_for() -> None:
    builder = QueueManagerBuilder().with_lane("a", LaneConfig(1, 5)).with_dlq(7).with_max_concurrency(4)
    first, second = builder.build(), builder.build()
    assert first.dead_letters is not second.dead_letters
    assert (first.dead_letters.max_size, second.dead_letters.max_size) == (7, 7)
    assert first.lanes == second.lanes
    third = builder.with_lane("b", LaneConfig(1, 2)).with_sink(MemorySink()).build()
    assert (list(first.lanes), list(third.lanes)) == (["a"], ["a", "b"])
    assert (len(first.stats().sinks), len(third.stats().sinks)) == (0, 1)


def test_a_builder_without_lanes_makes_the_default_ones() -> None:
    assert list(QueueManagerBuilder().build().lanes) == ["system", "control", "query", "session", "skill", "prompt"]
    assert QueueManagerBuilder().with_default_lanes().build().lanes == QueueManager().lanes


def test_a_dead_letter_queue_belongs_to_one_queue() -> None:
    letters = DeadLetterQueue(5)
    assert CommandQueue.with_dlq(MemorySink(), letters).dead_letters is letters
    with pytest.raises(ConfigError, match="a DeadLetterQueue of its own"):
        QueueManager(dead_letters=letters)


LANES = {"a": LaneConfig(1, 2), "b": LaneConfig(1, 2)}

BAD_CHANGES: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((), {"max_concurrency": 0}, "max_concurrency: 0"),
    ((), {"max_concurrency": True}, "max_concurrency: True"),
    ((), {"min_concurrency": 3}, "min_concurrency: 3"),
    ((), {"timeout": -1}, "timeout: -1"),
    ((), {"overflow": "x"}, "overflow: 'x'"),
    ((), {"max_pending": 0}, "max_pending: 0"),
    ((), {"overflow": "reject"}, "overflow: 'reject' is not allowed; give max_pending too"),
    ((), {"overflow": "drop_oldest", "max_pending": None}, "overflow: 'drop_oldest'"),
    ((), {"max_concurency": 3}, "did you mean 'max_concurrency'"),
    ((), {"zzz": 3}, "zzz"),
    (({"max_concurrency": 3},), {}, "LaneConfig"),
    ((LaneConfig,), {}, "LaneConfig"),
    ((5,), {"priority": 1}, "LaneConfig"),
    ((LaneConfig(3, 3),), {}, "max_concurrency: 3 is not allowed; give at least 4: the lanes reserve 4 slots"),
    ((), {"min_concurrency": 0, "max_concurrency": 1, "priority": 1.5}, "priority: 1.5"),
]


@pytest.mark.parametrize(("args", "changes", "text"), BAD_CHANGES, ids=lambda value: repr(value)[:40])
async def test_a_bad_change_of_a_lane_changes_nothing(
    clock: VirtualClock, args: tuple[Any, ...], changes: dict[str, Any], text: str
) -> None:
    sink = MemorySink()
    async with running(clock, LANES, max_concurrency=3, sinks=[sink]) as manager:
        lanes, stats = manager.lanes, manager.stats()
        with pytest.raises(ConfigError) as caught:
            manager.set_lane("a", *args, **changes)
        assert text in str(caught.value)
        assert manager.lanes == lanes
        assert manager.stats().lanes == stats.lanes
        await clock.advance(0)
        assert sink.of("queue.lane.changed") == []


@pytest.mark.parametrize("call", ["pause", "resume", "set_lane"])
async def test_steering_an_unknown_lane_names_the_known_ones(clock: VirtualClock, call: str) -> None:
    async with running(clock, LANES) as manager:
        with pytest.raises(UnknownLane, match="unknown lane 'c'; known lanes: 'a', 'b'"):
            getattr(manager, call)("c")
        assert not any(lane.paused for lane in manager.stats().lanes.values())


async def test_questions_about_an_unknown_id_have_clear_answers(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        assert manager.get("none") is None
        assert manager.cancel("none") is False
        with pytest.raises(UnknownCommand, match="no live command has the id 'none'"):
            manager.explain("none")
        with pytest.raises(UnknownCommand, match="no dead letter 'none'"):
            manager.dead_letters.requeue("none")


@pytest.mark.parametrize("call", ["get", "cancel", "explain"])
@pytest.mark.parametrize("command_id", [None, 7, b"job", ["job"]], ids=repr)
async def test_a_question_about_something_that_is_no_id_is_refused(
    clock: VirtualClock, call: str, command_id: Any
) -> None:
    async with running(clock) as manager:
        with pytest.raises(ConfigError, match=r"^command_id: .* give the id of a command as text"):
            getattr(manager, call)(command_id)


async def test_cancelling_an_unknown_id_does_not_harm_a_later_command_of_that_id(clock: VirtualClock) -> None:
    async with running(clock) as manager:  # arq#485
        assert manager.cancel("job") is False
        assert await clock.run(await manager.submit("a", noop, 1, id="job")) == 1


async def test_drain_before_start_is_refused(clock: VirtualClock) -> None:
    manager = QueueManager(LANES, clock=clock)
    await manager.submit("a", noop)
    before = manager.stats()
    with pytest.raises(NotStarted, match=r"start\(\)"):
        await manager.drain(5)
    assert manager.stats() == before
    await clock.run(manager.close())


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, True, "5"], ids=repr)
async def test_a_bad_limit_on_a_drain_is_named(clock: VirtualClock, timeout: Any) -> None:
    async with running(clock) as manager:
        with pytest.raises(ConfigError, match=r"^timeout: "):
            await manager.drain(timeout)
        assert not manager.is_shutting_down()


def elsewhere(use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `use` on a loop of its own."""
    return asyncio.run(use())


USES: dict[str, Callable[[QueueManager, Any], Any]] = {
    "submit": lambda manager, _: manager.submit("a", noop),
    "submit_nowait": lambda manager, _: manager.submit_nowait("a", noop),
    "submit_many": lambda manager, _: manager.submit_many("a", [noop]),
    "pause": lambda manager, _: manager.pause("a"),
    "set_lane": lambda manager, _: manager.set_lane("a", max_concurrency=2),
    "start": lambda manager, _: manager.start(),
    "shutdown": lambda manager, _: manager.shutdown(),
    "drain": lambda manager, _: manager.drain(),
    "close": lambda manager, _: manager.close(),
    "cancel": lambda manager, handle: manager.cancel(handle.id),
    "handle.cancel": lambda _, handle: handle.cancel(),
    "await handle": lambda _, handle: handle,
}


@pytest.mark.parametrize("use", USES)
async def test_another_loop_is_refused_and_nothing_changes(clock: VirtualClock, use: str) -> None:
    gate = Gate()
    async with running(clock) as manager:
        handle = await manager.submit("a", gate)
        await clock.advance(0)
        before = manager.stats()

        async def from_another_loop() -> None:
            made = USES[use](manager, handle)
            if hasattr(made, "__await__"):
                await made

        with pytest.raises(WrongLoop, match="another event loop"):
            await asyncio.to_thread(elsewhere, from_another_loop)
        assert manager.stats() == before
        assert not manager.is_shutting_down()


@pytest.mark.parametrize("use", ["submit_nowait", "pause", "set_lane", "cancel", "handle.cancel"])
async def test_another_thread_is_refused_and_nothing_changes(clock: VirtualClock, use: str) -> None:
    gate = Gate()
    async with running(clock) as manager:
        handle = await manager.submit("a", gate)
        await clock.advance(0)
        before = manager.stats()
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(USES[use], manager, handle)
        assert manager.stats() == before


async def test_an_ended_handle_cannot_be_awaited_in_another_loop_either(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, 1)
        await clock.run(handle)

        async def wait() -> Any:
            return await handle

        with pytest.raises(WrongLoop):
            await asyncio.to_thread(elsewhere, wait)
        assert handle.result() == 1


def test_a_submit_without_any_loop_says_what_to_use() -> None:
    manager = QueueManager(LANES)
    with pytest.raises(WrongLoop, match="submit_threadsafe"):
        manager.submit_nowait("a", noop)
    assert manager.stats().submitted == 0
