"""What the event loop hands to the thread that writes."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lane_obs.storage.change import Save

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from lane_obs.errors import StorageError
    from lane_obs.storage.sqlite.database import Database
    from lane_obs.storage.sqlite.net import Step


class Durability(StrEnum):
    """What a storage promises once it says that a change is stored."""

    FULL = "full"
    """It outlives a crash of the machine."""
    NORMAL = "normal"
    """It outlives a crash of the process; one of the machine may cost the last changes."""
    ASYNC = "async"
    """Nothing yet: it is written soon after."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a folder is used; times in seconds.

    Attributes:
        folder: the folder.
        durability: `full`, `normal` or `async`.
        keep_bytes: how much may be kept in memory while the disk fails.
        first_retry, last_retry: time from a failure to the next try, and the longest between two.
        read_only: whether it is only read.
    """

    folder: Path
    durability: str
    keep_bytes: int
    first_retry: float
    last_retry: float
    read_only: bool = False


class Batch:
    """Changes that happen together.

    Args:
        steps: the changes.
        future: who waits for them; `None` when they were told that it is done.

    Attributes:
        error: why they could not be written.
        is_submit: whether somebody waits for commands to be stored. Such a batch is dropped when the disk fails, so
            that nothing runs that was not acknowledged; and who waits is likely to come again.
    """

    __slots__ = ("error", "future", "is_submit", "steps")

    def __init__(self, steps: list[Step], future: asyncio.Future[None] | None) -> None:
        self.steps = steps
        self.future = future
        self.error: StorageError | None = None
        saves = bool(steps) and (steps[0][0] is Save or any(step[0] is Save for step in steps))
        self.is_submit = saves and future is not None

    def settle(self) -> None:
        """On the event loop: tells who waits what became of it."""
        future = self.future
        if future is not None and not future.done():
            if self.error is None:
                future.set_result(None)
            else:
                fail(future, self.error)


class Job:
    """Something to read.

    Args:
        work: reads it from the database.
        future: who waits for it.
    """

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Database], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        """On the event loop: hands over what was read."""
        if not self.future.done():
            if self.error is None:
                self.future.set_result(self.result)
            else:
                fail(self.future, self.error)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fails a future; one that nobody awaits makes no noise."""
    future.set_exception(error)
    future.exception()
