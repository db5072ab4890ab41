"""Starts workers and producers, does harm to them, and writes down when."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lane_obs.distributed import RedisBroker
from tests.integration.faults import ledger, program
from tests.integration.services.process import poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from lane_obs.distributed.view import BrokerStats
    from tests.integration.faults.ledger import Line

_nursery = multiprocessing.get_context("forkserver")
_nursery.set_forkserver_preload([f"tests.integration.faults.{name}" for name in ("program", "ordered", "soak")])
PATIENCE = 25.0
LEASE = 2.0
TTL = 30.0
REST = 2.5
"""Seconds after which a link has tried to come back."""


class Process:
    """A worker or a producer, forked from a process that has all modules loaded.

    Attributes:
        who: its name in the ledger.
        role: what it is.
    """

    def __init__(self, main: Callable[[dict[str, Any]], None], order: dict[str, Any]) -> None:
        self.who: str = order["who"]
        self.role: str = order["role"]
        self._errors = Path(order["errors"])
        self._process = _nursery.Process(target=main, args=(order,), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def text(self) -> str:
        """What it wrote to its standard error."""
        return self._errors.read_text(errors="replace")[-12000:] if self._errors.exists() else ""

    @property
    def lives(self) -> bool:
        return self._process.exitcode is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, seconds: float = PATIENCE) -> int:
        """Waits for its end; returns its code."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self.signal(signal.SIGUSR2)  # it writes down what it waits for
            self._process.join(1)
            self.reap()
        assert code is not None, f"{self.who} did not end within {seconds} s: {self.text}"
        return code

    def reap(self) -> None:
        """Makes sure that it is gone."""
        if self.lives:
            self._process.kill()
        self._process.join()


class Slack:
    """How late this machine is at worst: a thread that sleeps, and looks how long it was."""

    NAP = 0.005

    def __init__(self) -> None:
        self.worst = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slack", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(self.NAP):
            now = time.monotonic()
            self.worst = max(self.worst, now - before - self.NAP)
            before = now


class Field:
    """The processes of one test around one server. Use it as a context manager.

    Args:
        url: where they find the server.
        folder: for the ledger and what they write.
        seed: of what they do.
        direct_url: where the driver finds it; the same by default.
        timeout: how long the server may take to answer them.
    """

    def __init__(self, url: str, folder: Path, seed: int, *, direct_url: str = "", timeout: float = 1.0) -> None:
        self.url = url
        self.direct_url = direct_url or url
        self.folder = folder
        self.path = folder / "ledger"
        self.seed = seed
        self.timeout = timeout
        self.lease = LEASE
        self.processes: list[Process] = []
        self._ledger = ledger.Ledger(self.path, "driver")
        self._mended_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.reap()
        self._ledger.close()

    def start(
        self, role: str, *, wait: bool = True, main: Callable[[dict[str, Any]], None] = program.main, **order: Any
    ) -> Process:
        """Starts a process."""
        number = len(self.processes)
        order = {
            "role": role, "who": f"{role}-{number}", "url": self.url, "ledger": str(self.path),
            "lease": self.lease, "errors": str(self.folder / f"{role}-{number}.errors"), "ttl": TTL,
            "seed": self.seed * 1000 + number, "timeout": self.timeout, **order,
        }  # fmt: skip
        process = Process(main, order)
        self.processes.append(process)
        if wait:
            self.wait_up([process])
        return process

    def start_all(self, workers: int, producers: int, count: int, **order: Any) -> None:
        """Starts several, at the same time."""
        started = [self.start("worker", wait=False, **order) for _ in range(workers)]
        started += [self.start("producer", wait=False, count=count, **order) for _ in range(producers)]
        self.wait_up(started)

    def wait_up(self, processes: Sequence[Process]) -> None:
        """Returns once they take part."""
        names = {process.who for process in processes}
        self.wait_for(lambda lines: names <= {line["who"] for line in lines if line["what"] == "up"} or None, "all up")

    def live(self, role: str) -> list[Process]:
        return [process for process in self.processes if process.role == role and process.lives]

    # --- harm ---------------------------------------------------------------------------------------------------

    def fault(self, kind: str, who: str = "") -> None:
        """Writes down that something is about to be done."""
        self._ledger.note("fault", kind=kind, whom=who)

    def mend(self, kind: str, who: str = "") -> None:
        """Writes down that it is over."""
        self._ledger.note("mend", kind=kind, whom=who)
        self._mended_at = time.monotonic()

    def kill(self, process: Process) -> None:
        self.fault("kill", process.who)
        process.signal(signal.SIGKILL)
        process.end()

    def freeze(self, process: Process) -> None:
        self.fault("freeze", process.who)
        process.signal(signal.SIGSTOP)

    def thaw(self, process: Process) -> None:
        process.signal(signal.SIGCONT)
        self.mend("freeze", process.who)

    # --- the end ------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        return ledger.read(self.path)

    def wait_for(self, check: Any, what: str, seconds: float = PATIENCE) -> Any:
        """Waits until the lines of the ledger satisfy a check; returns what it says."""
        return poll(lambda: check(self.lines()), seconds, lambda: f"{what}: {self.troubles()}")

    def stop_producers(self) -> None:
        """Has them submit nothing more."""
        self.wait_up([process for process in self.processes if process.lives])
        for process in self.live("producer"):
            process.signal(signal.SIGTERM)

    def finish(self) -> None:
        """Waits for the producers, then until nothing lives any more, and ends the workers in order."""
        for process in self.processes:
            if process.role != "worker" and process.lives:
                assert process.end() == 0, self.troubles()
        poll(lambda: self.is_idle() or None, PATIENCE, lambda: f"an idle queue: {self.stats()} {self.troubles()}")
        # A worker whose link just broke comes back in time; one that cannot say good-bye stays until its lease ends.
        time.sleep(max(0.0, self._mended_at + REST - time.monotonic()))
        count = len(self.live("worker"))
        poll(lambda: len(self.stats().members) <= count or None, PATIENCE, lambda: f"dead members gone: {self.stats()}")
        self.final = self.stats()
        for process in self.live("worker"):
            process.signal(signal.SIGTERM)
        for process in self.processes:
            code = process.end()
            assert code in {0, -signal.SIGKILL}, f"{process.who} ended with {code}: {process.text}"

    def is_idle(self) -> bool:
        lanes = self.stats().lanes.values()
        return not any(lane.ready or lane.delayed or lane.backoff or lane.running for lane in lanes)

    def stats(self) -> BrokerStats:
        """How the queue is."""

        async def ask() -> BrokerStats:
            broker = RedisBroker(self.direct_url, timeout=5)
            await broker.open({}, None, (), letters=1, work=False, listener=Deaf())
            try:
                return await broker.stats()
            finally:
                await broker.close()

        return asyncio.run(ask())

    def troubles(self) -> str:
        """What the processes wrote to their standard error."""
        texts = {process.who: process.text for process in self.processes}
        return "\n".join(f"{who}: {text}" for who, text in texts.items() if text)


class Deaf:
    """A listener that does not listen."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: None
