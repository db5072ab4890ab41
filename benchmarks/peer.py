"""The PyPI wheel `a3s-lane`, the Rust library's own Python binding (the optional extra `peers`).

Its `submit` takes no callable: it blocks its thread until a built-in handler has returned the payload. The wheel
installs the module `_a3s_lane`, where its README imports `a3s_lane`. Its dispatcher looks for work every 10 ms and
starts one command each time, so samples are kept small. It runs in a process of its own, because its threads go on
polling after `shutdown` and would count as ours.

usage: python -m benchmarks.peer COMMANDS IDLE_SECONDS
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

NAME: Final = "a3s-lane"
_ROOT: Final = Path(__file__).parents[1]
_THREADS: Final = 32
_GAP: Final = 0.02
_SECONDS: Final = 10.0
_KEYS: Final = ("queue.command.submitted", "queue.command.started")


def load() -> Any:
    """The peer's `Lane` class; `None` when the wheel is not installed."""
    for name in ("a3s_lane", "_a3s_lane"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return getattr(module, "Lane", None) or module.PyLane
    return None


def version_of(package: str) -> str | None:
    """Version of an installed package; `None` when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure(commands: int, idle_seconds: float) -> dict[str, Any] | None:
    """What `report` gives, measured in another process; `None` when the wheel is not installed."""
    if load() is None:
        return None
    command = [sys.executable, "-m", "benchmarks.peer", str(commands), str(idle_seconds)]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(lane_class: Any, commands: int, idle_seconds: float) -> dict[str, Any]:
    """Measures it.

    Returns:
        `ran`: commands that ran in the throughput run, at most 10 s of it; `per_second`; `waits_ms`: from submit to
        start, one command at a time; `switches`, `cpu_ms`: context switches and CPU time in the idle seconds.
    """
    lane = lane_class()
    lane.start()
    ran, seconds = _throughput(lane, commands)
    waits = _idle_latency(lane, commands, random.Random(1))
    switches, cpu_ms = _idle(idle_seconds)
    return {"ran": ran, "per_second": ran / seconds, "waits_ms": waits, "switches": switches, "cpu_ms": cpu_ms}


def _throughput(lane: Any, commands: int) -> tuple[int, float]:
    last = time.perf_counter() + _SECONDS

    def submit(number: int) -> bool:
        if time.perf_counter() > last:
            return False
        lane.submit("query", "noop", number)
        return True

    with ThreadPoolExecutor(_THREADS) as pool:
        start = time.perf_counter()
        ran = sum(pool.map(submit, range(commands)))
        return ran, time.perf_counter() - start


def _idle_latency(lane: Any, samples: int, rng: random.Random) -> list[float]:
    events, waits = lane.subscribe_filtered(list(_KEYS)), []
    for _ in range(samples):
        time.sleep(rng.uniform(0, _GAP))
        lane.submit("query", "noop")
        at = {}
        for _ in _KEYS:
            event = events.recv(timeout_ms=1000)
            if event:
                at[event.key] = datetime.fromisoformat(event.timestamp[:26].ljust(26, "0") + "+00:00")
        if len(at) == len(_KEYS):
            waits.append((at[_KEYS[1]] - at[_KEYS[0]]).total_seconds() * 1e3)
    return waits


def _idle(seconds: float) -> tuple[int | None, float]:
    def switches() -> int | None:
        return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

    before, cpu = switches(), time.process_time()
    time.sleep(seconds)
    after = switches()
    return (None if before is None or after is None else after - before), (time.process_time() - cpu) * 1e3


if __name__ == "__main__":
    print(json.dumps(report(load(), int(sys.argv[1]), float(sys.argv[2]))))
