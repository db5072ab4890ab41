"""Runs `lane-obs worker` as its users do, and reads its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
PRELUDE = """
import asyncio, os, pathlib, signal, sys, time
from lane_obs import LaneConfig, QueueManager, command
from lane_obs.distributed import LocalBroker

HERE = pathlib.Path(__file__).parent
LANES = {"a": LaneConfig(0, 4, timeout=None)}

@command("app.add")
async def add(a: int, b: int) -> int:
    return a + b

@command("app.hold")
async def hold() -> None:
    (HERE / f"held-{os.getpid()}").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    (HERE / f"done-{os.getpid()}").touch()

@command("app.block")
async def block() -> None:
    (HERE / f"held-{os.getpid()}").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)

def queue(**options):
    return QueueManager(LANES, broker=LocalBroker(), **options)

def submitting(*works, **options):
    manager = queue(**options)
    async def submit():
        for work, *args in works:
            await manager.submit("a", work, *args)
    start = manager.start
    async def start_and_submit():
        await start()
        await submit()
    manager.start = start_and_submit
    return manager
"""


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR", "LANE_OBS_URL"}}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def poll(check: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What `check` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def is_there(pid: int) -> bool:
    """Whether a process runs, or has ended and nobody has looked."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Worker:
    """A supervisor and its children. Use it as a context manager, which kills what still runs."""

    def __init__(self, folder: Path, app: str, *options: object, **more: str) -> None:
        self.folder = folder
        self._command = [sys.executable, "-m", "lane_obs", "worker", app, *map(str, options)]
        self._more = more
        self.lines: list[str] = []
        self._grown = threading.Condition()

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, cwd=self.folder, env=environment(**self._more), stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.pids():
            if is_there(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._grown:
                    self.lines.append(line.rstrip("\n"))
                    self._grown.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Its log lines of this name that have these fields."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in found if line["event"] == name and fields.items() <= line.items()]

    def wait_for(self, name: str, count: int = 1, **fields: object) -> list[dict[str, Any]]:
        """The same, once there are so many."""
        with self._grown:
            there = self._grown.wait_for(lambda: len(self.events(name, **fields)) >= count, PATIENCE)
        assert there, f"no {count} x {name} {fields} in:\n{self.text}"
        return self.events(name, **fields)

    def wait_ready(self, processes: int = 1, run: int = 1) -> list[int]:
        """Waits until all are ready; returns the process ids in the order of their places."""
        self.wait_for("worker.ready", processes, run=run)
        ready = {line["process"]: line["pid"] for line in self.events("worker.ready", run=run)}
        return [ready[place] for place in sorted(ready)]

    def pids(self) -> list[int]:
        """All children that were ready at some time."""
        return [line["pid"] for line in self.events("worker.ready")]

    def wait_held(self, count: int = 1) -> list[int]:
        """Waits until so many children run a command that holds; returns their process ids."""
        poll(lambda: len(list(self.folder.glob("held-*"))) >= count, "the command runs")
        return [int(path.name.partition("-")[2]) for path in self.folder.glob("held-*")]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def url(self) -> str:
        """Where its pages are."""
        with self._grown:
            assert self._grown.wait_for(lambda: "metrics at " in self.text, PATIENCE), self.text
        found = re.search(r"metrics at (\S+)/metrics", self.text)
        assert found is not None
        return found[1]

    def page(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        request = urllib.request.Request(f"{self.url()}{path}", headers={"accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> dict[str, float]:
        """All samples of its metrics, by name and labels."""
        status, text = self.page("/metrics")
        assert status == 200, text
        found = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {series: float(number) for series, _, number in found}


def write_app(folder: Path, body: str, name: str = "app") -> None:
    """Writes a module that a worker can be told to run."""
    (folder / f"{name}.py").write_text(PRELUDE + body, "utf-8")
