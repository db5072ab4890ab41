"""Links that tests open."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lane_obs.distributed.redis.link import Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def connected(url: str, timeout: float = 5.0, **options: Any) -> AsyncIterator[Link]:
    """A link to a server, with the options of `Link`."""
    link = Link(url, timeout=timeout, **options)
    await link.connect()
    try:
        yield link
    finally:
        await link.close()
