"""Time. The only module that reads a real clock or asks the event loop for a timer.

Everything else takes a `Clock`, so the whole scheduler runs the same under real, scaled and virtual time.
Two readings exist: `now()` is monotonic seconds, used for every duration and due time; `wall()` is Unix time,
used only to stamp events, so a step of the system clock never moves a timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from lane_obs.errors import ClockDeadlock, ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

NS: Final = 1_000_000_000
"""Nanoseconds in a second."""
LAST_SECOND: Final = 253_402_300_799
"""The last second of the year 9999, in Unix seconds: Python knows no later one."""
_LARGEST: Final = 10**12
_COMPACT_FLOOR = 64
# A future's callback, the task it wakes, and a callback that task schedules are three hops through the loop's
# ready queue, of which only the task shows. Fewer quiet passes were seen to report a false deadlock.
_QUIET_PASSES = 3


class Timer(Protocol):
    """A callback that was scheduled with `Clock.call_at`."""

    def cancel(self) -> None:
        """Makes sure that the callback never runs. Cancelling twice, or after it ran, does nothing."""


class Clock(Protocol):
    """What the library needs of time."""

    def now(self) -> float:
        """Monotonic time in seconds, from an arbitrary zero."""
        ...

    def wall(self) -> float:
        """Unix time in seconds (UTC)."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls `callback(*args)` in the running event loop once `now() >= when`, never earlier."""
        ...


class SystemClock:
    """Real time, or real time run faster.

    Args:
        speed: how many seconds pass on this clock in one real second, 1e-6 to 1,000,000. A replay at `speed=60`
            shows an hour in a minute.

    Raises:
        ConfigError: `speed` is out of range.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = _to_number("speed", speed, 1e-6, 1_000_000)
        if speed == 1:
            # Bound straight to the C functions: they are read several times for each command.
            self.now = time.monotonic  # type: ignore[method-assign]
            self.wall = time.time  # type: ignore[method-assign]
        self._origin = time.monotonic()
        self._wall_origin = time.time()

    def now(self) -> float:
        """Monotonic seconds on this clock."""
        return self._origin + (time.monotonic() - self._origin) * self._speed

    def wall(self) -> float:
        """Unix seconds, run forward at this clock's speed from its creation."""
        return self._wall_origin + (self.now() - self._origin)

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls `callback(*args)` in the running loop once `now() >= when`."""
        return _SystemTimer(self, self._speed, when, callback, args)


class _SystemTimer:
    """Fires when its clock says so: uvloop's timers count whole milliseconds and may be early (uvloop#739)."""

    __slots__ = ("_args", "_callback", "_clock", "_handle", "_loop", "_speed", "_when")

    def __init__(
        self, clock: Clock, speed: float, when: float, callback: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        self._clock = clock
        self._speed = speed
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = asyncio.get_running_loop()
        self._arm()

    def _arm(self) -> None:
        left_ms = (self._when - self._clock.now()) / self._speed * 1000
        # A day at most: libuv and epoll take their time-out as an int of milliseconds.
        delay = 0.0 if left_ms <= 0 else math.ceil(min(left_ms, 86_400_000)) / 1000
        self._handle: asyncio.Handle = self._loop.call_later(delay, self._fire)

    def _fire(self) -> None:
        if self._clock.now() < self._when:
            self._arm()
        else:
            self._callback(*self._args)

    def cancel(self) -> None:
        self._handle.cancel()


class VirtualClock:
    """Time that moves only when it is told to, in whole nanoseconds, so that equal times are equal.

    Drive it from the task that tests: `await clock.advance(5)` or `await clock.run(handle)`. Between two
    timers everything that can run does run. It cannot see threads or sockets: work that waits for those would
    be passed by, so use real time for it.

    Args:
        start: first reading of `now()` in seconds. The default is far from zero and from real readings, so
            mixing clocks fails fast.
        wall_start: first reading of `wall()`, Unix seconds. Both are at most 1e12 from zero.
    """

    def __init__(self, start: float = 1_000_000.0, wall_start: float = 1_767_225_600.0) -> None:
        self._start_ns = self._now_ns = round(_to_number("start", start, -_LARGEST, _LARGEST) * NS)
        self._reading = self._now_ns / NS
        self._readings = 0
        self._wall_start_ns = round(_to_number("wall_start", wall_start, -_LARGEST, _LARGEST) * NS)
        self._timers: list[tuple[int, int, _VirtualTimer]] = []
        self._sequence = 0
        self._cancelled = 0

    def now(self) -> float:
        """Virtual monotonic seconds."""
        self._readings += 1
        return self._reading

    def wall(self) -> float:
        """Virtual Unix seconds; moves with `now()`."""
        return (self._wall_start_ns + self._now_ns - self._start_ns) / NS

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls `callback(*args)` when virtual time reaches `when`, rounded to a nanosecond."""
        timer = _VirtualTimer(self, when, callback, args)
        if when == math.inf:
            return timer
        due = max(round(when * NS), self._now_ns)
        self._sequence += 1
        timer.armed = True
        heappush(self._timers, (due, self._sequence, timer))
        return timer

    @property
    def pending(self) -> int:
        """How many timers are scheduled and not cancelled."""
        return len(self._timers) - self._cancelled

    async def advance(self, seconds: float) -> None:
        """Moves time forward by `seconds` (zero or more), firing each timer at its own time.

        Raises:
            ConfigError: `seconds` is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ConfigError("seconds", seconds, "virtual time moves forward by a finite amount")
        end = self._now_ns + round(seconds * NS)
        await self._settle()
        while self._due_ns() <= end:
            self._fire_next()
            await self._settle()
        self._move_to(end)

    async def run(self, awaitable: Awaitable[T]) -> T:
        """Moves time from timer to timer until `awaitable` is done, and returns what it gives.

        Raises:
            ClockDeadlock: nothing can run and no timer is due, so it would wait for ever.
        """
        future = asyncio.ensure_future(awaitable)
        try:
            while not future.done():
                await self._settle(until=future)
                if not future.done():
                    self._fire_next()
        finally:
            if not future.done():
                future.cancel()
        return await future

    def _move_to(self, now_ns: int) -> None:
        self._now_ns = max(self._now_ns, now_ns)
        self._reading = max(self._reading, self._now_ns / NS)

    def _due_ns(self) -> float:
        while self._timers and not self._timers[0][2].armed:
            heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0][0] if self._timers else math.inf

    def _fire_next(self) -> None:
        """Jumps to the next due time and fires everything due then, in the order it was scheduled.

        Raises:
            ClockDeadlock: no timer is left.
        """
        due = self._due_ns()
        if due == math.inf:
            raise ClockDeadlock(f"at {self.now()} s everything waits and no timer is due")
        self._move_to(int(due))
        while self._due_ns() <= due:
            timer = heappop(self._timers)[2]
            timer.armed = False
            # `when` may lie a float's last digit above its nanosecond; whoever asked must not find it in the future.
            self._reading = max(self._reading, timer.when)
            timer.callback(*timer.args)

    async def _settle(self, until: asyncio.Future[Any] | None = None) -> None:
        """Lets everything that can run do so, up to the point where it waits (or until `until` is done)."""
        quiet = 0
        while quiet < _QUIET_PASSES and not (until is not None and until.done()):
            before = self._readings
            await asyncio.sleep(0)
            # Callbacks are not seen as tasks are, but whoever reads the clock is at work.
            quiet = quiet + 1 if self._readings == before and _all_tasks_wait() else 0

    def _forget(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_FLOOR and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].armed]
            heapify(self._timers)
            self._cancelled = 0


class _VirtualTimer:
    __slots__ = ("_clock", "args", "armed", "callback", "when")

    def __init__(
        self, clock: VirtualClock, when: float, callback: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        self._clock = clock
        self.when = when
        self.callback = callback
        self.args = args
        self.armed = False

    def cancel(self) -> None:
        if self.armed:
            self.armed = False
            self._clock._forget()  # noqa: SLF001 - the two are one thing in two classes


def _all_tasks_wait() -> bool:
    """Tells whether every other task waits on an unfinished future.

    It reads the private `_fut_waiter`, as anyio's `wait_all_tasks_blocked` does; a test pins it for each
    Python version.
    """
    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        waiter = getattr(task, "_fut_waiter", None)
        if task is not current and (waiter is None or waiter.done()):
            return False
    return True


def _to_number(field: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(field, value, f"give a number from {least:,} to {most:,}")
    return float(value)


async def sleep_until(clock: Clock, when: float) -> None:
    """Returns once `clock.now() >= when`; at least one other turn of the loop passes."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(when, _wake, future)
    try:
        await future
    finally:
        timer.cancel()


async def sleep(clock: Clock, seconds: float) -> None:
    """Returns after `seconds` on `clock`."""
    await sleep_until(clock, clock.now() + seconds)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
