"""Where the structlog sink's lines go: real pipes, real processes, forks and exits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from lane_obs import LaneConfig, LaneEvent, QueueManager
from lane_obs import events as kinds
from lane_obs.sinks.structlog import StructlogSink

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0
LONG = 3600.0


def completed(number: int) -> LaneEvent:
    return kinds.CommandCompleted(number, 2.0, 3.0, f"id-{number}", "a", "f", 1)


def failed(number: int) -> LaneEvent:
    return kinds.CommandFailed(number, 2.0, 3.0, f"id-{number}", "a", "f", 1, error_type="E", error="x")


class Pipe:
    """A pipe whose reading end is read only when a test says so."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.reading: BinaryIO = os.fdopen(reading, "rb")
        self.writing: BinaryIO = os.fdopen(writing, "wb")
        self.data = b""
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        self.data = self.reading.read()

    def start_reading(self) -> None:
        self._reader.start()

    def lines(self) -> list[dict[str, Any]]:
        """All that was written, once the writing end is closed."""
        self.writing.close()
        self._reader.join(PATIENCE)
        return [json.loads(line) for line in self.data.splitlines()]

    def close(self) -> None:
        for end in (self.reading, self.writing):
            end.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.mark.both_loops
async def test_a_full_pipe_blocks_neither_the_loop_nor_the_commands_and_drops_are_counted(pipe: Pipe) -> None:
    sink = StructlogSink(pipe.writing, capacity=100)
    manager = QueueManager({"a": LaneConfig(1, 8)}, sinks=[sink])
    await manager.start()
    handles = [await manager.submit("a", asyncio.sleep, 0, id=f"id-{n}") for n in range(3000)]
    for handle in handles:
        await handle
    stats = manager.stats().sinks[0]
    assert stats.dropped["full"] > 0  # it holds far fewer than these lines
    pipe.start_reading()
    await manager.close()
    written = [line for line in pipe.lines() if "outcome" in line]
    assert len({line["command_id"] for line in written}) == len(written)
    assert len(written) + sink.dropped["full"] == 3000
    assert sink.dropped.keys() == {"full"}


def test_close_gives_up_on_a_pipe_that_nobody_reads(pipe: Pipe) -> None:
    sink = StructlogSink(pipe.writing, close_timeout=0.05)
    sink.handle([completed(n) for n in range(5000)])
    sink.close()
    assert 0 < sink.dropped["closed"] < 5000
    pipe.reading.close()  # the thread's write fails now, and it ends


def test_a_reader_that_goes_away_costs_lines_only(pipe: Pipe) -> None:
    pipe.reading.close()
    sink = StructlogSink(pipe.writing)
    sink.handle([completed(1)])
    sink.close()
    assert sink.dropped == {"error": 1}
    assert isinstance(sink.take_failure(), BrokenPipeError)


def test_a_pipe_that_is_not_blocking_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing.fileno(), False)
    sink = StructlogSink(pipe.writing)
    sink.handle([completed(n) for n in range(5000)])
    pipe.start_reading()
    sink.close()
    assert [line["command_id"] for line in pipe.lines()] == [f"id-{n}" for n in range(5000)]
    assert sink.dropped == {}


def test_a_file_that_only_the_sink_holds_stays_open(tmp_path: Any) -> None:
    path = tmp_path / "lines.log"
    sink = StructlogSink(path.open("wb"))
    sink.handle([completed(1)])
    sink.close()
    assert json.loads(path.read_bytes())["command_id"] == "id-1"
    sink._lines._file.close()


def test_lines_wait_to_be_written_together_but_not_behind_an_error(pipe: Pipe) -> None:
    sink = StructlogSink(pipe.writing, flush_interval=LONG)
    sink.handle([completed(1)])
    sink.handle([completed(2)])
    assert sink.pending == 2
    sink.handle([failed(3)])
    got = [json.loads(pipe.reading.readline()) for _ in range(3)]
    assert [line["command_id"] for line in got] == ["id-1", "id-2", "id-3"]
    sink.close()


def test_lines_do_not_wait_when_the_sink_is_closed(pipe: Pipe) -> None:
    sink = StructlogSink(pipe.writing, flush_interval=LONG)
    sink.handle([completed(n) for n in range(600)])
    pipe.start_reading()
    sink.close()
    assert len(pipe.lines()) == 600


# Processes of their own.

PROGRAM = """
import asyncio, json, os, signal, sys, threading
import lane_obs
from lane_obs import LaneConfig, QueueManager
from lane_obs import events as kinds
from lane_obs.sinks.structlog import StructlogSink

def completed(number):
    return kinds.CommandCompleted(number, 2.0, 3.0, f"id-{number}", "a", "f", 1)
"""


def run(program: str, code: int = 0) -> list[dict[str, Any]]:
    """Runs a program and returns the lines that it wrote to its standard output, a pipe."""
    done = subprocess.run([sys.executable, "-c", PROGRAM + program], capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_process_writes_one_line_for_each_command() -> None:
    lines = run("""
async def work(number):
    if number % 10 == 0:
        raise ValueError("no \\udcff row")

async def main():
    async with QueueManager({"a": LaneConfig(1, 8)}, sinks=[StructlogSink(sys.stdout.buffer)]) as manager:
        for number in range(1000):
            await manager.submit("a", work, number, id=f"id-{number}")

lane_obs.run(main())
""")
    ends = [line for line in lines if "outcome" in line]
    assert sorted(line["command_id"] for line in ends) == sorted(f"id-{number}" for number in range(1000))
    assert sum(line["outcome"] == "error" for line in ends) == 100
    assert all(("exception" in line) == (line["outcome"] == "error") for line in ends)


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(3)", 3), ("raise KeyError('lost')", 1)])
def test_a_process_that_ends_without_closing_still_writes_what_waits(end: str, code: int) -> None:
    lines = run(
        f"""
sink = StructlogSink(sys.stdout.buffer, flush_interval=3600)
sink.handle([completed(number) for number in range(600)])
{end}
""",
        code,
    )
    assert [line["command_id"] for line in lines] == [f"id-{number}" for number in range(600)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_a_forked_child_writes_its_own_lines_and_none_of_its_parents(end: str) -> None:
    lines = run(f"""
sink = StructlogSink(sys.stdout.buffer, flush_interval=3600)
sink.handle([completed(1)])
child = os.fork()
if child == 0:
    sink.handle([completed(2)])
    sink.close()
    {end}
assert os.waitpid(child, 0)[1] == 0
sink.handle([completed(3)])
sink.close()
""")
    assert [line["command_id"] for line in lines] == ["id-2", "id-1", "id-3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_that_leaves_the_sink_alone_writes_nothing() -> None:
    lines = run("""
sink = StructlogSink(sys.stdout.buffer, flush_interval=3600)
sink.handle([completed(1)])
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""")
    assert [line["command_id"] for line in lines] == ["id-1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_child_forked_while_the_thread_writes_does_not_hang() -> None:
    lines = run("""
reading, writing = os.pipe()
sink = StructlogSink(os.fdopen(writing, "wb"), close_timeout=0)
sink.handle([completed(number) for number in range(5000)])  # more than the pipe holds: the thread stays in its write
held = threading.Event()
def hold():
    with sink._lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    other = StructlogSink(sys.stdout.buffer)
    other.handle([completed(-1)])
    other.close()
    sink.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
sys.stdout.flush()
os._exit(0)
""")
    assert [line["command_id"] for line in lines] == ["id--1"]
