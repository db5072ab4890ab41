"""What the monitor needs of whatever it watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lane_obs.bus import Bus
    from lane_obs.clock import Clock


class Counts(Protocol):
    """What the monitor shows of a queue's statistics."""

    @property
    def total_pending(self) -> int:
        """Commands that wait."""
        ...

    @property
    def total_active(self) -> int:
        """Commands that run."""
        ...


class Monitored(Protocol):
    """What can be monitored: a `CommandQueue`."""

    @property
    def bus(self) -> Bus:
        """Where alerts go."""
        ...

    @property
    def clock(self) -> Clock:
        """What time it is."""
        ...

    @property
    def lanes(self) -> Any:
        """Its lanes by name."""
        ...

    @property
    def columns(self) -> Any:
        """Reads all lanes at once."""
        ...

    def stats(self) -> Counts:
        """The counts now."""
        ...
