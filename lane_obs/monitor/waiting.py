"""Alerts that wait to be told: the newest state of each, within a bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from lane_obs.monitor.alert import Alert, AlertState

if TYPE_CHECKING:
    from collections.abc import Iterable

Identity: TypeAlias = tuple[str, str, str, str | None]

# More alerts than ever fire at once. Forgetting one costs a message that was not needed.
_MOST_TOLD: Final = 100_000


def identity_of(alert: Alert) -> Identity:
    """What tells an alert from others, as its labels do."""
    return alert.alert, alert.severity, alert.queue, alert.lane


class Waiting:
    """Alerts in the order in which they are to be told, at most two states of each: `firing`, then `resolved`.

    A newer state takes the place of an older one. Only a firing that nobody was told of stays in front of its end.

    Args:
        capacity: how many states may wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._states: OrderedDict[tuple[Identity, AlertState], Alert] = OrderedDict()
        self._told: set[Identity] = set()
        self.replaced = 0
        """States that a newer one took the place of."""

    def __len__(self) -> int:
        return len(self._states)

    def put(self, alert: Alert) -> int:
        """Takes a state; returns how many were dropped for want of room, the oldest first."""
        identity = identity_of(alert)
        firing, resolved = (identity, AlertState.FIRING), (identity, AlertState.RESOLVED)
        if alert.state is AlertState.FIRING:
            self._replace(resolved)
            self._set(firing, alert)
        else:
            if identity in self._told:
                self._replace(firing)
            self._set(resolved, alert)
        dropped = 0
        while len(self._states) > self._capacity:
            self.settle((self._states.popitem(last=False)[1],), told=False)
            dropped += 1
        return dropped

    def _replace(self, key: tuple[Identity, AlertState]) -> None:
        if self._states.pop(key, None) is not None:
            self.replaced += 1

    def _set(self, key: tuple[Identity, AlertState], alert: Alert) -> None:
        if key in self._states:
            self.replaced += 1
        self._states[key] = alert  # one that is there already keeps its place in the line

    def take(self, most: int) -> tuple[Alert, ...]:
        """Takes out the next ones, at most so many, and at most one state of each alert."""
        batch: dict[Identity, Alert] = {}
        while self._states and len(batch) < most:
            key, alert = self._states.popitem(last=False)
            if key[0] in batch:
                self._states[key] = alert
                self._states.move_to_end(key, last=False)
                break
            batch[key[0]] = alert
        return tuple(batch.values())

    def settle(self, alerts: Iterable[Alert], *, told: bool) -> None:
        """Notes what has become of states that were taken out."""
        for alert in alerts:
            if alert.state is AlertState.RESOLVED:
                self._told.discard(identity_of(alert))
            elif told:
                if len(self._told) >= _MOST_TOLD:
                    self._told.pop()
                self._told.add(identity_of(alert))

    def clear(self) -> int:
        """Drops all; returns how many."""
        count = len(self._states)
        self._states.clear()
        return count
