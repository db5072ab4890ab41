"""Fair turns among tenants against first come, first served, on a trace that is written here."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lane_obs import LaneConfig, Partitions, QueueConfig, VirtualClock
from lane_obs.simulation.replay import replay
from lane_obs.simulation.summary import Spread, spread
from lane_obs.simulation.trace import read_trace

if TYPE_CHECKING:
    from lane_obs.simulation.trace import Trace

HEAVY, LIGHT = "heavy", ("light-1", "light-2", "light-3", "light-4")
FIFO, PER_KEY, FAIR = None, Partitions.per_key(), Partitions.per_key(fair=True)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """600 s of requests; the heavy tenant sends 60 % of them, in bursts of 12, the others one by one."""
    rng, rows = random.Random(6), []
    for burst in range(25):
        rows += [(24.0 * burst, 1.2, HEAVY) for _ in range(12)]
    rows += [(round(rng.uniform(0, 600), 3), 1.2, rng.choice(LIGHT)) for _ in range(200)]
    path = tmp_path_factory.mktemp("fair") / "trace.csv"
    lines = [f"{at},a,{seconds},{tenant}" for at, seconds, tenant in rows]
    path.write_text("\n".join(["timestamp,lane,duration,partition_key", *lines]) + "\n", "utf-8")
    return read_trace(str(path))


async def waits(trace: Trace, partitions: Partitions | None, slots: int) -> tuple[Spread, Spread, float]:
    """Those of the light tenants, those of the heavy one, and when the last command ended."""
    clock, config = VirtualClock(start=0.0), QueueConfig({"a": LaneConfig(0, slots, partitions=partitions)})
    result = await clock.run(replay(trace, config, clock))
    pairs = list(zip(trace.commands, result.records, strict=True))
    light = spread(record.wait_seconds for command, record in pairs if command.partition_key != HEAVY)
    heavy = spread(record.wait_seconds for command, record in pairs if command.partition_key == HEAVY)
    return light, heavy, max(record.finished_at for record in result.records)


def ranks(found: Spread) -> tuple[float, float, float]:
    assert found.p50 is not None
    assert found.p95 is not None
    assert found.p99 is not None
    return found.p50, found.p95, found.p99


def is_less(first: Spread, second: Spread) -> bool:
    return all(a < b for a, b in zip(ranks(first), ranks(second), strict=True))


async def test_fair_turns_shorten_the_waits_of_light_tenants_at_the_cost_of_the_heavy_one(trace: Trace) -> None:
    light, heavy, end = await waits(trace, FIFO, 1)
    fair_light, fair_heavy, fair_end = await waits(trace, FAIR, 1)
    assert is_less(fair_light, light)
    assert is_less(heavy, fair_heavy)
    assert ranks(fair_light)[0] < ranks(light)[0] / 2
    assert fair_end == end  # the same work at the same pace, in another order


async def test_with_one_slot_partitions_alone_change_nothing(trace: Trace) -> None:
    assert await waits(trace, PER_KEY, 1) == await waits(trace, FIFO, 1)


async def test_with_more_slots_partitions_alone_keep_a_burst_from_taking_them_all(trace: Trace) -> None:
    light, heavy, _ = await waits(trace, FIFO, 2)
    keyed_light, keyed_heavy, _ = await waits(trace, PER_KEY, 2)
    assert ranks(keyed_light)[1:] < ranks(light)[1:]  # with two slots for the work of one, half of them never wait
    assert is_less(heavy, keyed_heavy)


async def test_a_replay_with_partitions_is_the_same_each_time(trace: Trace) -> None:
    assert await waits(trace, FAIR, 1) == await waits(trace, FAIR, 1)
