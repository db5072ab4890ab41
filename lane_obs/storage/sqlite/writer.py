"""The thread that writes. All changes that arrive during a commit share the next one."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from lane_obs.storage.sqlite.batch import fail
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.inspection import Inspection
from lane_obs.storage.sqlite.store import Store

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from lane_obs.clock import Clock
    from lane_obs.storage.sqlite.batch import Batch, Job, Settings

_MOST_BATCHES: Final = 4_096
"""Batches in one transaction: more would keep the first of them waiting for too long."""
_NEVER: Final = 2**62
_BREAK_SECONDS: Final = 0.0002
_GATHER_SHARE: Final = 0.5
_GATHER_SECONDS: Final = 0.005
_WEIGHT: Final = 0.2


class Writer:
    """Runs a `Store` in a thread of its own, and tells the event loop once for each commit.

    The first batch wakes the thread. When the commit before held several submits, whoever made them is likely to come
    again: it waits for as many for up to half the time that a commit takes, so that they do not need two.

    Args:
        settings: how the folder is used.
        clock: real time.
        loop: the event loop on which results are told.
        on_state: called there when the storage fails, and when it works again.
        on_evicted: called there with ids of letters that gave way.

    Attributes:
        store: what it runs.
        pending: batches that wait or are being written.
        expected: submits that are likely to come soon, as the last commit held so many.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        loop: asyncio.AbstractEventLoop,
        on_state: Callable[[], object],
        on_evicted: Callable[[list[str]], object],
    ) -> None:
        self.store = (Inspection if settings.read_only else Store)(settings, clock)
        self._clock = clock
        self._loop = loop
        self._on_state = on_state
        self._on_evicted = on_evicted
        self._mutex = threading.Lock()
        self._sleep = threading.Lock()
        """Held by the thread; it sleeps in taking it once more. Cheaper than a condition, at each commit."""
        self._sleep.acquire()
        self._batches: deque[Batch] = deque()
        self._jobs: deque[Job] = deque()
        self._ending = False
        self._submits = 0
        """How many of them are submits that are waited for."""
        self._wake_at = _NEVER
        """How many of these wake the thread; 0: any batch does."""
        self._in_hand = 0
        self.expected = 0
        self._typical = 0.0
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="lane-obs-storage", daemon=True)

    @property
    def pending(self) -> int:
        """Batches that wait or are being written."""
        return len(self._batches) + self._in_hand

    # --- any thread ---------------------------------------------------------------------------------------------

    def start(self) -> asyncio.Future[None]:
        """Starts the thread, which opens the database; the future tells how that went."""
        self._thread.start()
        return self._opened

    def put(self, batch: Batch) -> None:
        """Has a batch written."""
        with self._mutex:
            self._batches.append(batch)
            self._submits += batch.is_submit
            if self._submits >= self._wake_at:
                self._wake()

    def ask(self, job: Job) -> None:
        """Has something read, after all that was put before."""
        with self._mutex:
            self._jobs.append(job)
            self._wake()

    def stop(self) -> asyncio.Future[None]:
        """Has the thread write what waits, close the database and end; the future tells how that went."""
        with self._mutex:
            self._ending = True
            self._wake()
        return self._closed

    def _wake(self) -> None:
        """Under the mutex: wakes the thread if it sleeps."""
        if self._wake_at != _NEVER:
            self._wake_at = _NEVER
            self._sleep.release()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the thread to end."""
        self._thread.join(timeout)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.store.open()
        except Exception as error:
            self._tell(fail, self._opened, error)
            self._tell(self._closed.set_result, None)
            return
        self._tell(_succeed, self._opened)
        while self._turn():
            pass
        try:
            self.store.close()
        except Exception as error:
            self._tell(fail, self._closed, error)
        else:
            self._tell(_succeed, self._closed)

    def _turn(self) -> bool:
        """One round: takes what waits and does it. False when it is to end and nothing waits any more."""
        batches, jobs, ending = self._take()
        failed = self.store.error is not None
        try:
            self._work(batches, jobs)
        except Exception as error:  # a fault of ours must neither end the thread nor leave anybody waiting
            items: tuple[Batch | Job, ...] = (*batches, *jobs)
            for item in items:
                item.error = item.error or translate(error, self.store.folder)
        self._in_hand = 0
        self._tell_state(failed=failed)
        if evicted := self.store.take_evicted():
            self._tell(self._on_evicted, evicted)
        if batches or jobs:
            self._tell(_settle, (*batches, *jobs))
        return bool(batches or jobs) or not ending

    def _work(self, batches: Sequence[Batch], jobs: Sequence[Job]) -> None:
        if self.store.seconds_to_retry() == 0:
            self.store.retry()
        if batches:
            began = self._clock.now()
            self.store.write(batches)
            self._typical += _WEIGHT * (self._clock.now() - began - self._typical)
        for job in jobs:
            self.store.answer(job)

    def _take(self) -> tuple[list[Batch], list[Job], bool]:
        # Whoever was just told needs the interpreter; what is left to do for the last commit can wait for that, but
        # not for longer than until the next.
        busy = self._wait_for(0, _BREAK_SECONDS)
        self._upkeep(busy=busy)
        if not busy:
            self._wait_for(0, self.store.seconds_to_retry())
        if self.expected > 1 and self._batches:
            self._wait_for(self.expected, min(self._typical * _GATHER_SHARE, _GATHER_SECONDS))
        with self._mutex:
            batches = [self._batches.popleft() for _ in range(min(len(self._batches), _MOST_BATCHES))]
            jobs, self._jobs = list(self._jobs), deque()
            if batches:
                self._in_hand = len(batches)
                self.expected = sum(batch.is_submit for batch in batches)
                self._submits -= self.expected
            return batches, jobs, self._ending

    def _wait_for(self, submits: int, seconds: float | None) -> bool:
        """Sleeps until so many submits wait, or anything with 0, or there is something else to do.

        Returns:
            Whether that was before the time was over.
        """
        with self._mutex:
            enough = self._submits >= submits if submits else self._batches
            if enough or self._jobs or self._ending:
                return True
            self._wake_at = submits
        if self._sleep.acquire(timeout=-1 if seconds is None else seconds):
            return True
        with self._mutex:
            woken = self._wake_at == _NEVER  # just when the time was over
            self._wake_at = _NEVER
            return woken and self._sleep.acquire()

    def _upkeep(self, *, busy: bool) -> None:
        failed = self.store.error is not None
        self.store.upkeep(busy=busy)
        self._tell_state(failed=failed)

    def _tell_state(self, *, failed: bool) -> None:
        if failed != (self.store.error is not None):
            self._tell(self._on_state)

    def _tell(self, work: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it whoever would be told
            self._loop.call_soon_threadsafe(work, *args)


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle(items: Sequence[Batch | Job]) -> None:
    for item in items:
        item.settle()
