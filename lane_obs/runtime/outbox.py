"""What is told to the storage within one turn of the loop goes there in one go, and in order."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any

from lane_obs.errors import StorageRefused
from lane_obs.storage.change import AddLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.storage.change import Change


class Outbox:
    """Gathers changes until the end of the turn. None of them saves a command: those are not kept when that fails.

    Args:
        apply: hands changes to the storage.

    Attributes:
        on_ended: called with the commands whose ends are committed, or have failed to be.
    """

    def __init__(self, apply: Callable[[Sequence[Change]], asyncio.Future[None]]) -> None:
        self._apply = apply
        self._changes: list[Change] = []
        self._ended: list[CommandHandle[Any]] = []
        self._committed: asyncio.Future[None] | None = None
        self._context = contextvars.Context()
        self.on_ended: Callable[[Sequence[CommandHandle[Any]]], None] = lambda _handles: None

    def tell(self, change: Change) -> None:
        """Has a change made."""
        if not self._changes:
            asyncio.get_running_loop().call_soon(self.flush, context=self._context)
        self._changes.append(change)

    def tell_end(self, handle: CommandHandle[Any], *changes: Change) -> None:
        """Has the changes made that a command's end comes to."""
        for change in changes:
            self.tell(change)
        self._ended.append(handle)

    def committed(self) -> asyncio.Future[None]:
        """Done once all that was told so far is committed, or has failed to be."""
        if self._committed is None:
            self._committed = asyncio.get_running_loop().create_future()
        return self._committed

    def flush(self) -> None:
        """Hands over what was told so far."""
        if not self._changes:
            return
        changes, self._changes = self._changes, []
        ended, self._ended = self._ended, []
        committed, self._committed = self._committed, None
        told = self._apply(changes)
        done = functools.partial(self._done, changes, ended, committed)
        if told.done():
            done(told)
        else:
            told.add_done_callback(done, context=self._context)

    def _done(
        self,
        changes: Sequence[Change],
        ended: Sequence[CommandHandle[Any]],
        committed: asyncio.Future[None] | None,
        told: asyncio.Future[None],
    ) -> None:
        error = None if told.cancelled() else told.exception()
        if isinstance(error, StorageRefused) and len(parts := _parts(changes)) > 1:
            for part in parts:  # so that what can be stored is
                told = self._apply(part)
                told.add_done_callback(look_at, context=self._context)
            told.add_done_callback(functools.partial(self._done, (), ended, committed), context=self._context)
            return
        if committed is not None and not committed.done():
            committed.set_result(None)
        if ended:
            self.on_ended(ended)


def _parts(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes one by one, but for a letter, which stays with the change before it: its command's removal."""
    parts: list[list[Change]] = []
    for change in changes:
        if parts and isinstance(change, AddLetter):
            parts[-1].append(change)
        else:
            parts.append([change])
    return parts


def look_at(future: asyncio.Future[None]) -> None:
    """Takes the error of a change that nobody waits for: the storage itself has told of it, and tries again."""
    if not future.cancelled():
        future.exception()
