"""The reference's builder, as sugar over `QueueManager(...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.config import DEFAULT_LANES, LaneConfig, check_name
from lane_obs.errors import ConfigError
from lane_obs.runtime.dead_letters import DeadLetterQueue
from lane_obs.runtime.manager import QueueManager

if TYPE_CHECKING:
    from lane_obs.bus import Sink


class QueueManagerBuilder:
    """Collects the parts of a `QueueManager`; every method but `build` returns the builder.

    Args:
        emitter: the first sink, usually an `EventEmitter`; `None` for none.
    """

    def __init__(self, emitter: Sink | None = None) -> None:
        self._sinks: list[Sink] = [] if emitter is None else [emitter]
        self._lanes: dict[str, LaneConfig] = {}
        self._options: dict[str, Any] = {}

    def with_lane(self, name: str, config: LaneConfig, priority: int | None = None) -> QueueManagerBuilder:
        """Adds a lane; `priority`, where given, replaces the configuration's.

        Raises:
            ConfigError: the name is not allowed or taken.
        """
        check_name("lane name", name)
        if name in self._lanes:
            raise ConfigError("lane name", name, "each lane needs a name of its own")
        self._lanes[name] = config if priority is None else config.with_priority(priority)
        return self

    def with_default_lanes(self) -> QueueManagerBuilder:
        """Adds the six default lanes.

        Raises:
            ConfigError: one of their names is taken.
        """
        for name, config in DEFAULT_LANES.items():
            self.with_lane(name, config)
        return self

    def with_dlq(self, size: int) -> QueueManagerBuilder:
        """Keeps this many dead letters."""
        self._options["dead_letters"] = DeadLetterQueue(size)
        return self

    def with_max_concurrency(self, max_concurrency: int) -> QueueManagerBuilder:
        """Bounds the running commands of all lanes together."""
        self._options["max_concurrency"] = max_concurrency
        return self

    def with_sink(self, sink: Sink) -> QueueManagerBuilder:
        """Adds a sink."""
        self._sinks.append(sink)
        return self

    def build(self) -> QueueManager:
        """Makes the manager; without lanes it gets the default ones.

        Raises:
            ConfigError: a value that is not allowed, named.
        """
        return QueueManager(self._lanes or None, sinks=self._sinks, **self._options)
