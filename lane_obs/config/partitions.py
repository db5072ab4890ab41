"""How the commands of a lane are split into partitions, which run one command at a time each."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import TypeAlias
from zlib import crc32

from lane_obs.config.check import to_choice, to_count
from lane_obs.errors import ConfigError, InvalidCommand, error_text

PartitionFunction: TypeAlias = Callable[[str, str | None], Hashable]
"""Called with a command's type and partition key; gives its partition, `None` for none."""


class PartitionKind(StrEnum):
    """What the partition of a command follows from."""

    BY_KEY = "by_key"
    """The hash of its key: many keys, few partitions. The hash is CRC-32 of the key in UTF-8, the same everywhere."""
    PER_KEY = "per_key"
    """Its key: a partition for each."""
    ROUND_ROBIN = "round_robin"
    """The lane's count of submits."""
    CUSTOM = "custom"
    """What a function of yours says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Partitions:
    """How a lane is split into partitions. The commands of one partition run one at a time, in the order of submits.

    Make one with `by_key`, `per_key`, `round_robin` or `custom`.

    Args:
        kind: what the partition of a command follows from.
        count: how many partitions there are, 1 or more; `None` for as many as there are keys, or as the function gives.
        function: of a command's type and key, where the kind is `custom`.
        fair: whether waiting partitions take turns by cost; default no: first come, first served.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    kind: PartitionKind | str
    count: int | None = None
    function: PartitionFunction | None = None
    fair: bool = False

    def __post_init__(self) -> None:
        kind = to_choice("partitions.kind", self.kind, PartitionKind)
        object.__setattr__(self, "kind", kind)
        if kind in {PartitionKind.BY_KEY, PartitionKind.ROUND_ROBIN} or (
            kind is PartitionKind.CUSTOM and self.count is not None
        ):
            to_count(f"partitions.{kind}", self.count, minimum=1)
        elif self.count is not None:
            raise ConfigError("partitions.count", self.count, "give none: each key has a partition of its own")
        if kind is PartitionKind.CUSTOM:
            _check_function(self.function)
        elif self.function is not None:
            raise ConfigError("partitions.function", self.function, "give it to Partitions.custom only")
        if not isinstance(self.fair, bool):
            raise ConfigError("partitions.fair", self.fair, "give True or False")

    @classmethod
    def by_key(cls, count: int, *, fair: bool = False) -> Partitions:
        """Spreads all keys over so many partitions, by a hash that is the same in every process and run."""
        return cls(PartitionKind.BY_KEY, count, fair=fair)

    @classmethod
    def per_key(cls, *, fair: bool = False) -> Partitions:
        """Gives each key a partition of its own, which exists while a command of it lives."""
        return cls(PartitionKind.PER_KEY, fair=fair)

    @classmethod
    def round_robin(cls, count: int, *, fair: bool = False) -> Partitions:
        """Deals commands out to so many partitions, whatever their keys."""
        return cls(PartitionKind.ROUND_ROBIN, count, fair=fair)

    @classmethod
    def custom(cls, function: PartitionFunction, count: int | None = None, *, fair: bool = False) -> Partitions:
        """Asks a function, at each submit.

        Args:
            function: of the command's type and its partition key (`None` without one). It gives the partition: with
                `count` a whole number from 0 to `count - 1`, without it anything hashable; `None` for none.
            count: how many partitions there are, 1 or more; `None` (default): as many as it gives.
            fair: whether waiting partitions take turns by cost.

        Raises:
            ConfigError: a value outside its range, with its name.
        """
        return cls(PartitionKind.CUSTOM, count, function, fair)

    def assign(self, command_type: str, key: str | None, turn: int) -> Hashable:
        """The partition of a new command; `None` for none.

        Args:
            command_type: its type.
            key: its partition key; `None` without one: then it is in no partition by key.
            turn: the number of the submit within its lane.

        Raises:
            InvalidCommand: the function failed, or gave something that is no partition.
        """
        kind, count = self.kind, self.count
        if kind is _ROUND_ROBIN:
            assert count is not None
            return turn % count
        if kind is _CUSTOM:
            return self._ask(command_type, key)
        if key is None or count is None:
            return key
        return crc32(key.encode()) % count

    def _ask(self, command_type: str, key: str | None) -> Hashable:
        assert self.function is not None
        try:
            part = self.function(command_type, key)
            hash(part)
            str(part)  # its name in metrics and spans
        except Exception as error:
            text = f"{type(error).__name__}: {error_text(error)}"
            raise InvalidCommand(f"no partition for a command {command_type!r} with key {key!r}: {text}") from error
        count = self.count
        if part is None or count is None:
            return part
        if isinstance(part, bool) or not isinstance(part, int) or not 0 <= part < count:
            raise InvalidCommand(
                f"no partition for a command {command_type!r} with key {key!r}: "
                f"the function gave {part!r}, not a whole number from 0 to {count - 1}"
            )
        return part


def _check_function(function: object) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigError("partitions.function", function, "give a plain function of a command's type and key")


_ROUND_ROBIN, _CUSTOM = PartitionKind.ROUND_ROBIN, PartitionKind.CUSTOM
