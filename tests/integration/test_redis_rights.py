"""The rights that docs/redis.md gives a user are enough for a queue, and no more than that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hiredis
import pytest

import lane_obs
from lane_obs import LaneConfig, QueueManager
from lane_obs.distributed import RedisBroker

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "redis.md"
LANES = {"a": LaneConfig(1, 2, max_pending=10), "b": LaneConfig(1, 1, priority=5)}


@lane_obs.command("rights.double")
async def double(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number * 2


async def test_the_documented_rights_are_enough(start_server: Callable[..., Any]) -> None:
    server = start_server()
    line = re.search(r"^ACL SETUSER .*$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert line is not None
    server.ask(*line[0].split())
    url = f"redis://lanes:secret@127.0.0.1:{server.port}"
    async with (
        QueueManager(LANES, broker=RedisBroker(url, lease=0.5), work=False) as web,
        QueueManager(LANES, broker=RedisBroker(url, lease=0.5)) as worker,
    ):
        handles = [await web.submit("a", double, number, key=f"k{number}") for number in range(5)]
        assert [await handle for handle in handles] == [0, 2, 4, 6, 8]
        late = await web.submit("b", double, 1, delay=100)
        assert await web.cluster.cancel(late.id) == "cancelled"
        failed = await web.submit("b", double, -1)
        with pytest.raises(lane_obs.RemoteError):
            await failed
        assert [letter.id for letter in await worker.cluster.letters()] == [failed.id]
        await worker.cluster.pause("a")
        await worker.cluster.resume("a")
        assert len((await web.cluster.stats()).members) == 2
    log = server.ask("ACL", "LOG")
    assert log == [], log
    for words in (("SET", "other", "1"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
        with pytest.raises(hiredis.ReplyError, match="NOPERM"):
            server.ask(*words, user="lanes", password="secret")
