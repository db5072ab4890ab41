"""What a broker cannot do is refused when the queue is built, or when the lane comes: no server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, Partitions, QueueManager, RateLimit
from lane_obs.clock import VirtualClock
from lane_obs.distributed import LocalBroker, PartitionedBroker, RedisBroker
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.distributed import Broker

NOBODY = "redis://127.0.0.1:1"
FINE = {"a": LaneConfig(0, 9)}
FAIR = LaneConfig(0, 9, partitions=Partitions.per_key(fair=True))


def _redis() -> Broker:
    return RedisBroker(NOBODY)


def _parts() -> Broker:
    return PartitionedBroker.of_redis(NOBODY, partitions=3)


def _mixed() -> Broker:
    return PartitionedBroker([LocalBroker(clock=VirtualClock()), RedisBroker(NOBODY), LocalBroker()])


REFUSED: list[tuple[Callable[[], Broker], LaneConfig, str]] = [
    (_redis, FAIR, r"lanes\.b\.partitions\.fair"),
    (_redis, LaneConfig(0, 9, priority=2**40), r"lanes\.b\.priority"),
    (_parts, FAIR, r"lanes\.b\.partitions\.fair"),
    (_mixed, FAIR, r"lanes\.b\.partitions\.fair"),
    (_parts, LaneConfig(0, 2), r"lanes\.b\.max_concurrency.*at least 3"),
    (_mixed, LaneConfig(0, 9, max_pending=2), r"lanes\.b\.max_pending.*at least 3"),
]
OF_THE_QUEUE: list[tuple[Callable[[], Broker], dict[str, Any], str]] = [
    (_parts, {"max_concurrency": 2}, "max_concurrency.*at least 3"),
    (_parts, {"rate_limit": RateLimit.sliding_window(2, 1.0)}, "rate_limit.sliding_window.*at least 3"),
]


@pytest.mark.parametrize(("make", "lane", "words"), REFUSED)
def test_a_queue_is_not_built_with_lanes_that_its_broker_cannot_have(
    make: Callable[[], Broker], lane: LaneConfig, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        QueueManager({**FINE, "b": lane}, broker=make())


@pytest.mark.parametrize(("make", "options", "words"), OF_THE_QUEUE)
def test_nor_with_limits_that_it_cannot_have(make: Callable[[], Broker], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        QueueManager(FINE, broker=make(), **options)


@pytest.mark.parametrize(("make", "lane", "words"), REFUSED)
def test_a_lane_that_it_cannot_have_does_not_come(make: Callable[[], Broker], lane: LaneConfig, words: str) -> None:
    manager = QueueManager(FINE, broker=make())
    with pytest.raises(ConfigError, match=words):
        manager.add_lane("b", lane)
    assert list(manager.lanes) == ["a"]


@pytest.mark.parametrize("make", [_redis, _parts, _mixed, LocalBroker])
def test_checking_changes_nothing(make: Callable[[], Broker]) -> None:
    broker = make()
    broker.check(FINE, None, ())
    broker.check({}, None, ())
    assert (broker.member, broker.health().ready) == ("", False)
    QueueManager(FINE, broker=broker)


async def test_lanes_of_other_members_count_where_they_are_known(clock: VirtualClock) -> None:
    first = LocalBroker(clock=clock)
    async with QueueManager({"a": LaneConfig(2, 4)}, max_concurrency=4, broker=first, clock=clock):
        with pytest.raises(ConfigError, match="give at least 5"):
            QueueManager({"b": LaneConfig(3, 4)}, max_concurrency=4, broker=first.join(), clock=clock)
