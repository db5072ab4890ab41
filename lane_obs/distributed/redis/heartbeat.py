"""The heartbeat: renews a member's lease from a thread of its own, so that a blocked event loop does not lose work."""

from __future__ import annotations

import math
import threading
from random import Random
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.distributed.redis.frame import decode, encode
from lane_obs.distributed.redis.program import load
from lane_obs.distributed.redis.thread_link import ThreadLink
from lane_obs.distributed.redis.view import to_stats
from lane_obs.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.distributed.redis.session import Session
    from lane_obs.distributed.view import BrokerStats

_LONGEST: Final = 5.0
"""Seconds between two beats at most."""
_SPREAD: Final = 0.1
"""Members that wait for the same lease to end come one after another, within so many seconds."""


class Heartbeat:
    """A thread that beats.

    Args:
        url: of the server.
        timeout: seconds that the server may take.
        session: whose lease it renews.
        lease: its length in seconds.
        ttl: milliseconds for which results are kept.
        on_beat: is called in the thread after each beat, with whether the member leads, ids of commands to be
            cancelled, facts in rows, their bodies, and whether the member should ask for what was pushed to it.
        on_forgotten: is called in the thread when the queue does not know the member.

    Attributes:
        stats: the queue as it was at the last beat, where the member leads; else `None`.
        leads: whether it leads.
        renewed_at: when it began the last beat that renewed the lease, by a `SystemClock`.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        session: Session,
        lease: float,
        ttl: int,
        on_beat: Callable[[bool, list[str], list[Any], list[bytes], bool], None],
        on_forgotten: Callable[[], None],
    ) -> None:
        self.stats: BrokerStats | None = None
        self.leads = False
        self.renewed_at = -math.inf
        self._clock = SystemClock()
        self._link = ThreadLink(url, timeout=timeout)
        self._session = session
        self._period = min(lease / 3, _LONGEST)
        self._request = encode({"lease": round(lease * 1000), "ttl": ttl, "leads": True, "sweeps": 50})
        self._sweep = {"ttl": ttl}
        self._on_beat = on_beat
        self._on_forgotten = on_forgotten
        self._rng = Random()  # noqa: S311 - nothing secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lane-obs-heartbeat", daemon=True)
        self._ended: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Begins to beat."""
        self._thread.start()

    def stop(self, ended: Callable[[], object]) -> None:
        """Ends it; `ended` is called in the thread as the last thing it does."""
        self._ended = ended
        self._stop.set()

    def join(self) -> None:
        """Waits for the thread's end."""
        self._thread.join()

    def _run(self) -> None:
        pause = 0.0  # the lease runs since the member joined
        while not self._stop.wait(pause):
            try:
                pause = self._beat()
            except BrokerError:  # the member's own link tells of it
                self.leads, self.stats = False, None
                self._on_beat(False, [], [], [], False)  # noqa: FBT003 - as below
                pause = min(self._period, 1.0)
        self._link.close()
        self._ended()

    def _beat(self) -> float:
        began = self._clock.now()
        answer = self._ask("beat", self._request)
        if type(answer) is int:
            self.leads, self.stats = False, None
            self._on_forgotten()
            return self._period
        self.renewed_at = began
        leads, cancels, orphaned, next_end, rows, pushed = decode(answer[0])
        self.stats = to_stats(self._ask("stats", encode({}))) if leads else None
        self.leads = leads
        self._on_beat(leads, cancels, rows, answer[1:], pushed)
        for member in orphaned:
            self._take_over(member)
        if next_end is False:
            return self._period
        return min(self._period, max(float(next_end), 0.0) + self._rng.uniform(0.01, _SPREAD))

    def _take_over(self, member: str) -> None:
        more = True
        while more and not self._stop.is_set():
            answer = self._ask("sweep", encode({**self._sweep, "member": member}), member)
            if type(answer) is int:
                return
            more, rows = decode(answer[0])
            self._on_beat(self.leads, [], rows, answer[1:], False)  # noqa: FBT003 - likewise

    def _ask(self, name: str, request: bytes, held_by: str | None = None) -> Any:
        program, session = load(name), self._session
        keys = session.keys.of(program.keys, session.code if held_by is None else held_by)
        return self._link.run(program.script, keys, [session.code, session.epoch, request])
