"""How much of a rate limit is left, and when there is enough of it: token buckets and sliding windows.

A limiter is asked and told with the time as an argument. Asking (`due`, `left`) changes nothing that counts, so it does
not matter how often it is done. Amounts are kept as whole trillionths, so sums of costs such as 0.1 are exact.
Times are clock seconds.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_left, bisect_right
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from lane_obs.config import RateLimit

_PARTS: Final = 10**12
_SAME: Final = 1e-9
"""Two times closer than this are one: a clock may round to it, and a float cannot tell them apart for long."""
_MOST_DIPS = 256
_MOST_ENTRIES = 1024
_COMPACT_FLOOR = 64


class TokenBucket:
    """At most `burst + rate * T` in any window of T seconds: a bucket of `burst` tokens that refills at `rate`.

    It keeps the time at which it will be full (the "theoretical arrival time" of the generic cell rate algorithm,
    ITU-T I.371), worked out anew from all that was taken since it was last full: however many takes, one rounding.

    Args:
        rate: tokens a second, above zero.
        burst: how many it holds, above zero; it starts full.
        now: when it is made.
    """

    __slots__ = ("_dips", "_full_at", "_origin", "_taken", "most", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.most = burst
        """The largest cost that one command may have."""
        # The present run: since when the bucket is not full, what was taken since, and when it will be full again.
        self._origin = now
        self._taken = 0
        self._full_at = now
        # For corrections: [time, tokens], increasing. Between the entry before and this one, what was taken in the run
        # less what flowed in was never less than that. Below zero the bucket ran over.
        self._dips: deque[list[float]] = deque()

    def due(self, cost: float, now: float) -> float:
        """The earliest time, `now` or later, at which `cost` may be taken; infinity if it is above `most`."""
        if cost > self.most:
            return math.inf
        when = self._full_at - (self.most - cost) / self.rate
        return when if when - now >= _SAME and cost else now

    def take(self, cost: float, now: float) -> None:
        """Takes `cost`, whether it is due or not."""
        # Idle time below the resolution is none: else each start would drop the rounding of its time.
        parts = _PARTS if cost == 1.0 else round(cost * _PARTS)
        dips = self._dips
        if now - self._full_at >= _SAME:
            self._origin = now
            self._taken = parts
            if dips:
                dips.clear()
            self._full_at = now + parts / _PARTS / self.rate
            return
        if not dips or dips[-1][0] != now:  # the first of an instant has noted it
            self._note(now)
        self._change(parts)

    def try_take(self, cost: float, now: float) -> bool:
        """Takes `cost` if it is due; whether it was."""
        full_at = self._full_at
        if cost > self.most or (full_at - (self.most - cost) / self.rate - now >= _SAME and cost):
            return False
        dips = self._dips
        if now - full_at >= _SAME or not dips or dips[-1][0] != now:
            self.take(cost, now)
            return True
        # Not the first of its instant, which is by far the most frequent: what `take` does, and no call.
        self._taken = taken = self._taken + (_PARTS if cost == 1.0 else round(cost * _PARTS))
        low = dips[0][1]
        self._full_at = self._origin + (taken / _PARTS - (low if low < 0 else 0.0)) / self.rate
        return True

    def settle(self, taken: float, true_cost: float, taken_at: float, now: float) -> None:
        """Corrects a take of `taken` at `taken_at`, as if it had been of `true_cost`.

        What has run over since, because the bucket was full or would have been with the lower cost, is not given
        back. What was missing is taken as well, from the start of the present run out of a full bucket at the earliest.

        Args:
            taken: the cost that was taken.
            true_cost: what it should have been, zero or more.
            taken_at: when it was taken.
            now: the time.
        """
        more = _parts(true_cost) - _parts(taken)
        if taken_at < self._origin:
            if more < 0:
                return
            taken_at = self._origin
        elif taken_at - self._full_at >= _SAME:  # it was for nothing, from a full bucket: now it begins a run
            self._origin, self._taken, self._dips = taken_at, 0, deque()
        dips = self._dips
        first = bisect_right(dips, taken_at, key=itemgetter(0))
        # Of the first entry after the take, a part may be from before it: that is not lifted.
        begun = dips[first - 1][0] if first else self._origin
        for index in range(first if more < 0 or begun == taken_at else first + 1, len(dips)):
            dips[index][1] += more / _PARTS
        while 0 < first < len(dips) and dips[first - 1][1] >= dips[first][1]:
            del dips[first - 1]
            first -= 1
        self._change(more)

    def left(self, now: float) -> float:
        """Tokens inside; below zero while a debt is paid off. From any thread."""
        return self.most - max(0.0, self._full_at - now) * self.rate

    def _change(self, more: int) -> None:
        self._taken += more
        low = self._dips[0][1] if self._dips else 0.0
        self._full_at = self._origin + (self._taken / _PARTS - (low if low < 0 else 0.0)) / self.rate

    def _run_over(self) -> float:
        return min(self._dips[0][1], 0.0) if self._dips else 0.0

    def _note(self, now: float) -> None:
        dips = self._dips
        # It is not full, or only just: it does not run over but for rounding.
        low = max(self._taken / _PARTS - (now - self._origin) * self.rate, self._run_over())
        while dips and dips[-1][1] >= low:
            dips.pop()
        if dips and dips[-1][0] == now:
            return
        dips.append([now, low])
        if len(dips) > _MOST_DIPS:
            # The two oldest become one: the later time and the lower amount hold for both.
            low = dips.popleft()[1]
            dips[0][1] = low


class SlidingWindow:
    """At most `amount` in any window of `seconds`: what was taken leaves exactly `seconds` later.

    A window is half open: what was taken at t no longer counts at t + `seconds`.

    It has an entry for each instant at which something was taken. Beyond the larger of `amount` and 1,024 of them (this
    takes costs below 1), what is taken within that fraction of the window has one entry and leaves with its latest.

    Args:
        amount: tokens in a window, above zero; it starts empty.
        seconds: length of the window, above zero.
        now: when it is made.
    """

    __slots__ = (
        "_amounts", "_answer", "_asked", "_first", "_held", "_joined_at", "_made_at", "_many", "_most_parts", "_times",
        "most", "seconds",
    )  # fmt: skip

    def __init__(self, amount: float, seconds: float, now: float) -> None:
        self.most = amount
        """The largest cost that one command may have."""
        self.seconds = seconds
        self._most_parts = _parts(amount)
        self._made_at = now
        self._many = max(math.ceil(amount), _MOST_ENTRIES)
        # Entries by time; those before `_first` have left.
        self._times: list[float] = []
        self._amounts: list[int] = []
        self._first = 0
        self._held = 0
        self._joined_at = now
        self._asked = -1.0
        self._answer = now

    def due(self, cost: float, now: float) -> float:
        """The earliest time, `now` or later, at which `cost` may be taken; infinity if it is above `most`."""
        if cost > self.most:
            return math.inf
        self._let_go(now)
        over = self._held + _parts(cost) - self._most_parts
        if over <= 0 or not cost:
            return now
        if cost != self._asked:
            index = self._first - 1
            while over > 0:
                index += 1
                over -= self._amounts[index]
            self._asked, self._answer = cost, self._times[index] + self.seconds
        return self._answer

    def take(self, cost: float, now: float) -> None:
        """Takes `cost`, whether it is due or not."""
        self._let_go(now)
        self._take(_parts(cost), now)

    def try_take(self, cost: float, now: float) -> bool:
        """Takes `cost` if it is due; whether it was."""
        times, first = self._times, self._first
        if first < len(times) and times[first] + self.seconds - now < _SAME:
            self._let_go(now)
            first = self._first
        parts = _PARTS if cost == 1.0 else round(cost * _PARTS)
        held = self._held + parts
        if cost > self.most or (held > self._most_parts and cost):
            return False
        if first < len(times) and times[-1] == now:  # not the first of its instant: what `_take` does, and no call
            self._amounts[-1] += parts
            self._held = held
            self._asked = -1.0
        else:
            self._take(parts, now)
        return True

    def _take(self, parts: int, now: float) -> None:
        times = self._times
        if self._first < len(times) and (times[-1] == now or self._is_crowded(now)):
            times[-1] = now
            self._amounts[-1] += parts
        else:
            times.append(now)
            self._amounts.append(parts)
            self._joined_at = now
        self._held += parts
        self._asked = -1.0

    def _is_crowded(self, now: float) -> bool:
        crowded = len(self._times) - self._first >= self._many
        return crowded and now - self._joined_at < self.seconds / self._many

    def settle(self, taken: float, true_cost: float, taken_at: float, now: float) -> None:
        """Corrects a take of `taken` at `taken_at`, as if it had been of `true_cost`; no matter once that has left.

        Args:
            taken: the cost that was taken.
            true_cost: what it should have been, zero or more.
            taken_at: when it was taken.
            now: the time.
        """
        self._let_go(now)
        # An entry that stands for several takes has the time of the latest.
        index, times = bisect_left(self._times, taken_at, self._first), self._times
        if taken_at < self._made_at or taken_at + self.seconds - now < _SAME:
            return
        if not taken and taken_at not in times[index : index + 1]:  # what was for nothing has no entry yet
            times.insert(index, taken_at)
            self._amounts.insert(index, 0)
        if index < len(times):
            self._change(index, _parts(true_cost) - _parts(taken))

    def left(self, now: float) -> float:
        """Tokens that may be taken now; below zero where true costs were above what was taken. From any thread."""
        times, amounts, held, index = self._times, self._amounts, self._held, self._first
        with contextlib.suppress(IndexError):  # the queue's thread lets some go meanwhile; here none are
            while index < len(times) and times[index] + self.seconds - now < _SAME:
                held -= amounts[index]
                index += 1
        return self.most - held / _PARTS

    def _change(self, index: int, more: int) -> None:
        self._amounts[index] += more
        self._held += more
        self._asked = -1.0

    def _let_go(self, now: float) -> None:
        times, first = self._times, self._first
        while first < len(times) and times[first] + self.seconds - now < _SAME:
            self._held -= self._amounts[first]
            first += 1
        if first > _COMPACT_FLOOR and first * 2 > len(times):
            del times[:first], self._amounts[:first]
            first = 0
        self._first = first


Limiter: TypeAlias = TokenBucket | SlidingWindow


def make_limiter(limit: RateLimit, now: float) -> Limiter:
    """A limiter that has not limited anything yet; whoever shares a limit asks for one limiter only.

    Args:
        limit: what it allows.
        now: when it is made.
    """
    if limit.burst is None:
        return SlidingWindow(limit.amount, limit.seconds, now)
    return TokenBucket(limit.amount / limit.seconds, limit.burst, now)


def _parts(cost: float) -> int:
    return round(cost * _PARTS)
