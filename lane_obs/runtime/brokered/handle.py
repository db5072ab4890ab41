"""Handles of commands that a broker keeps: those that were submitted here, and those that are run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lane_obs.core.state import FINAL
from lane_obs.errors import NotEnded
from lane_obs.runtime.handle import CommandHandle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from lane_obs.core.state import State

T = TypeVar("T")


class ClaimedHandle(CommandHandle[T], eq=False):
    """A command that is run here for a broker.

    Attributes:
        token: fencing token of its claim.
        lost: whether the lease on it is lost, so that its end will be refused.
    """

    token: int = 0
    lost: bool = False


class SharedHandle(CommandHandle[T], eq=False):
    """A command that was submitted here to a broker; whoever of its members runs it.

    Its state is `ready` until it is known how it ended, which this process asks for when it is awaited.

    Attributes:
        progress: what the command last told of how far it is, while someone awaits it here; `None` before.
    """

    _watches: Any = None
    """The `Watches` of its queue."""
    _has_error: bool = False
    progress: Any = None

    def cancel(self) -> bool:
        """Asks the broker to cancel it, whoever runs it; `await` the handle to see how it ended.

        Returns:
            False when it is known to have ended.
        """
        if self.state in FINAL:
            return False
        assert self._watches is not None
        self._watches.cancel(self.id)
        return True

    def __await__(self) -> Generator[Any, None, T]:
        if self.state not in FINAL:
            assert self._watches is not None
            self._watches.add(self)
        yield from super().__await__()
        return self.result()

    def _forget_waiter(self, future: asyncio.Future[None]) -> None:
        super()._forget_waiter(future)
        if not self._waiters and self._watches is not None:
            self._watches.remove(self)

    def exception(self) -> BaseException | None:
        """The error it ended with; `None` after success, unless its value did not travel: then why not.

        Raises:
            NotEnded: how it ended is not known here.
        """
        if self.state not in FINAL:
            raise NotEnded(f"how command {self.id} ended is not known here; await its handle")
        return self._value[0] if self._has_error else None

    def take(self, state: State, value: Any, error: BaseException | None, now: float) -> None:
        """Notes how it ended, and tells those who await it."""
        self.state, self.finished_at = state, now
        self._has_error = error is not None
        self._value = value if error is None else (error, error.__traceback__)
        self.tell_waiters()
