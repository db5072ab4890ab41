"""What the tests of the runtime share: a queue that always closes, and work that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, QueueManager
from lane_obs.clock import sleep_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lane_obs import VirtualClock

ONE_SLOT = {"a": LaneConfig(0, 1)}


@contextlib.asynccontextmanager
async def running(
    clock: VirtualClock, lanes: Mapping[str, LaneConfig] | LaneConfig | None = None, **options: Any
) -> AsyncIterator[QueueManager]:
    """A started queue in virtual time; a single `LaneConfig` is that of lane "a". Closed whatever happens inside."""
    named = {"a": lanes} if isinstance(lanes, LaneConfig) else (lanes or ONE_SLOT)
    manager = QueueManager(named, clock=clock, **options)
    await manager.start()
    try:
        yield manager
    except BaseException:
        await clock.run(manager.close())
        await clock.advance(10_000)  # so that stubborn work ends too, and a failing test does not hang
        raise
    await clock.run(manager.close())


async def noop(value: Any = None) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


async def stubborn(clock: VirtualClock, seconds: float, value: Any = "late") -> Any:
    """Ignores every cancellation for so long, then returns."""
    until = clock.now() + seconds
    while clock.now() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await sleep_until(clock, until)
    return value


class Gate:
    """Async work that notes its start and waits until the test opens it by name."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self._waiting: dict[Any, asyncio.Future[Any]] = {}

    async def __call__(self, name: Any = None) -> Any:
        self.started.append(name)
        future = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            return await future
        finally:
            del self._waiting[name]

    @property
    def inside(self) -> list[Any]:
        """Names of those that wait now, in the order in which they started."""
        return list(self._waiting)

    def open(self, name: Any = None, value: Any = None) -> None:
        """Lets it go on; one that is cancelled already, but has not noticed, is left alone."""
        if not self._waiting[name].done():
            self._waiting[name].set_result(value)

    def break_(self, name: Any, error: BaseException) -> None:
        self._waiting[name].set_exception(error)


class Attempts:
    """Async work that plays one script step for each attempt: an exception is raised, anything else returned."""

    def __init__(self, clock: VirtualClock, *script: Any, seconds: float = 0.0) -> None:
        self._clock = clock
        self._script = list(script)
        self._seconds = seconds
        self.starts: list[float] = []

    async def __call__(self) -> Any:
        self.starts.append(self._clock.now())
        step = self._script[min(len(self.starts), len(self._script)) - 1]
        await sleep_until(self._clock, self.starts[-1] + self._seconds)
        if isinstance(step, BaseException):
            raise step
        return step

    @property
    def gaps(self) -> list[float]:
        """Seconds between the starts of attempts."""
        return [round(later - earlier, 9) for earlier, later in zip(self.starts, self.starts[1:], strict=False)]


async def outcome(handle: Any) -> BaseException | None:
    """Waits for a command's end and returns its error."""
    try:
        await handle
    except BaseException as error:
        return error
    return None
