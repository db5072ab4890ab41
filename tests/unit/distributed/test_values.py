"""Numbers that JSON does not have are refused with a word, wherever a value becomes JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import lane_obs
from lane_obs import InvalidCommand, LaneConfig, QueueManager, VirtualClock
from lane_obs.distributed import LocalBroker
from lane_obs.errors import ResultLost
from lane_obs.storage import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass
class Point:
    x: Any


class Box(msgspec.Struct):
    of: Any


@lane_obs.command("values.back")
async def back(what: Any) -> Any:
    return ODD[what] if isinstance(what, int) else what


@lane_obs.command("values.telling")
async def telling(number: int) -> None:
    lane_obs.current().report(ODD[number])


@lane_obs.command("values.Keep")
@dataclasses.dataclass
class Keep(lane_obs.Command[float | None]):
    number: float | None

    async def execute(self) -> float | None:
        return self.number


ODD: list[Any] = [
    math.nan, math.inf, -math.inf, [1.0, math.nan], {"a": (None, math.inf)}, Point(math.nan), Box([Point(-math.inf)]),
]  # fmt: skip
EVEN: list[Any] = [None, [None, "null"], {"null": 1.5}, "null", "nan", 1e308, ["null", {"a": None}]]


@pytest.mark.parametrize("number", range(len(ODD)))
async def test_what_is_no_number_in_json_is_no_argument_and_no_result(clock: VirtualClock, number: int) -> None:
    async with QueueManager({"a": LaneConfig()}, broker=LocalBroker(clock=clock), clock=clock) as manager:
        for work, arguments in ((back, (ODD[number],)), (back, ([ODD[number]],))):
            with pytest.raises(InvalidCommand, match=r"(nan|inf) is no number in JSON"):
                await clock.run(manager.submit("a", work, *arguments))
        with pytest.raises(ResultLost, match=r"its result cannot be sent: .*(nan|inf) is no number"):
            await clock.run(await clock.run(manager.submit("a", back, number)))
        handle = await clock.run(manager.submit("a", telling, number))
        with pytest.raises(lane_obs.CommandError, match="is no number in JSON"):
            await clock.run(handle)


@pytest.mark.parametrize("value", EVEN)
async def test_null_itself_and_what_looks_like_it_travels(clock: VirtualClock, value: Any) -> None:
    async with QueueManager({"a": LaneConfig()}, broker=LocalBroker(clock=clock), clock=clock) as manager:
        assert await clock.run(await clock.run(manager.submit("a", back, value))) == value


async def test_a_storage_keeps_no_such_number(clock: VirtualClock, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    async with QueueManager({"a": LaneConfig()}, storage=storage, clock=clock) as manager:
        with pytest.raises(InvalidCommand, match=r"'values.Keep' cannot be stored: fields: nan is no number"):
            await manager.submit("a", Keep(math.nan))
        with pytest.raises(InvalidCommand, match=r"arguments\[0\] float: inf is no number"):
            await manager.submit("a", back, math.inf)
        handle = await manager.submit("a", Keep(None))
        assert await handle is None
