"""Commands that ended without success, kept for inspection and another try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable  # noqa: TC003 - msgspec reads the annotation
from datetime import datetime  # noqa: TC003 - likewise
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs.config import Duration, to_count, to_seconds
from lane_obs.core.state import State  # noqa: TC001 - msgspec reads the annotation
from lane_obs.errors import ConfigError, UnknownCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.options import Options


class Rerun(msgspec.Struct, frozen=True):
    """What it takes to run a command again."""

    seq: int
    work: Any
    call: Callable[..., Any]
    args: tuple[Any, ...]
    options: Options
    trace: str | None = None
    """The span that submitted it, of a durable command."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A command that failed for good, timed out, expired or was dropped.

    Attributes:
        id: the command's id.
        lane: its lane's name.
        command_type: its name.
        reason: the state it ended in: `failed`, `timed_out` or `expired`.
        error_type: class name of its last error.
        error: message of its last error, at most 1,000 characters.
        attempts: how many attempts it had.
        failed_at: when it ended, aware, UTC.
        exception: the error itself; `None` in a letter that comes from a storage.
        rerun: what `requeue` needs; `None` in letters made by hand.
    """

    id: str
    lane: str
    command_type: str
    reason: State
    error_type: str
    error: str
    attempts: int
    failed_at: datetime
    exception: BaseException | None = None
    rerun: Rerun | None = None


def _nothing(_: DeadLetter) -> None:
    """Nobody has to be told."""


class DeadLetterQueue:
    """The latest dead letters, oldest first. When it is full the oldest goes, counted in `evicted`.

    Args:
        max_size: how many letters to keep, 1 or more.
        max_age: seconds after which a letter goes, seen when another comes or they are listed; `None` (default) for
            never.

    Attributes:
        max_size, max_age: the same.
        evicted: how many letters gave way so far.

    Raises:
        ConfigError: `max_size` is not a whole number of 1 or more.
    """

    def __init__(self, max_size: int = 1000, max_age: Duration | None = None) -> None:
        self.max_size = to_count("max_size", max_size, minimum=1)
        self.max_age = None if max_age is None else to_seconds("max_age", max_age)
        self.evicted = 0
        self._letters: dict[str, DeadLetter] = {}
        self._by_lane: Counter[str] = Counter()
        self._requeue: Callable[[DeadLetter], CommandHandle[Any]] | None = None
        self._on_evict: Callable[[DeadLetter], None] = _nothing
        self._on_remove: Callable[[DeadLetter], None] = _nothing
        self._wall: Callable[[], float] = lambda: 0.0
        self._where = ""

    def bind(
        self,
        requeue: Callable[[DeadLetter], CommandHandle[Any]],
        on_evict: Callable[[DeadLetter], None],
        on_remove: Callable[[DeadLetter], None],
        wall: Callable[[], float],
        where: str = "",
    ) -> None:
        """Ties it to the queue whose letters it keeps; `where` says, where it keeps none, who does.

        Raises:
            ConfigError: it belongs to another queue.
        """
        if self._requeue is not None:
            raise ConfigError("dead_letters", self, "give each queue a DeadLetterQueue of its own")
        self._requeue = requeue
        self._on_evict = on_evict
        self._on_remove = on_remove
        self._wall = wall
        self._where = where

    def push(self, letter: DeadLetter) -> None:
        """Adds a letter; a letter of the same id is replaced, the oldest gives way when full."""
        self._take(letter.id)
        self._letters[letter.id] = letter
        self._by_lane[letter.lane] += 1
        if len(self._letters) > self.max_size:
            self._evict(next(iter(self._letters)))
        self._evict_old()

    def _evict_old(self) -> None:
        if self.max_age is None:
            return
        last = self._wall() - self.max_age
        while self._letters and next(iter(self._letters.values())).failed_at.timestamp() < last:
            self._evict(next(iter(self._letters)))

    def _evict(self, command_id: str) -> None:
        letter = self._take(command_id)
        assert letter is not None
        self.evicted += 1
        self._on_evict(letter)

    def pop(self) -> DeadLetter | None:
        """Removes and returns the oldest letter; `None` when there is none."""
        if not self._letters:
            return None
        letter = self._take(next(iter(self._letters)))
        assert letter is not None
        self._on_remove(letter)
        return letter

    def _take(self, command_id: str) -> DeadLetter | None:
        letter = self._letters.pop(command_id, None)
        if letter is not None:
            self._by_lane[letter.lane] -= 1
            if not self._by_lane[letter.lane]:
                del self._by_lane[letter.lane]  # lanes come and go
        return letter

    def get(self, command_id: str) -> DeadLetter | None:
        """The letter of this id."""
        return self._letters.get(command_id)

    def list(
        self,
        *,
        lane: str | None = None,
        command_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[DeadLetter]:
        """Letters, oldest first.

        Args:
            lane: only those of this lane.
            command_type: only those of this type.
            since: only those that failed at this time or later, an aware datetime.
            until: only those that failed before this time.
        """
        self._evict_old()
        return [
            letter
            for letter in self._letters.values()
            if lane in {None, letter.lane}
            and command_type in {None, letter.command_type}
            and (since is None or letter.failed_at >= since)
            and (until is None or letter.failed_at < until)
        ]

    def clear(self) -> int:
        """Removes all letters and returns how many there were."""
        return self.purge()

    def purge(self, **which: Any) -> int:
        """Removes the letters that `list` gives for the same arguments, and returns how many there were."""
        letters = self.list(**which)
        for letter in letters:
            self._take(letter.id)
            self._on_remove(letter)
        return len(letters)

    def requeue_all(self, **which: Any) -> tuple[CommandHandle[Any], ...]:
        """Requeues the letters that `list` gives for the same arguments, oldest first; those that cannot run stay.

        Raises:
            LaneObsError: the queue does not take one; that letter and those after it stay.
        """
        return tuple(self.requeue(letter.id) for letter in self.list(**which) if letter.rerun is not None)

    def count(self, lane: str) -> int:
        """How many letters of this lane there are."""
        return self._by_lane[lane]

    def requeue(self, command_id: str) -> CommandHandle[Any]:
        """Puts a command back into its lane: same id and place, attempts reset, its deadline starting anew.

        Returns:
            The handle of its new life.

        Raises:
            UnknownCommand: there is no such letter, or it cannot be run again.
            LaneObsError: the queue does not take it (full, shutting down, id in use); the letter stays.
        """
        letter = self._letters.get(command_id)
        if letter is None:
            raise UnknownCommand(f"there is no dead letter {command_id!r} {self._where}".rstrip())
        if letter.rerun is None or self._requeue is None:
            raise UnknownCommand(f"dead letter {command_id!r} holds nothing that could run again")
        handle = self._requeue(letter)
        self._take(command_id)
        return handle

    def restore(self, letter: DeadLetter) -> None:
        """Takes in a letter that a storage has; nobody is told."""
        self._letters[letter.id] = letter
        self._by_lane[letter.lane] += 1

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter([*self._letters.values()])

    def __contains__(self, command_id: object) -> bool:
        return command_id in self._letters
