"""Between the monitor and one notifier: alerts wait in a bounded line, are tried with a time-out, and are counted."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.config import (
    Duration,
    RetryPolicy,
    check_clock,
    check_methods,
    check_name,
    to_count,
    to_seconds,
    to_seed,
)
from lane_obs.core.retry import delay_before_retry, may_retry
from lane_obs.errors import NotificationError, NotificationRefused, error_text
from lane_obs.monitor.alert import AlertState
from lane_obs.monitor.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock
    from lane_obs.monitor.alert import Alert, Notifier

_BATCH: Final = 64
# A try that is told to end has this long to do so.
_GRACE: Final = 1.0
_TOLD: Final = (AlertState.FIRING, AlertState.RESOLVED)
_logger = logging.getLogger("lane_obs.monitor")


class Delivery:
    """Tells one notifier of alerts, in the background. Nobody waits for it, and what it loses it counts.

    Alerts wait in a line. Of one that waits already, the newest state takes the older one's place; but `firing` is not
    replaced by `resolved` unless the notifier was told that the alert fires: both are told then, one after the other.
    When too many wait, the oldest is dropped. All of it belongs to the event loop's thread.

    A notifier may have, besides `name` and `refresh_seconds`, a `batch_size` (the most alerts a call; default 64) and
    a `timeout` (in place of the one here).

    Args:
        notifier: who is told.
        clock: measures time-outs and delays.
        bus: gets an event for each outcome.
        capacity: how many alerts may wait, 1 or more.
        attempts: how often a batch is tried, 1 or more.
        timeout: limit on one try.
        first_delay, max_delay: the delay before try n + 1 is random between zero and `first_delay * 2 ** (n - 1)`, at
            most `max_delay`. A `RetryAfter` that the notifier raises sets it, within `max_delay`.
        seed: makes the delays the same each time.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        bus: Bus,
        *,
        capacity: int = 1_000,
        attempts: int = 5,
        timeout: Duration = 10.0,
        first_delay: Duration = 1.0,
        max_delay: Duration = 60.0,
        seed: int | None = None,
    ) -> None:
        check_methods("notifier", notifier, ("notify", "close"), "give an object with notify(alerts) and close()")
        check_clock(clock)
        check_methods("bus", bus, ("emit",), "give the Bus of a queue")
        self._notifier = notifier
        self._clock = clock
        self._bus = bus
        self.name = check_name("name", getattr(notifier, "name", None) or type(notifier).__name__)
        """What events and metrics call the notifier."""
        self._batch_size = to_count("batch_size", getattr(notifier, "batch_size", _BATCH), minimum=1)
        self._timeout = to_seconds("timeout", getattr(notifier, "timeout", timeout))
        refresh = getattr(notifier, "refresh_seconds", None)
        self.refresh_seconds = None if refresh is None else to_seconds("refresh_seconds", refresh)
        """How often it wants to be told of all that fires again; `None` for never."""
        self._max_delay = to_seconds("max_delay", max_delay, zero=True)
        self._policy = RetryPolicy(
            to_count("attempts", attempts, minimum=1) - 1,
            to_seconds("first_delay", first_delay, zero=True),
            self._max_delay,
            retry_on=(Exception, asyncio.CancelledError),
            give_up_on=(NotificationRefused,),
        )
        self._rng = random.Random(to_seed("seed", seed))  # noqa: S311 - jitter, not a secret
        self._waiting = Waiting(to_count("capacity", capacity, minimum=1))
        self._flight: tuple[Alert, ...] = ()
        self._outcomes = dict.fromkeys(("offered", "sent", "retried", "failed", "dropped"), 0)
        self._task: asyncio.Task[None] | None = None
        self._try_task: asyncio.Task[BaseException | None] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._closing = self._over = self._closed = False
        self._warned: set[str] = set()

    # --- what can be seen ---------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Alerts that wait or are being told."""
        return len(self._waiting) + len(self._flight)

    @property
    def counts(self) -> dict[str, int]:
        """What became of alerts since the start.

        `offered` = `sent` + `failed` + `dropped` + `replaced` (by a newer state, while waiting) + `pending`; `retried`
        counts the alerts of each try that failed and was not the last.
        """
        return {**self._outcomes, "replaced": self._waiting.replaced}

    # --- life ---------------------------------------------------------------------------------------------------

    def offer(self, alerts: Sequence[Alert]) -> None:
        """Takes alerts that fire or are resolved, and leaves out others; never blocks, never raises."""
        told = [alert for alert in alerts if alert.state in _TOLD]
        self._outcomes["offered"] += len(told)
        if self._over:
            self._drop(len(told), "closed")
            return
        self._drop(sum(self._waiting.put(alert) for alert in told), "full")
        if self._rest is not None and not self._flight:
            _wake(self._rest)

    def start(self) -> None:
        """Begins to tell, on the running event loop; calling it again does nothing, nor does it after `close`."""
        if self._task is None and not self._over:
            self._task = self._spawn(self._run())

    async def close(self, timeout: Duration = 5.0) -> None:
        """Tells what waits, as far as that is possible within `timeout`; drops the rest; closes the notifier.

        Raises:
            ConfigError: `timeout` is no duration.
        """
        patience = to_seconds("timeout", timeout, zero=True)
        self._closing = True
        _wake(self._rest)  # a delay before a retry is cut short
        try:
            if self._task is not None:
                await self._ended(self._task, patience)
        finally:
            self._give_up()
            tasks = [task for task in (self._task, self._try_task) if task is not None]
            for task in tasks:
                task.cancel()
        for task in tasks:
            if not await self._ended(task, _GRACE):
                _logger.error("notifier %s does not listen to its cancellation; its task is left behind", self.name)
        if not self._closed:
            self._closed = True
            await self._close_notifier()

    def _give_up(self) -> None:
        if not self._over:
            self._closing = self._over = True
            left = self._waiting.clear() + len(self._flight)
            self._flight = ()
            self._drop(left, "closed")

    async def _close_notifier(self) -> None:
        task = self._spawn(_outcome(self._notifier.close))
        if not await self._ended(task, self._timeout):
            task.cancel()
            await self._ended(task, _GRACE)
        error = task.result() if task.done() and not task.cancelled() else TimeoutError("it takes too long")
        if error is not None:
            _logger.warning("notifier %s failed to close", self.name, exc_info=error)

    # --- the work -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not (self._closing and not self._waiting):
                self._flight = self._waiting.take(self._batch_size)
                if self._flight:
                    await self._deliver(self._flight)
                    self._flight = ()
                else:
                    await self._pause(None)
        except Exception:  # a bug of ours: it must not be taken for a notifier that has nothing to tell
            _logger.exception("the delivery to notifier %s has failed; nobody is told any more", self.name)
        finally:
            self._give_up()  # the loop may end before `close` is called

    async def _deliver(self, batch: tuple[Alert, ...]) -> None:
        attempt, final = 0, False
        while not final:
            attempt += 1
            error = await self._try(batch)
            if error is None:
                self._waiting.settle(batch, told=True)
                self._outcomes["sent"] += len(batch)
                self._bus.emit(events.AlertNotified, self.name, len(batch), attempt)
                return
            final = not may_retry(self._policy, attempt, error)
            self._note_failure(len(batch), attempt, error, final=final)
            if not final:
                delay = delay_before_retry(self._policy, attempt, error, self._rng.random())
                await self._pause(min(delay, self._max_delay))  # a `RetryAfter` knows no bound
        self._waiting.settle(batch, told=False)

    async def _try(self, batch: tuple[Alert, ...]) -> BaseException | None:
        """Tells once; what it returns is why that failed."""
        if self._try_task is not None and not self._try_task.done():
            return NotificationError("an earlier try has not ended; it does not listen to its cancellation")
        self._try_task = task = self._spawn(_outcome(self._notifier.notify, batch))
        try:
            in_time = await self._ended(task, self._timeout)
        finally:
            task.cancel()  # too late, or this delivery itself is cancelled
        if not in_time and not await self._ended(task, _GRACE):
            return TimeoutError(f"not done after {self._timeout:g} s, nor when it was cancelled")
        error = asyncio.CancelledError("it was cancelled") if task.cancelled() else task.result()
        return error if in_time or error is None else TimeoutError(f"not done after {self._timeout:g} s")

    async def _pause(self, seconds: float | None) -> None:
        """Waits so long, or for ever; less when there is something to do."""
        self._rest = asyncio.get_running_loop().create_future()
        timer = None if seconds is None else self._clock.call_at(self._clock.now() + seconds, _wake, self._rest)
        try:
            await self._rest
        finally:
            self._rest = None
            if timer is not None:
                timer.cancel()

    async def _ended(self, task: asyncio.Task[Any], seconds: float) -> bool:
        """Waits for the end of a task for so long; tells whether it has ended."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(_: object = None) -> None:
            _wake(over)

        timer = self._clock.call_at(self._clock.now() + seconds, end)
        task.add_done_callback(end)
        try:
            await over
        finally:
            timer.cancel()
            task.remove_done_callback(end)
        return task.done()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # In a context of its own: what is bound where an alert was found is nothing of the notifier's.
        name = f"lane-obs-notify-{self.name}"
        return asyncio.get_running_loop().create_task(work, context=contextvars.Context(), name=name)

    # --- what is told of it -------------------------------------------------------------------------------------

    def _note_failure(self, alerts: int, attempt: int, error: BaseException, *, final: bool) -> None:
        self._outcomes["failed" if final else "retried"] += alerts
        kind, text = type(error).__name__, error_text(error)
        self._bus.emit(events.AlertNotificationFailed, self.name, alerts, attempt, kind, text, final)
        self._warn("failed", "notifier %s failed; further failures are only counted", error)

    def _drop(self, alerts: int, reason: str) -> None:
        if alerts:
            self._outcomes["dropped"] += alerts
            self._bus.emit(events.AlertNotificationDropped, self.name, alerts, reason)
            self._warn(reason, f"notifier %s: alerts are dropped ({reason}); further ones are only counted")

    def _warn(self, kind: str, text: str, error: BaseException | None = None) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _logger.warning(text, self.name, exc_info=error)


async def _outcome(call: Any, *args: object) -> BaseException | None:
    """Calls what a user wrote, whatever it does; what it returns is what the call raised."""
    try:
        result = call(*args)
        if inspect.isawaitable(result):
            await result
    except BaseException as error:  # SystemExit as well: it would end the loop, and all that the queue does
        return error
    return None


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
