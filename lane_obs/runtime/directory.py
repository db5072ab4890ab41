"""The live commands, by number, id and idempotency key."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from lane_obs.config.check import check_id
from lane_obs.errors import DuplicateId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.options import Options


_DIGITS: Final = 20


class Directory:
    """Finds live commands. An id of the queue's own making is its prefix and the command's number.

    Args:
        id_prefix: what sets the ids of this queue apart from those of others.
    """

    def __init__(self, id_prefix: str) -> None:
        self.id_prefix = id_prefix
        self.by_seq: dict[int, CommandHandle[Any]] = {}
        self.by_id: dict[str, CommandHandle[Any]] = {}
        self.by_key: dict[str, CommandHandle[Any]] = {}
        self.old_seq = 0
        """The highest number that an earlier process gave."""
        self._firsts: list[int] = []
        self._prefixes: list[str] = []
        """Of earlier processes: each one's prefix, and the first number that has it."""

    def id_of(self, seq: int) -> str:
        """The id that a command has by its number, unless it was given another."""
        if seq > self.old_seq:
            return f"{self.id_prefix}-{seq}"
        return f"{self._prefixes[bisect_right(self._firsts, seq) - 1]}-{seq}"

    def tells(self, command_id: str, seq: int) -> bool:
        """Whether `id_of` gives the id of a command of an earlier process; they come in order of their numbers."""
        if self._prefixes and command_id == f"{self._prefixes[-1]}-{seq}":
            return True
        prefix, _, number = command_id.rpartition("-")
        if number != str(seq):
            return False
        self._firsts.append(seq)
        self._prefixes.append(prefix)
        return True

    def add(self, handle: CommandHandle[Any]) -> None:
        """Takes in a live command."""
        self.by_seq[handle.seq] = handle
        options = handle._options
        if options.id is not None:
            self.by_id[options.id] = handle
        if options.key is not None:
            self.by_key[options.key] = handle

    def remove(self, handle: CommandHandle[Any]) -> None:
        """Lets go of a command that has ended."""
        del self.by_seq[handle.seq]
        options = handle._options
        if options.id is not None:
            del self.by_id[options.id]
        if options.key is not None:
            del self.by_key[options.key]

    def find(self, command_id: str) -> CommandHandle[Any] | None:
        """The live command of this id.

        Raises:
            ConfigError: it is no id at all.
        """
        check_id("command_id", command_id)
        found = self.by_id.get(command_id)
        if found is None:
            # Of the queue's own making, or of that of an earlier process, whose commands keep their numbers.
            number = command_id.rpartition("-")[2]
            found = self.by_seq.get(int(number)) if number.isdecimal() and len(number) <= _DIGITS else None
            if found is not None and found.id != command_id:
                return None
        return found

    def same(self, options: Options) -> CommandHandle[Any] | None:
        """The live command with the same idempotency key; `None` when there is none.

        Raises:
            DuplicateId: a live command has the id, or the queue would give it to one.
        """
        if options.key is not None and (known := self.by_key.get(options.key)) is not None:
            return known
        if options.id is not None and (self.is_own(options.id) or self.find(options.id) is not None):
            raise DuplicateId(f"a live command has the id {options.id!r}, or the queue would give it to one")
        return None

    def is_own(self, command_id: str) -> bool:
        """Whether an id is of the form of the queue's own making."""
        return command_id.startswith(f"{self.id_prefix}-")

    def renumber(self, by: int) -> None:
        """Gives all live commands higher numbers, in place: earlier processes gave those up to `by`."""
        self.old_seq = by
        handles = list(self.by_seq.values())
        self.by_seq.clear()
        for handle in handles:
            handle.seq += by
            self.by_seq[handle.seq] = handle

    def __iter__(self) -> Iterator[CommandHandle[Any]]:
        return iter(list(self.by_seq.values()))
