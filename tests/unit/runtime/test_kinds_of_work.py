"""What can be submitted: every kind of callable, Command classes and objects, names, coroutine objects."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import Command, InvalidCommand, LaneConfig, QueueManager, RetryPolicy, State, VirtualClock, command
from lane_obs.clock import sleep
from lane_obs.command import registry
from tests.unit.runtime.support import noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


class Service:
    async def fetch(self, url: str) -> str:
        return f"fetched {url}"

    def parse(self, text: str) -> str:
        return f"parsed {text}"

    @classmethod
    async def of_class(cls, text: str) -> str:
        return f"{cls.__name__} {text}"

    @staticmethod
    async def of_none(text: str) -> str:
        return f"static {text}"


class AsyncCallable:
    async def __call__(self, text: str) -> str:
        return f"called {text}"


class SyncCallable:
    def __call__(self, text: str) -> str:
        return f"called {text} in {threading.current_thread().name}"


class Awaited:
    """An awaitable that is no coroutine."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return f"awaited {self.text}"


async def keyword(*, text: str) -> str:
    return f"keyword {text}"


KINDS: list[tuple[str, Any, str]] = [
    ("async function", noop, "x"),
    ("bound async method", Service().fetch, "fetched x"),
    ("async class method", Service.of_class, "Service x"),
    ("async static method", Service.of_none, "static x"),
    ("partial", functools.partial(functools.partial(Service().fetch)), "fetched x"),
    ("async callable object", AsyncCallable(), "called x"),
    ("partial of a callable object", functools.partial(AsyncCallable()), "called x"),
    ("bound sync method", Service().parse, "parsed x"),
    ("builtin", str.upper, "X"),
    ("sync callable object", SyncCallable(), "called x in lane-obs-command"),
    ("lambda", lambda text: f"lambda {text}", "lambda x"),
    ("lambda that gives a coroutine", lambda text: keyword(text=text), "keyword x"),
    ("function that gives an awaitable", Awaited, "awaited x"),
    ("class", str, "x"),
]


@pytest.mark.parametrize(("work", "result"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
async def test_every_kind_of_callable_runs(work: Any, result: str) -> None:
    async with QueueManager({"a": LaneConfig(0, 1)}, drain_timeout=20) as manager:
        assert await (await manager.submit("a", work, "x")) == result


async def test_keyword_arguments_are_bound_by_partial(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", functools.partial(keyword, text="x"))
        assert await clock.run(handle) == "keyword x"
        assert handle.command_type == "keyword"


# --- Command classes and objects -----------------------------------------------------------------------------------


class Add(Command[int]):
    command_type = "add"

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.runs = 0

    async def execute(self) -> int:
        self.runs += 1
        if self.runs < 2 and not self.numbers:
            raise ValueError("nothing to add")
        return sum(self.numbers)


async def test_a_command_object_runs_its_execute(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", Add(1, 2, 3))
        assert await clock.run(handle) == 6
        assert handle.command_type == "add"


async def test_a_command_class_is_made_with_the_arguments(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        assert await clock.run(await manager.submit("a", Add, 4, 5)) == 9


async def test_a_retried_command_object_is_the_same_object(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1))) as manager:
        job = Add()
        assert await clock.run(await manager.submit("a", job)) == 0
        assert job.runs == 2


@pytest.mark.parametrize("result", [5, None, "text", [1], object()], ids=lambda value: type(value).__name__)
async def test_an_execute_that_returns_no_awaitable_says_so(clock: VirtualClock, result: Any) -> None:
    class Plain(Command[Any]):
        def execute(self) -> Any:
            return result

    async with running(clock, LaneConfig(0, 1)) as manager:
        handle = await manager.submit("a", Plain())
        error = await clock.run(outcome(handle))
        assert type(error) is InvalidCommand
        assert f"Plain.execute returned {type(result).__name__}" in str(error)
        assert handle.state is State.FAILED
        assert await clock.run(await manager.submit("a", noop, 1)) == 1


async def test_an_execute_may_return_any_awaitable(clock: VirtualClock) -> None:
    class Late(Command[str]):
        def execute(self) -> Any:
            return Awaited("late")

    async with running(clock) as manager:
        assert await clock.run(await manager.submit("a", Late())) == "awaited late"


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    async def greet(name: str) -> str:
        return f"hello {name}"

    command("test.greet")(greet)

    @command("test.sum")
    class Sum(Add):
        command_type = ""

    yield
    registry.remove("test.greet")
    registry.remove("test.sum")


@pytest.mark.usefixtures("registered")
async def test_registered_functions_and_classes_run_by_name(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        greeting = await manager.submit("a", "test.greet", "world")
        total = await manager.submit("a", "test.sum", 1, 2)
        assert await clock.run(greeting) == "hello world"
        assert await clock.run(total) == 3
        assert (greeting.command_type, total.command_type) == ("test.greet", "test.sum")


# --- coroutine objects ---------------------------------------------------------------------------------------------


async def test_a_coroutine_object_runs_once(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        coroutine = noop("once")
        handle = await manager.submit("a", coroutine)
        assert await clock.run(handle) == "once"
        assert handle.command_type == "noop"
        with pytest.raises(InvalidCommand, match="awaited already"):
            await manager.submit("a", coroutine)


@pytest.mark.parametrize("end", ["cancel", "deadline", "close", "drop"])
async def test_a_coroutine_object_that_never_ran_gives_no_warning_of_python(clock: VirtualClock, end: str) -> None:
    lane = LaneConfig(0, 1, max_pending=1, overflow="drop_oldest")
    async with running(clock, lane) as manager:
        await manager.submit("a", sleep, clock, 100)
        await clock.advance(0)
        handle = await manager.submit("a", noop(), **({"deadline": 5} if end == "deadline" else {}))
        if end == "cancel":
            handle.cancel()
        elif end == "deadline":
            await clock.advance(6)
        elif end == "drop":
            await manager.submit("a", noop)
        else:
            await clock.run(manager.close())
        assert handle.done()
        assert handle.attempt == 0


async def test_a_failed_coroutine_object_cannot_be_requeued(clock: VirtualClock) -> None:
    async def broken() -> None:
        raise ValueError

    async with running(clock) as manager:
        handle = await manager.submit("a", broken())
        await clock.run(outcome(handle))
        with pytest.raises(LookupError, match="nothing that could run again"):
            manager.dead_letters.requeue(handle.id)
        assert handle.id in manager.dead_letters
