"""A link for a thread that has no event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lane_obs.distributed.redis.link import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.distributed.redis.link import Script


class ThreadLink:
    """What `Link` does, for one thread; each call blocks it. It connects when it is first asked for something.

    Args:
        url: as for `Link`.
        timeout: seconds that a call may take, with all its tries.

    Raises:
        ConfigError: the URL is wrong.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._link = Link(url, timeout=timeout)
        self._timeout = timeout
        self._runner: asyncio.Runner | None = None

    def run(self, script: Script, keys: Sequence[str | bytes], args: Sequence[bytes | str | int]) -> Any:
        """Runs a script, as `Link.run` does.

        Raises:
            BrokerUnavailable: the time is over.
            BrokerRefused: the server takes nothing, or does not allow it.
            BrokerError: the script failed.
        """
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        return self._runner.run(self._link.run(script, keys, args, wait=self._timeout))

    def close(self) -> None:
        """Closes its connection; from the same thread."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.run(self._link.close())
            runner.close()
