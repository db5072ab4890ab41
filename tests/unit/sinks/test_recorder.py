"""The flight recorder: what it keeps, the files it writes, and how it shares the process's hooks. Real files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError, LaneConfig, LaneEvent, QueueManager, VirtualClock
from lane_obs.events import CommandCompleted, CommandFailed, LanePaused, TraceIds
from lane_obs.sinks.recorder import FlightRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0
LANES = {"a": LaneConfig(0, 2)}
DEFAULT_NAME = re.compile(rf"lane-obs-{os.getpid()}-\d{{8}}T\d{{6}}\.\d{{6}}Z-\d+\.jsonl")


@pytest.fixture(autouse=True)
def hooks_as_they_were() -> Iterator[None]:
    """Every test gives back the signal and the excepthook that it found."""
    before = sys.excepthook, signal.getsignal(signal.SIGUSR1)
    yield
    assert (sys.excepthook, signal.getsignal(signal.SIGUSR1)) == before


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FlightRecorder]]:
    """Makes recorders that write below `tmp_path` and forget at the end."""
    made: list[FlightRecorder] = []

    def build(capacity: int = 100, **options: Any) -> FlightRecorder:
        made.append(FlightRecorder(capacity, tmp_path, **options))
        return made[-1]

    yield build
    for recorder in made:
        recorder.close()
        recorder.forget()


def paused(seq: int, lane: str = "a") -> LaneEvent:
    return LanePaused(seq, float(seq), float(seq), lane, seq)


def failed(error: BaseException, **options: Any) -> CommandFailed:
    return CommandFailed(7, 1.0, 2.0, "one", "a", "work", 1, error_type=type(error).__name__, error=str(error),
                         exception=error, **options)  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.001)


def dumps(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


async def work() -> None:
    pass


# --- what it keeps --------------------------------------------------------------------------------------------------


def test_it_keeps_the_latest_events_and_counts_no_drops(make: Callable[..., FlightRecorder]) -> None:
    recorder = make(3)
    recorder.handle([paused(1), paused(2)])
    recorder.handle([paused(3), paused(4), paused(5)])
    assert [event.seq for event in recorder.events] == [3, 4, 5]
    assert not hasattr(recorder, "dropped")


def test_it_keeps_4096_unless_told_otherwise() -> None:
    recorder = FlightRecorder()
    recorder.handle([paused(number) for number in range(5_000)])
    assert len(recorder.events) == 4_096


def test_it_does_not_hold_exceptions(make: Callable[..., FlightRecorder]) -> None:
    recorder = make()
    recorder.handle([failed(ValueError("bad"))])
    [event] = recorder.events
    assert isinstance(event, CommandFailed)
    assert (event.exception, event.error_type, event.error) == (None, "ValueError", "bad")


def test_forget_lets_go_of_the_events(make: Callable[..., FlightRecorder]) -> None:
    recorder = make()
    recorder.handle([paused(1)])
    recorder.forget()
    assert recorder.events == []


# --- what it writes -------------------------------------------------------------------------------------------------


def test_a_dump_has_one_json_object_for_each_event(make: Callable[..., FlightRecorder], tmp_path: Path) -> None:
    recorder = make()
    trace = TraceIds(0xABC, 0xDEF)
    recorder.handle([paused(1), failed(ValueError("bad"), trace=trace)])
    path = recorder.dump(tmp_path / "own.jsonl")
    assert path == tmp_path / "own.jsonl"
    first, second = lines(path)
    assert first == {
        "key": "queue.lane.paused", "seq": 1, "at": 1.0, "wall": 1.0, "payload": {"lane": "a", "pending": 1},
    }  # fmt: skip
    payload = second["payload"]
    assert (payload["trace_id"], payload["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (payload["error_type"], payload["error"]) == ("ValueError", "bad")
    assert "exception" not in payload


def test_an_empty_recorder_writes_an_empty_file(make: Callable[..., FlightRecorder]) -> None:
    assert make().dump().read_bytes() == b""


def test_a_file_without_a_name_is_called_after_process_and_time(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    recorder, other = make(), tmp_path / "other"
    other.mkdir()
    assert DEFAULT_NAME.fullmatch(recorder.dump().name)
    elsewhere = recorder.dump(str(other))
    assert (elsewhere.parent, bool(DEFAULT_NAME.fullmatch(elsewhere.name))) == (other, True)


def test_the_default_directory_is_that_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert FlightRecorder().dump().parent == tmp_path


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    recorder = FlightRecorder(path="here")
    monkeypatch.chdir("/")
    assert recorder.dump().parent == tmp_path / "here"


def test_dumps_of_many_recorders_at_once_have_names_of_their_own(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    recorders = [make() for _ in range(8)]
    threads = [threading.Thread(target=recorder.dump) for recorder in recorders for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dumps(tmp_path)) == 32


def test_only_the_owner_may_read_a_dump_and_it_replaces_another(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    target = tmp_path / "own.jsonl"
    target.write_text("old")
    target.chmod(0o644)
    make().dump(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["own.jsonl"]
    assert target.read_bytes() == b""


def test_a_dump_does_not_write_through_a_link(make: Callable[..., FlightRecorder], tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link.jsonl"
    victim.write_text("mine")
    link.symlink_to(victim)
    make().dump(link)
    assert (victim.read_text(), link.is_symlink()) == ("mine", False)


def test_a_dump_that_fails_raises_and_leaves_nothing(make: Callable[..., FlightRecorder], tmp_path: Path) -> None:
    recorder = make()
    with pytest.raises(OSError, match="missing"):
        recorder.dump(tmp_path / "missing" / "x.jsonl")
    assert list(tmp_path.iterdir()) == []


class Odd(LaneEvent, frozen=True):
    """An event of a user's own kind that is not JSON by itself."""

    key = "own.odd"
    thing: Any


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_is_not_json_does_not_spoil_the_other_lines(make: Callable[..., FlightRecorder]) -> None:
    recorder = make()
    recorder.handle(
        [paused(1), paused(2, "\udcff"), Odd(3, 0.0, 0.0, object), Odd(4, 0.0, 0.0, Unreadable()), paused(5)]
    )
    written = lines(recorder.dump())
    assert [line["seq"] for line in written] == [1, 2, 3, 4, 5]
    assert written[1]["payload"] == {"lane": "\udcff", "pending": 2}
    assert written[2]["payload"]["thing"] == "<class 'object'>"
    assert written[3]["payload"]["thing"] == "<RuntimeError>"


async def test_a_dump_on_the_loop_has_all_that_happened_before(
    make: Callable[..., FlightRecorder], clock: VirtualClock
) -> None:
    recorder = make()
    manager = QueueManager(LANES, sinks=[recorder], clock=clock)
    await manager.start()
    handle = await manager.submit("a", work)
    written = lines(recorder.dump())
    assert [line["key"] for line in written] == ["queue.started", "queue.command.submitted"]
    await clock.run(handle)
    await clock.run(manager.close())
    assert lines(recorder.dump())[-1]["key"] == "queue.closed"


async def test_it_keeps_the_same_events_as_the_queue_emits(
    make: Callable[..., FlightRecorder], clock: VirtualClock
) -> None:
    recorder = make()
    manager = QueueManager(LANES, sinks=[recorder], clock=clock)
    await manager.start()
    await clock.run(await manager.submit("a", work, id="one"))
    await clock.run(manager.close())
    [done] = [event for event in recorder.events if isinstance(event, CommandCompleted)]
    [line] = [line for line in lines(recorder.dump()) if line["key"] == done.key]
    assert line["payload"] == done.payload
    assert [event.seq for event in recorder.events] == list(range(1, len(recorder.events) + 1))


# --- how it is built ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "9", True])
def test_a_bad_capacity_is_refused(capacity: Any) -> None:
    with pytest.raises(ConfigError, match="capacity"):
        FlightRecorder(capacity)


@pytest.mark.parametrize("path", ["/no/such/directory", __file__, 3, b"/tmp"])
def test_what_is_no_directory_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match="path"):
        FlightRecorder(path=path)


def test_one_recorder_serves_one_queue_at_a_time(make: Callable[..., FlightRecorder]) -> None:
    recorder = make()
    QueueManager(LANES, sinks=[recorder])
    with pytest.raises(ConfigError, match="of its own"):
        QueueManager(LANES, sinks=[recorder])


# --- the signal -----------------------------------------------------------------------------------------------------


async def test_sigusr1_makes_every_recorder_write_and_close_gives_the_signal_back(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    first, second, deaf = make(), make(), make(on_signal=False)
    one, two, three = (QueueManager(LANES, sinks=[recorder]) for recorder in (first, second, deaf))
    async with three:
        async with one, two:
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: len(dumps(tmp_path)) == 2)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert len(dumps(tmp_path)) == 2


async def test_a_recorder_that_closes_leaves_the_signal_to_the_others(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    one, two = (QueueManager(LANES, sinks=[make()]) for _ in range(2))
    async with one:
        async with two:
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: dumps(tmp_path))
    assert len(dumps(tmp_path)) == 1


async def test_a_handler_of_the_users_is_left_alone(make: Callable[..., FlightRecorder], tmp_path: Path) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    theirs = signal.getsignal(signal.SIGUSR1)
    try:
        async with QueueManager(LANES, sinks=[make()]):
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: heard)
        assert signal.getsignal(signal.SIGUSR1) is theirs
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert dumps(tmp_path) == []


async def test_a_handler_that_the_user_sets_later_is_not_taken_away(make: Callable[..., FlightRecorder]) -> None:
    try:
        async with QueueManager(LANES, sinks=[make()]):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_in_another_thread_it_starts_without_the_signal(
    make: Callable[..., FlightRecorder], caplog: pytest.LogCaptureFixture
) -> None:
    found: list[Any] = []

    async def main() -> None:
        async with QueueManager(LANES, sinks=[make()]) as manager:
            await (await manager.submit("a", work))
            found.append(signal.getsignal(signal.SIGUSR1))

    with caplog.at_level(logging.INFO, "lane_obs.recorder"):
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        thread.join()
    assert found == [signal.SIG_DFL]
    assert "main thread" in caplog.text


async def test_a_dump_that_fails_on_the_signal_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    recorder = FlightRecorder(path=place, on_crash=False)
    place.rmdir()
    async with QueueManager(LANES, sinks=[recorder]):
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: "could not be written" in caplog.text)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert list(tmp_path.iterdir()) == []


# --- the crash ------------------------------------------------------------------------------------------------------


def crash(error: BaseException) -> None:
    """What the interpreter does with an error that nothing has caught."""
    sys.excepthook(type(error), error, error.__traceback__)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What the program's own excepthook is told."""
    found: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _traceback: found.append(error))
    return found


@pytest.fixture(autouse=True)
def order(hooks_as_they_were: None, told: list[BaseException]) -> None:
    """Has every test run with an excepthook of its own, put back before the check."""


async def test_an_error_after_the_close_is_written_and_handed_on(
    make: Callable[..., FlightRecorder], tmp_path: Path, told: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async with QueueManager(LANES, sinks=[make()]) as manager:
        await (await manager.submit("a", work))
    error = ValueError("bad")
    crash(error)
    [path] = dumps(tmp_path)
    assert lines(path)[-1]["key"] == "queue.closed"
    assert told == [error]
    assert "the program ends with ValueError: bad: the last events are in" in caplog.text
    assert str(path) in caplog.text


async def test_an_error_is_written_once(make: Callable[..., FlightRecorder], tmp_path: Path) -> None:
    async with QueueManager(LANES, sinks=[make()]):
        crash(ValueError("bad"))
        crash(ValueError("bad"))
    assert len(dumps(tmp_path)) == 1


async def test_ctrl_c_is_no_crash(
    make: Callable[..., FlightRecorder], tmp_path: Path, told: list[BaseException]
) -> None:
    async with QueueManager(LANES, sinks=[make()]):
        crash(KeyboardInterrupt())
    assert (dumps(tmp_path), len(told)) == ([], 1)


async def test_every_recorder_of_the_process_writes_its_own(
    make: Callable[..., FlightRecorder], tmp_path: Path, told: list[BaseException]
) -> None:
    one, two = (QueueManager(LANES, sinks=[make()]) for _ in range(2))
    async with one, two:
        pass
    crash(ValueError("bad"))
    assert (len(dumps(tmp_path)), len(told)) == (2, 1)


async def test_a_closed_recorder_is_let_go_when_the_next_one_starts(
    make: Callable[..., FlightRecorder], tmp_path: Path
) -> None:
    async with QueueManager({"old": LaneConfig(0, 1)}, sinks=[make()]) as manager:
        await (await manager.submit("old", work))
    async with QueueManager({"new": LaneConfig(0, 1)}, sinks=[make()]) as manager:
        await (await manager.submit("new", work))
    crash(ValueError("bad"))
    [path] = dumps(tmp_path)
    assert {line["payload"]["lane"] for line in lines(path) if "lane" in line["payload"]} == {"new"}


async def test_the_last_recorder_that_forgets_gives_the_excepthook_back(
    make: Callable[..., FlightRecorder],
) -> None:
    theirs = sys.excepthook
    first, second = make(), make()
    async with QueueManager(LANES, sinks=[first]), QueueManager(LANES, sinks=[second]):
        assert sys.excepthook is not theirs
    first.forget()
    assert sys.excepthook is not theirs
    second.forget()
    assert sys.excepthook is theirs


async def test_a_hook_that_the_user_sets_later_stays_and_may_call_ours(
    make: Callable[..., FlightRecorder], tmp_path: Path, told: list[BaseException]
) -> None:
    recorder = make()
    async with QueueManager(LANES, sinks=[recorder]):
        ours, seen = sys.excepthook, []

        def theirs(kind: Any, error: BaseException, traceback: Any) -> None:
            seen.append(error)
            ours(kind, error, traceback)

        sys.excepthook = theirs
    crash(ValueError("bad"))
    assert (len(dumps(tmp_path)), len(seen), len(told)) == (1, 1, 1)
    recorder.forget()
    assert sys.excepthook is theirs


async def test_a_recorder_that_starts_above_a_buried_hook_makes_no_circle(
    make: Callable[..., FlightRecorder], tmp_path: Path, told: list[BaseException]
) -> None:
    async with QueueManager(LANES, sinks=[make()]):
        ours = sys.excepthook
        sys.excepthook = lambda kind, error, traceback: ours(kind, error, traceback)
        async with QueueManager(LANES, sinks=[make()]):
            crash(ValueError("bad"))
    assert (len(dumps(tmp_path)), len(told)) == (2, 1)


async def test_without_on_crash_the_excepthook_is_not_touched(make: Callable[..., FlightRecorder]) -> None:
    theirs = sys.excepthook
    async with QueueManager(LANES, sinks=[make(on_crash=False)]):
        assert sys.excepthook is theirs


async def test_the_loops_exception_handler_is_not_touched(make: Callable[..., FlightRecorder]) -> None:
    before = asyncio.get_running_loop().get_exception_handler()
    async with QueueManager(LANES, sinks=[make()]):
        assert asyncio.get_running_loop().get_exception_handler() is before
