"""A command between the check of a submit and its place in a lane."""

from __future__ import annotations

import asyncio  # noqa: TC003 - msgspec reads the annotations
from collections.abc import Callable  # noqa: TC003 - likewise
from contextvars import Context  # noqa: TC003 - likewise
from typing import Any

import msgspec

from lane_obs.command import type_name
from lane_obs.config.partitions import PartitionKind
from lane_obs.runtime.options import NO_OPTIONS, Options

_PER_KEY, _BY_KEY = PartitionKind.PER_KEY, PartitionKind.BY_KEY


class Draft(msgspec.Struct):
    """A command that is checked but not enqueued. `seq` is set for one that has had a place before."""

    home: Any
    """Its `core.lane.Lane`."""
    work: Any
    call: Callable[..., Any]
    args: tuple[Any, ...]
    options: Options = NO_OPTIONS
    seq: int = 0
    part: Any = None
    """The id of its partition; `None` for none."""
    id: str | None = None
    """Its id, where it is fixed before it is enqueued."""
    trace: str | None = None
    """The W3C traceparent of the span that submitted it, where it is stored."""
    encoded: tuple[str, bytes] | None = None
    """Its registered name and its arguments as they are stored, once they are known."""
    context: Context | None = None
    """Its submitter's context, where it is enqueued later than it was submitted."""
    admitted: asyncio.Future[Any] | None = None
    """Its handle, once it is in its lane, for whoever waits for that."""


def part_of(home: Any, named: Any, options: Options) -> Any:
    """The partition of a new command in a lane; `None` for none.

    Raises:
        InvalidCommand: the user's own function failed, or gave something that is no partition.
    """
    partitions = home.config.partitions
    if partitions is None:
        return None
    kind = partitions.kind
    if kind is _PER_KEY:
        return options.partition_key
    if kind is _BY_KEY:
        return partitions.assign("", options.partition_key, 0)
    return home.assign("" if partitions.function is None else type_name(named), options.partition_key)
