"""`lane_obs.run`: the event loop, and signals that drain. The signals go to processes of their own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import lane_obs
from lane_obs import LaneConfig, QueueManager
from tests.unit.runtime.support import noop

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


def test_it_returns_what_main_returns() -> None:
    async def main() -> int:
        async with QueueManager({"a": LaneConfig(0, 1)}) as manager:
            return await (await manager.submit("a", noop, 42))

    assert lane_obs.run(main()) == 42


def test_it_passes_an_error_on() -> None:
    async def main() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        lane_obs.run(main())


def test_it_runs_on_uvloop_where_there_is_one() -> None:
    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert lane_obs.run(main()) == "uvloop"


def test_it_gives_the_signals_back() -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    lane_obs.run(main())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


class Program:
    """A process that runs a queue; it is spoken to over its standard streams."""

    PRELUDE = """
        import asyncio, os, signal, sys, threading
        import lane_obs
        from lane_obs import LaneConfig, QueueManager

        def say(*words):
            print(*words, flush=True)

        async def wait_for_a_line():
            loop = asyncio.get_running_loop()
            read = asyncio.Event()
            loop.add_reader(sys.stdin.fileno(), read.set)
            await read.wait()
            loop.remove_reader(sys.stdin.fileno())
            sys.stdin.readline()

    """

    def __init__(self, text: str) -> None:
        program = textwrap.dedent(self.PRELUDE) + textwrap.dedent(text)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, list[str], str]:
        """Waits for the end of the process: its exit code, the lines it still said, and its last complaint."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.splitlines(), (err.strip().splitlines() or [""])[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.kill()


DRAINING = """
    async def work():
        say("started")
        await wait_for_a_line()
        say("finished")
        return "value"

    async def main():
        async with QueueManager({"a": LaneConfig(0, 1)}) as manager:
            first = await manager.submit("a", work)
            second = await manager.submit("a", lambda: say("second ran"))
            try:
                await asyncio.Event().wait()
            finally:
                say("main ends with", first.state, second.state, manager.is_shutting_down())

    lane_obs.run(main())
"""


@pytest.mark.parametrize(
    ("number", "code", "complaint"), [(signal.SIGTERM, 143, ""), (signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt")]
)
def test_the_first_signal_drains_and_then_ends_main(
    programs: list[Program], number: signal.Signals, code: int, complaint: str
) -> None:
    program = Program(DRAINING)
    programs.append(program)
    assert program.read() == "started"
    program.process.send_signal(number)
    program.write()
    found, lines, last = program.end()
    assert lines == ["finished", "second ran", "main ends with succeeded succeeded True"]
    assert (found, last) == (code, complaint)


def test_a_second_signal_ends_main_at_once(programs: list[Program]) -> None:
    program = Program(
        """
        async def work():
            say("started")
            try:
                await asyncio.Event().wait()
            finally:
                say("cancelled")

        async def main():
            async with QueueManager({"a": LaneConfig(0, 1)}) as manager:  # drains without limit at its end
                handle = await manager.submit("a", work)
                while not manager.is_shutting_down():
                    await asyncio.sleep(0.001)
                say("draining")
                await handle

        lane_obs.run(main())
        """
    )
    programs.append(program)
    assert program.read() == "started"
    program.process.send_signal(signal.SIGTERM)
    assert program.read() == "draining"
    program.process.send_signal(signal.SIGTERM)
    code, lines, _ = program.end()
    assert (code, lines) == (143, ["cancelled"])


def test_a_drain_that_takes_too_long_is_cut_and_the_work_cancelled(programs: list[Program]) -> None:
    program = Program(
        """
        async def work():
            say("started")
            try:
                await asyncio.Event().wait()
            finally:
                say("cancelled")

        async def main():
            async with QueueManager({"a": LaneConfig(0, 1)}, drain_timeout=0.05) as manager:
                await manager.submit("a", work)
                await asyncio.Event().wait()

        lane_obs.run(main())
        """
    )
    programs.append(program)
    assert program.read() == "started"
    program.process.send_signal(signal.SIGTERM)
    code, lines, _ = program.end()
    assert (code, lines) == (143, ["cancelled"])


def test_all_queues_stop_taking_work_at_one_moment(programs: list[Program]) -> None:
    program = Program(
        """
        async def main():
            queues = [QueueManager({"a": LaneConfig(0, 1)}) for _ in range(3)]
            for queue in queues:
                await queue.start()
                await queue.submit("a", wait_for_a_line if queue is queues[0] else asyncio.sleep, *(
                    [] if queue is queues[0] else [0]))
            say("started")
            try:
                while not queues[0].is_shutting_down():
                    await asyncio.sleep(0.001)
                say(*[queue.is_shutting_down() for queue in queues])
                await asyncio.Event().wait()
            finally:
                for queue in queues:
                    await queue.close()

        lane_obs.run(main())
        """
    )
    programs.append(program)
    assert program.read() == "started"
    program.process.send_signal(signal.SIGTERM)
    assert program.read() == "True True True"
    program.write()
    assert program.end()[0] == 143


def test_a_thread_that_never_ends_does_not_keep_the_process(programs: list[Program]) -> None:
    program = Program(
        """
        async def main():
            manager = QueueManager({"a": LaneConfig(0, 1)}, close_timeout=0.05)
            await manager.start()
            entered = threading.Event()

            def work():
                entered.set()
                threading.Event().wait()

            handle = await manager.submit("a", work)
            await asyncio.to_thread(entered.wait)
            await manager.close()
            say(handle.state)

        lane_obs.run(main())
        say("end")
        """
    )
    programs.append(program)
    code, lines, _ = program.end()
    assert (code, lines) == (0, ["cancelled", "end"])


def test_a_main_that_ends_by_itself_after_a_signal_keeps_its_value(programs: list[Program]) -> None:
    program = Program(
        """
        async def main():
            async with QueueManager({"a": LaneConfig(0, 1)}) as manager:
                await manager.submit("a", asyncio.sleep, 0)
                os.kill(os.getpid(), signal.SIGTERM)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    return "value"

        say(lane_obs.run(main()))
        """
    )
    programs.append(program)
    assert program.end()[:2] == (0, ["value"])
