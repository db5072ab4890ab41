"""The flight recorder and the watchdog in processes of their own: signals, crashes, and the files that are left."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0
RUNNERS = ["asyncio.run", "lane_obs.run"]  # the second is on uvloop

PROLOGUE = """
import asyncio, sys, threading
import lane_obs
from lane_obs import LaneConfig, QueueManager
from lane_obs.sinks.recorder import FlightRecorder
from lane_obs.sinks.watchdog import LoopWatchdog

LANES = {"a": LaneConfig(0, 2)}
place = sys.argv[1]


def say(word):
    print(word, flush=True)


async def work():
    pass

"""


class Program:
    """A Python program that runs, and the lines it writes."""

    def __init__(self, path: Path, source: str, place: Path) -> None:
        script = path / "program.py"
        script.write_text(PROLOGUE + textwrap.dedent(source), "utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        self._guard = threading.Timer(PATIENCE, self.process.kill)  # a program that hangs must not hang the test
        self._guard.start()

    def wait_for(self, stream: str, part: str) -> str:
        """The first line of `stdout` or `stderr` from now on that has this in it."""
        seen = []
        for line in getattr(self.process, stream):
            seen.append(line)
            if part in line:
                return str(line)
        raise AssertionError(f"{part!r} never came; {stream} said {seen}")

    def end(self) -> tuple[int, str]:
        """Waits for its end; its exit code and what is left on stderr."""
        _, errors = self.process.communicate()
        self._guard.cancel()
        return self.process.returncode, errors

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._guard.cancel()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the recorders write."""
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def run(tmp_path: Path, place: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(source: str) -> Program:
        started.append(Program(tmp_path, source, place))
        return started[-1]

    yield start
    for program in started:
        program.stop()


def read(path: Path) -> list[dict[str, Any]]:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def keys(path: Path) -> list[str]:
    return [line["key"] for line in read(path)]


@pytest.mark.parametrize("runner", RUNNERS)
def test_sigusr1_makes_an_idle_process_write_its_events_and_run_on(
    runner: str, run: Callable[[str], Program], place: Path
) -> None:
    program = run(f"""
        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]) as manager:
                await (await manager.submit("a", work, id="one"))
                await asyncio.get_running_loop().run_in_executor(None, lambda: (say("ready"), sys.stdin.readline()))
                say("on")

        {runner}(main())
    """)
    program.wait_for("stdout", "ready")
    for number in (1, 2):
        program.process.send_signal(signal.SIGUSR1)
        program.wait_for("stderr", "SIGUSR1: the last events are in")
        assert len(list(place.glob("*.jsonl"))) == number
    program.process.communicate("go\n")
    assert program.process.returncode == 0
    first, second = sorted(place.iterdir())
    assert keys(first) == keys(second) == [
        "queue.started", "queue.command.submitted", "queue.command.started", "queue.command.completed",
    ]  # fmt: skip
    assert [line["seq"] for line in read(first)] == [1, 2, 3, 4]


@pytest.mark.parametrize("runner", RUNNERS)
def test_sigusr1_is_answered_while_a_command_blocks_the_event_loop(
    runner: str, run: Callable[[str], Program], place: Path
) -> None:
    program = run(f"""
        async def block():
            say("blocked")
            threading.Event().wait({PATIENCE})

        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]) as manager:
                await (await manager.submit("a", block, id="culprit"))

        {runner}(main())
    """)
    program.wait_for("stdout", "blocked")
    program.process.send_signal(signal.SIGUSR1)
    program.wait_for("stderr", "SIGUSR1: the last events are in")
    [path] = place.iterdir()
    told = [line["key"] for line in read(path) if line["payload"].get("command_id") == "culprit"]
    # From Python 3.12 on the first step runs in the turn that starts it, whose events are not handed over yet.
    started = [] if sys.version_info >= (3, 12) else ["queue.command.started"]
    assert told == ["queue.command.submitted", *started]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_loop_that_never_comes_free_is_named_on_stderr(runner: str, run: Callable[[str], Program]) -> None:
    program = run(f"""
        async def block():
            threading.Event().wait({PATIENCE})

        async def main():
            async with QueueManager(LANES, sinks=[LoopWatchdog(0.01, 0.02)]) as manager:
                await (await manager.submit("a", block, id="culprit"))

        {runner}(main())
    """)
    line = program.wait_for("stderr", "the event loop has been blocked for")
    assert "command 'culprit' of lane 'a' (block)" in line
    assert program.wait_for("stderr", "program.py:").rstrip().endswith("in block")


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_error_that_ends_the_program_leaves_the_events_in_a_file(
    runner: str, run: Callable[[str], Program], place: Path
) -> None:
    program = run(f"""
        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]) as manager:
                await (await manager.submit("a", work, id="one"))
                raise ValueError("the end")

        {runner}(main())
    """)
    code, errors = program.end()
    assert code == 1
    [path] = place.iterdir()
    assert f"the program ends with ValueError: the end: the last events are in {path}" in errors
    assert errors.rstrip().endswith("ValueError: the end")  # the traceback comes all the same
    assert keys(path)[0] == "queue.started"
    assert keys(path)[-1] == "queue.closed"


def test_an_error_of_a_command_that_goes_up_is_in_the_file_as_text(run: Callable[[str], Program], place: Path) -> None:
    program = run("""
        async def bad():
            raise RuntimeError("from within")

        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]) as manager:
                async with asyncio.TaskGroup() as group:
                    group.create_task(wait(manager))

        async def wait(manager):
            await (await manager.submit("a", bad, id="one"))

        asyncio.run(main())
    """)
    code, _ = program.end()
    assert code == 1
    [path] = place.iterdir()
    [failed] = [line["payload"] for line in read(path) if line["key"] == "queue.command.failed"]
    assert (failed["error_type"], failed["error"]) == ("RuntimeError", "from within")


def test_a_queue_that_nobody_closed_is_in_the_file_too(run: Callable[[str], Program], place: Path) -> None:
    program = run("""
        async def main():
            manager = QueueManager(LANES, sinks=[FlightRecorder(path=place)])
            await manager.start()
            await (await manager.submit("a", work, id="one"))
            raise ValueError("the end")

        asyncio.run(main())
    """)
    code, _ = program.end()
    assert code == 1
    [path] = place.iterdir()
    assert keys(path)[-1] == "queue.command.completed"


def test_two_queues_leave_two_files_and_the_programs_own_hook_is_called_once(
    run: Callable[[str], Program], place: Path
) -> None:
    program = run("""
        sys.excepthook = lambda kind, error, traceback: say(f"own hook: {error}")

        async def main():
            async with (
                QueueManager(LANES, sinks=[FlightRecorder(path=place)]),
                QueueManager(LANES, sinks=[FlightRecorder(path=place)]),
            ):
                raise ValueError("the end")

        asyncio.run(main())
    """)
    output, _ = program.process.communicate()
    assert program.process.returncode == 1
    assert output.splitlines() == ["own hook: the end"]
    assert len(list(place.iterdir())) == 2


def test_a_file_that_cannot_be_written_does_not_hide_the_error(run: Callable[[str], Program], place: Path) -> None:
    program = run("""
        import os

        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]):
                os.rmdir(place)
                raise ValueError("the end")

        asyncio.run(main())
    """)
    code, errors = program.end()
    assert code == 1
    assert "the last events could not be written" in errors
    assert errors.rstrip().endswith("ValueError: the end")
    assert not place.exists()


@pytest.mark.parametrize(
    ("end", "expected"),
    [("pass", 0), ("sys.exit(3)", 3), ("signal.raise_signal(signal.SIGINT); await asyncio.sleep(60)", -signal.SIGINT)],
    ids=["returns", "sys.exit", "ctrl-c"],
)
def test_an_end_that_is_no_crash_leaves_no_file(
    end: str, expected: int, run: Callable[[str], Program], place: Path
) -> None:
    program = run(f"""
        import signal

        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]) as manager:
                await (await manager.submit("a", work))
                {end}

        asyncio.run(main())
    """)
    code, _ = program.end()
    assert code == expected
    assert list(place.iterdir()) == []


def test_after_the_close_the_signal_ends_the_process_again(run: Callable[[str], Program], place: Path) -> None:
    program = run("""
        async def main():
            async with QueueManager(LANES, sinks=[FlightRecorder(path=place)]):
                pass

        asyncio.run(main())
        say("closed")
        sys.stdin.readline()
    """)
    program.wait_for("stdout", "closed")
    program.process.send_signal(signal.SIGUSR1)
    code, _ = program.end()
    assert code == -signal.SIGUSR1
    assert list(place.iterdir()) == []
