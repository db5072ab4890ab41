"""What tests of partitions share."""

from __future__ import annotations

from typing import Any, Final

from lane_obs.distributed import PartitionedBroker

LEFT_OUT: Final[dict[str, str]] = {}


class OnTrial(PartitionedBroker):
    """A member whose heartbeats can be stopped."""

    _parts: Any

    def stop_beat(self) -> None:
        for part in self._parts:
            part.stop_beat()

    def start_beat(self) -> None:
        for part in self._parts:
            part.start_beat()
