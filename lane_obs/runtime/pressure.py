"""Tells when a lane comes under pressure, and when that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs import events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lane_obs.bus import Bus
    from lane_obs.core.lane import Lane


class Pressure:
    """Watches the lanes that have a `pressure_threshold`.

    Args:
        lanes: the lanes, by name.
        bus: is told.
    """

    def __init__(self, lanes: Mapping[str, Lane], bus: Bus) -> None:
        self._lanes = lanes
        self._bus = bus
        self._pressed: dict[str, None] = {}  # in order, so that runs repeat exactly

    def rise(self, home: Lane) -> None:
        """Looks whether a lane has come under pressure."""
        threshold = home.config.pressure_threshold
        if threshold is not None and home.name not in self._pressed and home.pending >= threshold:
            self._pressed[home.name] = None
            self._bus.emit(events.LanePressure, home.name, home.pending, threshold)

    def forget(self, home: Lane) -> None:
        """Looks no more at a lane that goes."""
        if home.name in self._pressed:
            self.fall()  # it is empty

    def fall(self) -> None:
        """Looks whether there is any lane where it is over."""
        for name in [name for name in self._pressed if not self._lanes[name].pending]:
            del self._pressed[name]
            self._bus.emit(events.LaneIdle, name, 0)
