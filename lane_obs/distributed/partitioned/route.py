"""Which partition a command belongs to."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lane_obs.distributed.record import NewCommand


def partition_of(command: NewCommand, count: int) -> int:
    """The number of the partition that a command goes to, for ever and in every process.

    By its partition key, so that those of one key keep their order; else by its idempotency key, so that one partition
    knows of all with that key; else by its id.
    """
    text = command.id if command.key is None else command.key
    return number_of(text if command.part is None else command.part, count)


def number_of(text: str, count: int) -> int:
    """A number from 0 to below `count` that follows from a text alone."""
    return zlib.crc32(text.encode()) % count
