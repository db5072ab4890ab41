"""The loop watchdog: really blocked loops, real threads, real time.

A block ends when the watchdog says that it lasts too long: no test guesses how long to wait.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError, LaneConfig, MemorySink, QueueManager, VirtualClock
from lane_obs.bus import ThreadedSink
from lane_obs.events import LoopBlocked, TraceIds
from lane_obs.sinks.watchdog import LoopWatchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lane_obs import LaneEvent

PATIENCE = 20.0
THRESHOLD = 0.05
LANES = {"a": LaneConfig(0, 2)}
BLOCKED = "queue.loop.blocked"


class Alarm(logging.Handler):
    """Keeps what the watchdog logs, and ends the block when it complains that it lasts."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[str, str]] = []
        self.over = threading.Event()
        self.at_error: Callable[[], object] = self.over.set
        self.at_warning: Callable[[], object] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))
        (self.at_error if record.levelno >= logging.ERROR else self.at_warning)()

    def block(self) -> None:
        """Blocks whatever thread it is called in."""
        assert self.over.wait(PATIENCE), "the watchdog noticed nothing"

    def said(self, level: str) -> list[str]:
        return [text for name, text in self.lines if name == level]


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    logger = logging.getLogger("lane_obs.watchdog")
    logger.addHandler(made)
    yield made
    made.over.set()
    logger.removeHandler(made)


def watchdog(threshold: float = THRESHOLD) -> LoopWatchdog:
    return LoopWatchdog(interval=0.01, threshold=threshold)


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop turn until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.001)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lane-obs-watchdog"]


async def by_command(memory: MemorySink, command_id: str | None) -> LoopBlocked:
    """The one report that names this command."""
    found = await memory.wait_for(lambda event: isinstance(event, LoopBlocked) and event.command_id == command_id)
    assert isinstance(found, LoopBlocked)
    return found


@pytest.mark.both_loops
async def test_a_command_that_blocks_the_loop_is_reported_once_by_name_with_its_own_frames(alarm: Alarm) -> None:
    memory = MemorySink()

    async def outer() -> None:
        await inner()

    async def inner() -> None:
        alarm.block()

    async with QueueManager(LANES, sinks=[memory, watchdog()]) as manager:
        await manager.submit("a", outer, id="one")
        event = await by_command(memory, "one")
    assert event.seconds >= 10 * THRESHOLD
    assert (event.lane, event.command_type) == ("a", "test_a_command_that_blocks_the_loop_is_reported_once_by_name_"
                                                "with_its_own_frames.<locals>.outer")  # fmt: skip
    functions = [line.rsplit(" in ", 1)[1].rsplit(".", 1)[-1] for line in event.stack]
    assert functions[:3] == ["outer", "inner", "block"]
    assert all("lane_obs/runtime" not in line and "asyncio" not in line for line in event.stack)
    assert event.stack[0].startswith(f"{__file__}:{outer.__code__.co_firstlineno + 1} in ")
    assert [event.command_id for event in memory.of(BLOCKED) if isinstance(event, LoopBlocked)].count("one") == 1


async def test_a_block_that_lasts_is_logged_as_an_error_while_it_lasts(alarm: Alarm) -> None:
    memory = MemorySink()

    async def work() -> None:
        alarm.block()

    async with QueueManager(LANES, sinks=[memory, watchdog()]) as manager:
        await manager.submit("a", work, id="one")
        await by_command(memory, "one")
    [line] = alarm.said("ERROR")
    first, *stack = line.splitlines()
    assert first.startswith("the event loop has been blocked for ")
    assert "command 'one' of lane 'a'" in first
    assert stack[0].endswith("work")


@pytest.mark.both_loops
async def test_a_task_that_a_command_has_started_counts_as_the_command(alarm: Alarm) -> None:
    memory = MemorySink()

    async def child() -> None:
        alarm.block()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    dog = watchdog()
    async with QueueManager(LANES, sinks=[memory, dog]) as manager:
        await until(lambda: dog.loop_lag.count)  # from then on it knows which frames are the loop's
        await manager.submit("a", work, id="parent")
        event = await by_command(memory, "parent")
    assert event.stack[0].endswith("child")


@pytest.mark.both_loops
async def test_a_block_outside_of_commands_names_none_and_shows_the_frames_above_the_loop(alarm: Alarm) -> None:
    memory, dog = MemorySink(), watchdog()
    async with QueueManager(LANES, sinks=[memory, dog]):
        await until(lambda: dog.loop_lag.count)
        asyncio.get_running_loop().call_soon(alarm.block)
        event = await by_command(memory, None)
    assert (event.lane, event.command_type, event.trace) == (None, None, None)
    assert event.stack[0].endswith("in Alarm.block")


class Tracer:
    """Gives every attempt the ids of a trace."""

    wants = ()
    ids = TraceIds(0xABC, 0xDEF)

    def at_start(self, command: Any) -> None:
        command.trace = self.ids

    def handle(self, events: Sequence[LaneEvent]) -> None:
        pass

    def close(self) -> None:
        pass


async def test_the_report_has_the_trace_of_the_command(alarm: Alarm) -> None:
    memory = MemorySink()

    async def work() -> None:
        alarm.block()

    async with QueueManager(LANES, sinks=[Tracer(), memory, watchdog()]) as manager:
        await manager.submit("a", work, id="one")
        event = await by_command(memory, "one")
    assert event.trace == Tracer.ids
    assert event.payload["trace_id"] == Tracer.ids.trace_hex


async def test_a_loop_that_turns_is_measured_and_not_reported() -> None:
    memory, dog = MemorySink(), watchdog(threshold=60)
    async with QueueManager(LANES, sinks=[memory, dog]):
        await until(lambda: dog.loop_lag.count >= 3)
    assert memory.of(BLOCKED) == []
    assert 0 < dog.loop_lag.total < PATIENCE
    assert dog.loop_lag.bounds[0] <= 0.0001


async def test_a_late_heartbeat_is_in_the_histogram(alarm: Alarm) -> None:
    memory, dog = MemorySink(), watchdog()

    async def work() -> None:
        alarm.block()

    async with QueueManager(LANES, sinks=[memory, dog]) as manager:
        await manager.submit("a", work, id="one")
        await by_command(memory, "one")
    above = [count for bound, count in zip((*dog.loop_lag.bounds, float("inf")), dog.loop_lag.counts, strict=True)
             if bound >= 10 * THRESHOLD]  # fmt: skip
    assert sum(above) >= 1


async def test_a_block_that_nobody_listens_for_is_logged_from_an_empty_context(alarm: Alarm) -> None:
    bound: ContextVar[str] = ContextVar("bound", default="nothing")
    bound.set("something")
    seen: list[tuple[str, str]] = []
    alarm.at_warning = lambda: seen.append((threading.current_thread().name, bound.get()))

    async def work() -> None:
        alarm.block()

    async with QueueManager(LANES, sinks=[watchdog()]) as manager:
        await manager.submit("a", work, id="one")
        await until(lambda: any("'one'" in line for line in alarm.said("WARNING")))
    assert set(seen) == {(threading.current_thread().name, "nothing")}


async def test_closing_it_during_a_block_ends_its_thread(alarm: Alarm) -> None:
    dog, noticed, left = watchdog(), threading.Event(), [True]
    alarm.at_error = noticed.set

    def close_elsewhere() -> None:
        assert noticed.wait(PATIENCE)
        dog.close()
        left[0] = bool(threads())
        alarm.over.set()

    async def work() -> None:
        alarm.block()

    helper = threading.Thread(target=close_elsewhere)
    async with QueueManager(LANES, sinks=[dog]) as manager:
        helper.start()
        await manager.submit("a", work)
    helper.join()
    assert left == [False]
    assert [level for level, _ in alarm.lines] == ["ERROR"]


class Shy:
    """A command that notes when the watchdog asks for its name, as it does while the loop is blocked."""

    def __init__(self, alarm: Alarm) -> None:
        self.asked = threading.Event()
        self._alarm = alarm

    def __getattr__(self, name: str) -> Any:
        if threading.current_thread().name == "lane-obs-watchdog":
            self.asked.set()
        raise AttributeError(name)

    async def __call__(self) -> None:
        self._alarm.block()


async def test_a_block_that_was_seen_and_not_yet_told_when_it_is_closed_is_logged(alarm: Alarm) -> None:
    dog, shy = LoopWatchdog(interval=0.01, threshold=0.5), Shy(alarm)

    def close_elsewhere() -> None:
        assert shy.asked.wait(PATIENCE)
        dog.close()
        alarm.over.set()

    helper = threading.Thread(target=close_elsewhere)
    async with QueueManager(LANES, sinks=[dog]) as manager:
        helper.start()
        await manager.submit("a", shy, id="one")
    helper.join()
    [line] = alarm.said("WARNING") or alarm.said("ERROR")
    assert "command 'one' of lane 'a' (Shy)" in line


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, None], ids=["asyncio", "uvloop"])
def test_a_loop_that_is_closed_with_its_queue_open_ends_the_thread(loop_of: Any) -> None:
    loop = make_loop(loop_of)
    dog = watchdog()

    async def start() -> None:
        dog.start()
        await until(lambda: dog.loop_lag.count)

    loop.run_until_complete(start())
    [thread] = threads()
    loop.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    dog.close()


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, None], ids=["asyncio", "uvloop"])
def test_a_loop_that_rests_between_two_runs_is_not_blocked(loop_of: Any, alarm: Alarm) -> None:
    loop = make_loop(loop_of)
    dog = watchdog()

    async def start() -> None:
        dog.start()
        await until(lambda: dog.loop_lag.count)

    async def go_on(count: int) -> None:
        await until(lambda: dog.loop_lag.count > count)

    loop.run_until_complete(start())
    threading.Event().wait(12 * THRESHOLD)  # the case itself: nothing runs for longer than any limit
    loop.run_until_complete(go_on(dog.loop_lag.count))
    dog.close()
    loop.close()
    assert alarm.lines == []


def make_loop(loop_of: Any) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = (loop_of or pytest.importorskip("uvloop").new_event_loop)()
    return loop


class Blocks:
    """Takes reports and nothing else: other events would hold the exceptions of commands."""

    wants = (LoopBlocked,)

    def __init__(self) -> None:
        self.events: list[LaneEvent] = []

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.events += events

    def close(self) -> None:
        pass


class OwnError(Exception):
    pass


async def test_no_frame_and_no_command_is_held_once_the_block_is_over(alarm: Alarm) -> None:
    blocks = Blocks()

    async def work() -> None:
        alarm.block()
        raise OwnError

    loop = asyncio.get_running_loop()  # tasks that are not eager: those of Python 3.12 have a cycle of their own
    loop.set_task_factory(lambda loop, work, **options: asyncio.Task(work, loop=loop, **options))
    async with QueueManager(LANES, sinks=[blocks, watchdog()]) as manager:
        gc.collect()
        gc.disable()  # a cycle would be found by the collector and by nobody else
        try:
            error = await fault_of(manager, work)
            await until(lambda: blocks.events)
            assert error() is None
        finally:
            gc.enable()


async def fault_of(manager: QueueManager, work: Any) -> weakref.ref[BaseException]:
    handle = await manager.submit("a", work)
    await until(handle.done)  # to await it would put this very frame into the error's traceback
    manager.dead_letters.clear()
    error = handle.exception()
    assert isinstance(error, OwnError)
    return weakref.ref(error)


async def test_a_deep_stack_is_cut_in_the_middle(alarm: Alarm) -> None:
    memory = MemorySink()

    def dig(depth: int) -> None:
        if depth:
            dig(depth - 1)
        else:
            alarm.block()

    async def work() -> None:
        dig(300)

    async with QueueManager(LANES, sinks=[memory, watchdog()]) as manager:
        await manager.submit("a", work, id="one")
        event = await by_command(memory, "one")
    assert len(event.stack) == 41
    assert event.stack[0].endswith("work")
    assert event.stack[8].endswith("frames left out")
    assert event.stack[-1].endswith("in Condition.wait")


async def test_long_names_of_files_and_functions_are_cut(alarm: Alarm) -> None:
    memory = MemorySink()
    name = "f" * 1_000
    place: dict[str, Any] = {"block": alarm.block}
    source = f"async def {name}():\n    block()\n"
    exec(compile(source, "/" + "d" * 1_000 + "/end\udcff.py", "exec"), place)
    async with QueueManager(LANES, sinks=[memory, watchdog()]) as manager:
        await manager.submit("a", place[name], id="one")
        event = await by_command(memory, "one")
    assert event.stack[0].endswith("end\\udcff.py:2 in " + "f" * 200)
    assert len(event.stack[0]) <= 420


async def test_it_measures_real_time_whatever_clock_the_queue_has(alarm: Alarm, clock: VirtualClock) -> None:
    memory = MemorySink()

    async def work() -> None:
        alarm.block()

    manager = QueueManager(LANES, sinks=[memory, watchdog()], clock=clock)
    await manager.start()
    handle = await manager.submit("a", work, id="one")
    await clock.run(handle)
    event = await by_command(memory, "one")
    await manager.close()  # it waits for a thread, which no virtual clock can see
    assert event.seconds >= 10 * THRESHOLD
    assert event.at == clock.now()


async def test_two_queues_on_one_loop_are_both_told(alarm: Alarm) -> None:
    first, second = MemorySink(), MemorySink()

    async def work() -> None:
        alarm.block()

    other = QueueManager(LANES, sinks=[second, watchdog()])
    async with QueueManager(LANES, sinks=[first, watchdog()]) as manager, other:
        await manager.submit("a", work, id="one")
        reports = [await by_command(first, "one"), await by_command(second, "one")]
    assert {event.lane for event in reports} == {"a"}


async def test_its_thread_lives_from_start_to_close() -> None:
    dog = watchdog()
    manager = QueueManager(LANES, sinks=[dog])
    assert threads() == []
    await manager.start()
    assert len(threads()) == 1
    await manager.close()
    assert threads() == []
    dog.close()  # again
    assert dog.take_failure() is None


def test_it_takes_no_events_and_may_wait_in_close() -> None:
    dog = LoopWatchdog()
    dog.handle([])
    dog.close()  # it was never started
    assert isinstance(dog, ThreadedSink)
    assert list(dog.wants) == []


def test_one_watchdog_serves_one_queue() -> None:
    dog = LoopWatchdog()
    QueueManager(LANES, sinks=[dog])
    with pytest.raises(ConfigError, match="of its own"):
        QueueManager(LANES, sinks=[dog])


@pytest.mark.parametrize("field", ["interval", "threshold"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "1", True])
def test_bad_durations_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        LoopWatchdog(**{field: value})
