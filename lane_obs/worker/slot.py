"""One place for a process: starts it, listens to it, and starts another when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from lane_obs.config import RetryPolicy
from lane_obs.core.retry import delay_before_retry
from lane_obs.worker import event
from lane_obs.worker.channel import LastWords, Left, Line, Ready, Refused

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Sequence

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock, Timer
    from lane_obs.worker.channel import Message

RESTARTS: Final = RetryPolicy(initial_delay=1.0, max_delay=30.0)
"""How long after its death a process is followed by another."""
STEADY_SECONDS: Final = 60.0
"""A process that was ready for so long has run well: the next back-off begins anew."""
KILL_SECONDS: Final = 15.0
"""How long after the time for its drain a process is killed: it closes meanwhile, which may take some seconds."""

_LAST_SECONDS: Final = 1.0


class SlotState(StrEnum):
    """What the process of a slot does."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    """It was told to end."""
    WAITING = "waiting"
    """There is none; one is started after the back-off."""
    ENDED = "ended"
    """There is none, and there will be none."""


class Slot:
    """Keeps one process running.

    Args:
        name: what the process is called, whichever it is.
        command: makes the process's command line of the descriptor of its channel.
        clock, bus: of the supervisor.
        on_last_words: is told the metrics of a process that closes its queue, with the slot's name and run.
        on_refused: is told why no process can ever start here.
        restarts: how long after its death a process is followed by another.

    Attributes:
        name: as given.
        state: what its process does.
        run: number of its process, from 1; 0 before the first.
        pid: its process; 0 for none.
        url: where that serves its pages; `None` where it does not.
        restarted: how many processes followed another, by why: `died` or `rolled`.
        failed: whether its last process, which was told to end, did not do so well.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        clock: Clock,
        bus: Bus,
        *,
        on_last_words: Callable[[str, int, str], object],
        on_refused: Callable[[str], object],
        restarts: RetryPolicy = RESTARTS,
    ) -> None:
        self.name = name
        self.state = SlotState.STARTING
        self.run = self.pid = 0
        self.url: str | None = None
        self.restarted = {"died": 0, "rolled": 0}
        self.failed = False
        self._command, self._clock, self._bus = command, clock, bus
        self._on_last_words, self._on_refused = on_last_words, on_refused
        self._restarts = restarts
        self._process: Process | None = None
        self._line: Line | None = None
        self._killing: Timer | None = None
        self._stopping = self._ever_ready = False
        self._failures = 0
        self._told_left: int | None = None
        self._refusal: Refused | None = None
        self._began = 0.0
        self._ready_at: float | None = None
        self._drain_seconds = 0.0
        self._hurry = asyncio.Event()
        self._turn: asyncio.Future[bool] | None = None

    # --- what the supervisor asks -------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Runs one process after the other, until it is told to stop or none can start."""
        while not self._stopping:
            self.run += 1
            code = await self._run_one()
            pid, self.pid = self.pid, 0
            asked = self.state is SlotState.STOPPING
            if asked or self._stopping:
                self._note_end(pid, code)
            if self._stopping or self._is_hopeless(pid):
                break
            if asked:
                self.restarted["rolled"] += 1
            else:
                await self._wait(self._note_death(pid, code))
        self.state = SlotState.ENDED

    def stop(self) -> None:
        """Tells the process to drain and end; none follows."""
        self._stopping = True
        self._hurry.set()
        self._end_turn(succeeded=False)
        self._end()

    def close_now(self) -> None:
        """Tells the process to give back what it runs and end at once."""
        if self._line is not None:
            self._line.close_now()
        self._kill_after(KILL_SECONDS)

    def kill(self) -> None:
        """Kills the process."""
        if self._process is not None and self._process.returncode is None:
            self._bus.emit(event.WorkerKilled, self.name, self.pid)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def roll(self) -> bool:
        """Replaces the process; tells whether the new one became ready."""
        self._turn = asyncio.get_running_loop().create_future()
        if self.state is SlotState.WAITING:
            self._hurry.set()
        self._end()
        return await self._turn

    # --- one process --------------------------------------------------------------------------------------------

    async def _run_one(self) -> int | None:
        """Runs one process to its end; returns its exit code, `None` when it could not be started."""
        self.state, self._began, self._ready_at = SlotState.STARTING, self._clock.now(), None
        self._told_left = self._refusal = None
        try:
            line = await self._start()
        except OSError as error:
            self._refusal = Refused(f"it cannot be started: {error}", final=False)
            return None
        assert self._process is not None
        listening = asyncio.get_running_loop().create_task(self._listen(line))
        try:
            if self._stopping:
                self._end()
            code = await self._process.wait()
            # What it has said is there; its end of the channel may be held open by what it has started.
            await asyncio.wait([listening], timeout=_LAST_SECONDS)
        finally:
            listening.cancel()
            self._forget(line)
        return code

    async def _start(self) -> Line:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # In a session of its own: Ctrl-C in a terminal goes to the whole group, and to us to pass it on.
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self.pid = self._process.pid
        self._line = Line(*await asyncio.open_connection(sock=ours))
        return self._line

    def _forget(self, line: Line) -> None:
        line.close()
        if self._killing is not None:
            self._killing.cancel()
        self._process = self._line = self._killing = self.url = None

    async def _listen(self, line: Line) -> None:
        async for message in line.messages():
            self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Ready():
                self._is_ready(message)
            case Refused():
                self._refusal = message
            case LastWords():
                self.url = None  # from now on there is nothing to see there
                self._on_last_words(self.name, self.run, message.text)
            case Left():
                self._told_left = message.commands

    def _is_ready(self, message: Ready) -> None:
        self.url, self._drain_seconds = message.url, message.drain_seconds
        self._ready_at, self._ever_ready = self._clock.now(), True
        self._bus.emit(event.WorkerReady, self.name, self.pid, self.run, self._ready_at - self._began)
        if self.state is SlotState.STARTING:
            self.state = SlotState.READY
            self._end_turn(succeeded=True)

    def _end(self) -> None:
        """Tells the process to drain, and kills it should it not be done in time."""
        if self._process is None or self._process.returncode is not None or self.state is SlotState.STOPPING:
            return
        self.state = SlotState.STOPPING
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        self._kill_after((self._drain_seconds if self._ready_at is not None else 0.0) + KILL_SECONDS)

    def _kill_after(self, seconds: float) -> None:
        if self._process is not None:
            if self._killing is not None:
                self._killing.cancel()
            self._killing = self._clock.call_at(self._clock.now() + seconds, self.kill)

    # --- after its end ------------------------------------------------------------------------------------------

    def _note_end(self, pid: int, code: int | None) -> None:
        """Notes the end of a process that was told to end.

        One that was not ready yet had nothing to lose; unless it had to be killed, as one whose loop is blocked.
        """
        self._bus.emit(event.WorkerEnded, self.name, pid, code, self._told_left)
        had_work = self._ready_at is not None or code == -signal.SIGKILL
        self.failed = self._stopping and had_work and code != 0

    def _is_hopeless(self, pid: int) -> bool:
        """Whether no process can start here: this one cannot as it is configured, and none ever could."""
        refusal = self._refusal
        if refusal is None or not refusal.final:
            return False
        self._bus.emit(event.WorkerRefused, self.name, pid, refusal.error)
        if not self._ever_ready:
            self._on_refused(refusal.error)
        return not self._ever_ready

    def _note_death(self, pid: int, code: int | None) -> float:
        """Notes the end of a process that nobody told to end; returns in how many seconds another follows."""
        self._end_turn(succeeded=False)
        ran = 0.0 if self._ready_at is None else self._clock.now() - self._ready_at
        self._failures = 1 if ran >= STEADY_SECONDS else self._failures + 1
        spread = random.random()  # noqa: S311 - keeps processes apart; guards nothing
        delay = delay_before_retry(self._restarts, self._failures, ChildProcessError(), spread)
        error = "" if self._refusal is None else self._refusal.error
        self.restarted["died"] += 1
        self._bus.emit(event.WorkerDied, self.name, pid, code, error, ran, delay)
        return delay

    async def _wait(self, seconds: float) -> None:
        """Waits for the next start, which a stop or a roll brings forward."""
        self.state = SlotState.WAITING
        timer = self._clock.call_at(self._clock.now() + seconds, self._hurry.set)
        try:
            await self._hurry.wait()
        finally:
            timer.cancel()
            self._hurry.clear()

    def _end_turn(self, *, succeeded: bool) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(succeeded)
