"""A program that is sent SIGTERM while it still submits: writes down what became of its commands, as it saw it.

Arguments: the OTLP endpoint, the protocol, a file for log lines, and a file for the rest. It prints a line once work of
every kind has ended; more of it waits, runs and hangs then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest

from lane_obs import (
    CommandCancelled,
    CommandExpired,
    CommandTimeout,
    LaneConfig,
    LaneFullError,
    Logs,
    Metrics,
    Observability,
    QueueManager,
    RetryPolicy,
    ShutdownInProgress,
    Traces,
    UnknownLane,
    current,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs import CommandHandle, LaneEvent

LANES = {
    "steady": LaneConfig(0, 4, max_pending=20),
    "flaky": LaneConfig(0, 4, timeout=0.02, retry=RetryPolicy.fixed(2, 0.002), max_pending=20),
    "small": LaneConfig(0, 1, max_pending=2, overflow="reject"),
    "drop": LaneConfig(0, 1, max_pending=2, overflow="drop_oldest"),
    "again": LaneConfig(0, 1),
    "held": LaneConfig(0, 2),
}
ERRORS: dict[type[BaseException], str] = {
    CommandTimeout: "timeout",
    CommandCancelled: "cancelled",
    CommandExpired: "expired",
}
ROUNDS = 10
DRAIN_SECONDS = 1.0
"""Far more than the work that can end takes."""


class LastWords:
    """The first of the sinks: as it is closed, all the others have everything and still show it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.metrics = ""

    def handle(self, events: Sequence[LaneEvent]) -> None:
        pass

    def close(self) -> None:
        self.metrics = generate_latest(self.registry).decode()


class Program:
    """What it submits, and its own notes of it."""

    def __init__(self, manager: QueueManager) -> None:
        self.manager = manager
        self.handles: list[CommandHandle[Any]] = []
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.requeued = 0

    async def work(self, seconds: float, fails: int) -> None:
        await asyncio.sleep(seconds)
        if current().attempt <= fails:
            raise ConnectionError("refused")

    @contextlib.contextmanager
    def noted(self, lane: str) -> Iterator[None]:
        """Notes a refusal that passes by."""
        try:
            yield
        except LaneFullError:
            self.rejected[lane, "full"] += 1
            raise
        except ShutdownInProgress:
            self.rejected[lane, "shutting_down"] += 1
            raise
        except UnknownLane:
            self.rejected["unknown", "unknown_lane"] += 1
            raise

    async def submit(self, lane: str, seconds: float = 0.001, fails: int = 0, **options: Any) -> CommandHandle[Any]:
        with self.noted(lane):
            handle: CommandHandle[Any] = await self.manager.submit(lane, self.work, seconds, fails, **options)
        self.handles.append(handle)
        return handle

    async def round(self) -> None:
        """Some work of every kind; the lanes with back-pressure make it wait.

        Raises:
            ShutdownInProgress: the signal has come.
        """
        for _ in range(6):
            await self.submit("steady")
        for fails in (0, 1, 2, 3):
            await self.submit("flaky", fails=fails)
        await self.submit("flaky", 5.0)
        await self.submit("steady", deadline=0.0005, delay=0.001)
        (await self.submit("steady", delay=30.0)).cancel()
        waiting = await self.submit("steady")
        waiting.cancel()
        for _ in range(5):
            await self.submit("drop")
        for lane in ("small", "small", "small", "small", "no such lane"):
            with contextlib.suppress(LaneFullError, UnknownLane):
                await self.submit(lane)
        failing = await self.submit("again", fails=1)
        with contextlib.suppress(ConnectionError):
            await failing
        with self.noted("again"):
            self.handles.append(self.manager.dead_letters.requeue(failing.id))
        self.requeued += 1

    async def run(self) -> None:
        """Submits round after round until it is refused."""
        running = [await self.submit("held", 60.0) for _ in range(2)]
        running[0].cancel()
        for _ in range(3):  # one of them runs, two wait; all still there when the time for the drain is over
            await self.submit("held", 60.0)
        try:
            for number in range(sys.maxsize):
                await self.round()
                if number == ROUNDS:
                    print("in the middle", flush=True)
        except ShutdownInProgress:
            await asyncio.Event().wait()  # until `lane_obs.run` has drained and cancels

    def notes(self) -> dict[str, Any]:
        ends = []
        attempts: Counter[str] = Counter()
        for handle in self.handles:
            error = handle.exception()
            outcome = "ok" if error is None else ERRORS.get(type(error), "error")
            ends.append([handle.lane, outcome, handle.id])
            attempts[handle.lane] += handle.attempt
        return {
            "ends": ends,
            "attempts": [[lane, count] for lane, count in attempts.items()],
            "rejected": [[*key, count] for key, count in self.rejected.items()],
            "requeued": self.requeued,
        }


async def main(endpoint: str, protocol: str, log: Path, out: Path) -> None:
    last = LastWords(CollectorRegistry())
    with log.open("wb") as file:
        observe = Observability(
            logs=Logs(file=file),
            metrics=Metrics(registry=last.registry),
            traces=Traces(endpoint=endpoint, protocol=protocol),
            recorder=False,
        )
        manager = QueueManager(LANES, sinks=[last], observe=observe, dead_letters=10_000, drain_timeout=DRAIN_SECONDS)
        program = Program(manager)
        try:
            async with manager:
                await program.run()
        finally:
            dropped = {stats.name: [stats.errors, dict(stats.dropped)] for stats in manager.bus.stats()}
            out.write_text(json.dumps({**program.notes(), "metrics": last.metrics, "sinks": dropped}))


if __name__ == "__main__":
    run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
