"""What a queue can do with a broker that it cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from lane_obs.distributed import Broker
    from lane_obs.runtime.brokered.cluster import Cluster
    from lane_obs.runtime.brokered.membership import Membership


class Sharing:
    """Shares a queue among processes. Base of `CommandQueue`, which documents the whole."""

    _membership: Membership | None

    async def result(self, command_id: str) -> Any:
        """Waits for the end of a command of a shared queue, whichever process submitted it; see `Cluster.result`.

        Raises:
            ConfigError: the queue has no broker.
            CommandError: it ended without a value.
        """
        return await self.cluster.result(command_id)

    @property
    def cluster(self) -> Cluster:
        """Asks and steers the whole queue that a broker shares among processes.

        Raises:
            ConfigError: the queue has no broker.
        """
        if self._membership is None:
            raise ConfigError("broker", None, "give the queue a broker to share it among processes")
        return self._membership.cluster

    @property
    def works(self) -> bool:
        """Whether this process runs commands; False for one that only submits to a broker."""
        return self._membership is None or self._membership.works

    @property
    def broker(self) -> Broker | None:
        """The broker; `None` without one."""
        return None if self._membership is None else self._membership.broker
