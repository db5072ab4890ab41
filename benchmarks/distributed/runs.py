"""Runs of one contestant, each with a server of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.distributed.producer import WARM_UP
from benchmarks.distributed.server import Server, Use
from benchmarks.distributed.workers import ROOT, environment, workers_of

_SECONDS: Final = 300.0


class ProducerFailed(RuntimeError):
    """A producer broke."""


class Run(NamedTuple):
    """What one run took.

    Attributes:
        seconds: of a job.
        use: what the server did for all of them, that for connecting and for workers that wait included.
        cpu: seconds of processor time that a worker took for a job, where that was measured.
    """

    seconds: float
    use: Use
    cpu: float = 0.0


def enqueue(name: str, count: int) -> Run:
    """Enqueues so many jobs in batches, with nobody to run them."""
    with Server() as server:
        seconds = _produce(name, "enqueue", count, server)
        return Run(seconds / count, server.use())


def drain(name: str, count: int, processes: int = 1, phase: str = "enqueue") -> Run:
    """Has so many jobs run that wait when the workers start: from the start of the first to that of the last."""
    with Server() as server:
        _produce(name, phase, count, server)
        before = server.use()
        with workers_of(name, server.url, processes=processes) as workers:
            span = workers.wait(WARM_UP + count)
            return Run((span.last - span.first) / count, server.use().since(before), span.cpu)


def round_trips(name: str, count: int) -> Run:
    """Has so many jobs run whose results are waited for, 64 outstanding, by one worker."""
    with Server() as server, workers_of(name, server.url, results=True):
        seconds = _produce(name, "round_trips", count, server, results=True)
        return Run(seconds / count, server.use())


def waits(name: str, count: int) -> list[float]:
    """Milliseconds from enqueue to start of so many jobs, each given to an idle worker."""
    with tempfile.TemporaryDirectory(prefix="lane-obs-wait-") as folder, Server() as server:
        socket = str(Path(folder) / "socket")
        with workers_of(name, server.url, socket=socket):
            found: list[float] = _produce(name, "latency", count, server, socket=socket)
            return found


def _produce(name: str, phase: str, count: int, server: Server, *, results: bool = False, socket: str = "") -> Any:
    command = [sys.executable, "-m", "benchmarks.distributed.producer", name, phase, str(count)]
    told = environment(server.url, results=results, LANE_OBS_BENCH_SOCKET=socket)
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise ProducerFailed(f"{name}, {phase}: {done.stderr[-2_000:]}")
    return json.loads(done.stdout)
