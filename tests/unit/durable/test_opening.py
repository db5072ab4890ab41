"""The time in which a queue opens its storage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import LaneConfig, QueueManager, command
from lane_obs.errors import StorageClosed
from lane_obs.storage import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path

LANES = {"a": LaneConfig(0, 1)}


@command("opening.note")
async def note(text: str) -> str:
    return text


async def test_what_is_submitted_while_the_storage_is_being_opened_is_refused(tmp_path: Path) -> None:
    """Its number could be one that a stored command has."""
    async with QueueManager(LANES, storage=LocalStorage(tmp_path)) as manager:
        manager.pause("a")
        for _ in range(3):
            await manager.submit("a", note, "stored")
        await manager.close()
    again = QueueManager(LANES, storage=LocalStorage(tmp_path))
    starting = asyncio.ensure_future(again.start())
    await asyncio.sleep(0)
    with pytest.raises(StorageClosed, match="it is being opened; submit once start"):
        await again.submit("a", note, "too early")
    await starting
    await again.submit("a", note, "in time")
    await again.drain()
    assert again.stats().lanes["a"].ended["succeeded"] == 4
    await again.close()
