"""Worker processes of a contestant, and what their jobs count."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from benchmarks.distributed.contestant import ENTRIES
from benchmarks.distributed.jobs import SLOT

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 300.0
_GRACE: Final = 5.0
_LOG: Final = 2_000


class WorkersFailed(RuntimeError):
    """Workers ended, or did not do their jobs in time."""


class Span(NamedTuple):
    """The jobs of all workers.

    Attributes:
        first, last: when the first and the last began, by `time.monotonic()`.
        cpu: seconds of processor time that a worker took for a job.
    """

    first: float
    last: float
    cpu: float


def environment(url: str, *, results: bool, **more: str) -> dict[str, str]:
    """What a process of a contestant finds in its environment."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    told = {"LANE_OBS_BENCH_URL": url, "LANE_OBS_BENCH_RESULTS": "1" if results else "0", "PYTHONPATH": path}
    return {**os.environ, **told, **more}


class Workers:
    """So many worker processes, each a program of its own; a context manager.

    Args:
        command: what runs one, after `python`.
        url: the server's.
        processes: how many.
        results: whether results are kept.
        socket: where jobs tell their latency.
    """

    def __init__(
        self, command: Sequence[str], url: str, *, processes: int = 1, results: bool = False, socket: str = ""
    ) -> None:
        self._command = [sys.executable, *command]
        self._count = processes
        self._told = {"url": url, "results": results, "LANE_OBS_BENCH_SOCKET": socket}
        self._open = contextlib.ExitStack()
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            folder = Path(opening.enter_context(tempfile.TemporaryDirectory(prefix="lane-obs-workers-")))
            slots = folder / "slots"
            slots.write_bytes(bytes(SLOT.size * self._count))
            with slots.open("r+b") as file:
                self._slots = opening.enter_context(mmap.mmap(file.fileno(), 0))
            self._log = opening.enter_context((folder / "log").open("w+b"))
            for number in range(self._count):
                own = {"LANE_OBS_BENCH_SLOT": str(number), "LANE_OBS_BENCH_SLOTS": str(slots)}
                process = subprocess.Popen(
                    self._command, cwd=ROOT, env=environment(**self._told, **own),  # type: ignore[arg-type]
                    stdout=self._log, stderr=self._log, start_new_session=True,
                )  # fmt: skip
                opening.callback(_stop, process)
                self.processes.append(process)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def wait(self, count: int) -> Span:
        """Waits until so many jobs have begun.

        Raises:
            WorkersFailed: they did not in time, or a worker has ended.
        """
        until = time.monotonic() + _SECONDS
        while sum(begun for begun, *_ in self._read()) < count:
            if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                raise WorkersFailed(f"{self._counts()} of {count} jobs; {self._tail()}")
            time.sleep(0.01)
        time.sleep(0.01)  # a job first tells its number, then its moment
        _, firsts, lasts, jobs, cpus = zip(*(slot for slot in self._read() if slot[0]), strict=True)
        return Span(min(firsts), max(lasts), sum(cpus) / sum(jobs))

    def _counts(self) -> list[int]:
        return [begun for begun, *_ in self._read()]

    def _read(self) -> list[tuple[int, float, float, int, float]]:
        return [SLOT.unpack_from(self._slots, number * SLOT.size) for number in range(self._count)]

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-_LOG:].decode(errors="replace")


def workers_of(name: str, url: str, *, processes: int = 1, results: bool = False, socket: str = "") -> Workers:
    """Worker processes of the contestant of this name."""
    return Workers(ENTRIES[name].worker, url, processes=processes, results=results, socket=socket)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # All that it started is in its session.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
