"""Keeps several processes running, and ends and replaces them when it is told to."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from lane_obs.runtime.run import told_to_reload, told_to_stop
from lane_obs.worker import event
from lane_obs.worker.slot import RESTARTS, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock
    from lane_obs.config import RetryPolicy

ALL_DONE: Final = 0
"""Exit code: all processes ended as they were told to, with nothing left."""
SOME_LEFT: Final = 1
"""Exit code: some had to leave commands, or had to be killed."""
REFUSED: Final = 2
"""Exit code: the app cannot start as it is configured."""

_HOW: Final = ("drain", "close", "kill")


class Supervisor:
    """Runs processes of one app until it is told to stop.

    The first SIGTERM or SIGINT drains them, the second makes them give back what they run and end at once, the third
    kills them. SIGHUP replaces them, one after the other. One that dies is followed by another after a back-off. One
    that cannot start as it is configured ends everything, unless one in its place had started before.

    Args:
        processes: how many, 1 or more.
        arguments: what goes after `python -m lane_obs worker` on each child's command line.
        clock: real time.
        bus: what happens is told there.
        on_last_words: is told the metrics of a process that closes its queue: its name, its run, and the text.
        restarts: how long after its death a process is followed by another.

    Attributes:
        slots: one for each process.
        refusal: why the app cannot start; `None` while it can.
    """

    def __init__(
        self,
        processes: int,
        arguments: Sequence[str],
        clock: Clock,
        bus: Bus,
        *,
        on_last_words: Callable[[str, int, str], object],
        restarts: RetryPolicy = RESTARTS,
    ) -> None:
        def command(descriptor: int) -> list[str]:
            return [sys.executable, "-m", "lane_obs", "worker", *arguments, "--channel", str(descriptor)]

        self.refusal: str | None = None
        self.slots = [
            Slot(
                str(number), command, clock, bus,
                on_last_words=on_last_words, on_refused=self._refuse, restarts=restarts,
            )
            for number in range(processes)
        ]  # fmt: skip
        self._bus = bus
        self._told = 0
        self._rolling: asyncio.Task[None] | None = None
        self._roll_again = False

    async def run(self) -> int:
        """Runs until all processes have ended; returns the exit code."""
        with told_to_stop(lambda _: self.stop()), told_to_reload(self.roll):
            async with asyncio.TaskGroup() as group:
                for slot in self.slots:
                    group.create_task(slot.keep())
            if self._rolling is not None:
                await self._rolling
        code = self._code()
        self._bus.emit(event.WorkersStopped, code)
        return code

    def _code(self) -> int:
        if self.refusal is not None:
            return REFUSED
        return SOME_LEFT if any(slot.failed for slot in self.slots) else ALL_DONE

    def stop(self) -> None:
        """Drains; called again it closes, then kills."""
        how = _HOW[min(self._told, len(_HOW) - 1)]
        self._told += 1
        self._bus.emit(event.WorkersStopping, how)
        for slot in self.slots:
            if how == "drain":
                slot.stop()
            elif how == "close":
                slot.close_now()
            else:
                slot.kill()

    def _refuse(self, error: str) -> None:
        if self.refusal is None:
            self.refusal = error
            self.stop()

    def roll(self) -> None:
        """Replaces the processes; while that is under way already, once more afterwards."""
        if self._told:
            return
        if self._rolling is not None and not self._rolling.done():
            self._roll_again = True
        else:
            self._rolling = asyncio.get_running_loop().create_task(self._roll())

    async def _roll(self) -> None:
        again = True
        while again and not self._told:
            self._roll_again = False
            self._bus.emit(event.WorkersRolling, len(self.slots))
            for slot in self.slots:
                if not await slot.roll():
                    if not self._told:
                        self._bus.emit(event.RollStopped, slot.name)
                    return
            self._bus.emit(event.WorkersRolled, len(self.slots))
            again = self._roll_again
