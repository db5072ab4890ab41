"""A command on its way to a broker, and the submit that it is part of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from lane_obs.distributed.record import NewCommand
    from lane_obs.runtime.brokered.handle import SharedHandle


class Call:
    """A submit of one command or more; whoever made it waits until all are kept, or one is refused."""

    __slots__ = ("_left", "answer")

    def __init__(self, answer: asyncio.Future[Any], count: int) -> None:
        self._left = count
        self.answer = answer

    def keep(self, handle: SharedHandle[Any]) -> None:
        """One more is kept."""
        self._left -= 1
        if not self._left and not self.answer.done():
            self.answer.set_result(handle)

    def refuse(self, error: Exception) -> None:
        """One is not."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # who asked may be gone


class Entry:
    """A command on its way to the broker."""

    __slots__ = ("call", "command", "handle")

    def __init__(self, command: NewCommand, handle: SharedHandle[Any], call: Call) -> None:
        self.command = command
        self.handle = handle
        self.call = call
