"""The reference's builder, as sugar over `QueueManager(...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.config import DEFAULT_LANES, LaneConfig, check_name, to_count, to_rate_limits
from lane_obs.errors import ConfigError
from lane_obs.runtime.manager import QueueManager

if TYPE_CHECKING:
    from lane_obs.bus import AnySink, Observer
    from lane_obs.config import RateLimit
    from lane_obs.distributed import Broker
    from lane_obs.storage.port import Storage


class QueueManagerBuilder:
    """Collects the parts of a `QueueManager`; every method but `build` returns the builder.

    Args:
        emitter: the first sink, usually an `EventEmitter`; `None` for none.
    """

    def __init__(self, emitter: AnySink | None = None) -> None:
        self._sinks: list[AnySink] = [] if emitter is None else [emitter]
        self._lanes: dict[str, LaneConfig] = {}
        self._options: dict[str, Any] = {}

    def with_lane(self, name: str, config: LaneConfig, priority: int | None = None) -> QueueManagerBuilder:
        """Adds a lane; `priority`, where given, replaces the configuration's.

        Raises:
            ConfigError: the name is not allowed or taken, or `config` is no `LaneConfig`.
        """
        check_name("lane name", name)
        if name in self._lanes:
            raise ConfigError("lane name", name, "each lane needs a name of its own")
        if not isinstance(config, LaneConfig):
            raise ConfigError(f"lanes.{name}", config, "give a LaneConfig")
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
        """Keeps this many dead letters, in a `DeadLetterQueue` that each `build` makes anew.

        Raises:
            ConfigError: `size` is not a whole number of 1 or more.
        """
        self._options["dead_letters"] = to_count("size", size, minimum=1)
        return self

    def with_max_concurrency(self, max_concurrency: int) -> QueueManagerBuilder:
        """Bounds the running commands of all lanes together.

        Raises:
            ConfigError: it is not a whole number of 1 or more.
        """
        self._options["max_concurrency"] = to_count("max_concurrency", max_concurrency, minimum=1)
        return self

    def with_rate_limit(self, *limits: RateLimit) -> QueueManagerBuilder:
        """Bounds how often commands of all lanes together start.

        Raises:
            ConfigError: one of them is no `RateLimit`.
        """
        self._options["rate_limit"] = to_rate_limits("rate_limit", limits)
        return self

    def with_storage(self, storage: Storage) -> QueueManagerBuilder:
        """Keeps the commands of durable lanes in a storage. It serves one manager."""
        self._options["storage"] = storage
        return self

    def with_broker(self, broker: Broker, *, work: bool = True) -> QueueManagerBuilder:
        """Shares the queue with other processes; `work`: whether this one runs commands. It serves one manager."""
        self._options |= {"broker": broker, "work": work}
        return self

    def with_sink(self, sink: AnySink) -> QueueManagerBuilder:
        """Adds a sink."""
        self._sinks.append(sink)
        return self

    def with_observability(self, observe: Observer) -> QueueManagerBuilder:
        """Adds logs, metrics and traces: an `Observability`. It serves one manager."""
        self._sinks += observe.sinks
        return self

    def build(self) -> QueueManager:
        """Makes a manager; without lanes it gets the default ones. Managers of one builder share its sinks.

        Raises:
            ConfigError: a value that is not allowed, named.
        """
        return QueueManager(dict(self._lanes) or None, sinks=list(self._sinks), **self._options)
