"""Limits that are divided among partitions: the shares give together just what was asked for."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lane_obs.config import LaneConfig, RateLimit, check_lanes
from lane_obs.distributed.partitioned.route import number_of, partition_of
from lane_obs.distributed.partitioned.share import Divider, divide_count, most_cost
from lane_obs.distributed.record import NewCommand
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.distributed.partitioned.share import Share

COUNTS = st.integers(1, 9)
TOKENS = st.one_of(st.integers(1, 60).map(float), st.floats(1.0, 1e6))


@st.composite
def rate_limits(draw: st.DrawFn) -> RateLimit:
    if draw(st.booleans()):
        return RateLimit.sliding_window(draw(TOKENS), draw(st.floats(0.1, 60.0)))
    return RateLimit.per_second(draw(st.floats(0.01, 1e6)), burst=draw(TOKENS))


@st.composite
def lane_configs(draw: st.DrawFn) -> LaneConfig:
    most = draw(st.integers(1, 40))
    return LaneConfig(
        draw(st.integers(0, min(most, 5))),
        most,
        max_pending=draw(st.none() | st.integers(1, 60)),
        rate_limit=draw(st.none() | rate_limits()),
    )


@given(
    st.dictionaries(st.sampled_from("abcdef"), lane_configs(), min_size=1),
    st.none() | st.integers(1, 60),
    st.lists(rate_limits(), max_size=2),
    COUNTS,
)
def test_shares_add_up_or_are_refused(
    lanes: Mapping[str, LaneConfig], most: int | None, limits: Sequence[RateLimit], count: int
) -> None:
    try:
        check_lanes(lanes, most, limits)
    except ConfigError:
        assume(False)
    try:
        shares = Divider(count).divide(lanes, most, limits)
    except ConfigError:
        with pytest.raises(ConfigError, match="fewer partitions"):
            Divider(count).divide(lanes, most, limits)
        return
    assert len(shares) == count
    for share in shares:
        check_lanes(share.lanes, share.max_concurrency, share.rate_limits)
    _adds_up([share.max_concurrency for share in shares], most)
    for name, lane in lanes.items():
        own = [share.lanes[name] for share in shares]
        assert sum(one.min_concurrency for one in own) == lane.min_concurrency
        _adds_up([one.max_concurrency for one in own], lane.max_concurrency)
        _adds_up([one.max_pending for one in own], lane.max_pending)
        for divided, limit in zip(zip(*(one.rate_limits for one in own), strict=True), lane.rate_limits, strict=True):
            _limits_add_up(divided, limit)
    for divided, limit in zip(zip(*(share.rate_limits for share in shares), strict=True), limits, strict=True):
        _limits_add_up(divided, limit)


def _adds_up(shares: Sequence[int | None], whole: int | None) -> None:
    if whole is None:
        assert set(shares) == {None}
        return
    counts = [share or 0 for share in shares]
    assert sum(counts) == whole
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def _limits_add_up(shares: Sequence[RateLimit], whole: RateLimit) -> None:
    held, most = [share.most for share in shares], whole.most
    assert math.fsum(held) == pytest.approx(most, rel=1e-12)
    assert sum(map(math.floor, held)) == math.floor(most)  # what commands of cost 1 may take is exact
    assert min(held) >= 1
    assert math.fsum(share.amount for share in shares) == pytest.approx(whole.amount, rel=1e-12)
    assert {(share.seconds, share.name) for share in shares} == {(whole.seconds, whole.name)}
    assert most_cost(whole, len(shares)) <= min(held)


@given(st.lists(lane_configs(), min_size=2, max_size=6), COUNTS)
def test_they_do_not_hang_on_the_order_of_lanes(configs: list[LaneConfig], count: int) -> None:
    """Two processes that name the same lanes in another order must not put other shares in force."""
    lanes = dict(zip("abcdef", configs, strict=False))

    def shares(some: Mapping[str, LaneConfig]) -> list[Share] | str:
        try:
            return Divider(count).divide(some, None, ())
        except ConfigError:
            return "refused"

    assert shares(lanes) == shares(dict(reversed(lanes.items())))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), lane_configs()), min_size=2, max_size=6), COUNTS)
def test_they_do_not_hang_on_what_was_divided_before(steps: list[dict[str, LaneConfig]], count: int) -> None:
    """A lane comes, goes or changes: the shares are those that a process comes to which begins with these lanes."""

    def shares(divider: Divider, lanes: Mapping[str, LaneConfig]) -> list[Share] | str:
        try:
            return divider.divide(lanes, None, ())
        except ConfigError as error:
            return str(error)

    divider, lanes = Divider(count), dict[str, LaneConfig]()
    for step in steps:
        lanes = step if lanes.keys() & step else {**lanes, **step}
        assert shares(divider, lanes) == shares(Divider(count), lanes)


def test_a_lane_that_comes_leaves_the_shares_of_others() -> None:
    """With thousands of lanes it must not take as long as all of them together."""
    divider, lanes = Divider(3), {name: LaneConfig(0, 9) for name in "abc"}
    before = divider.divide(lanes, None, ())
    after = divider.divide({**lanes, "d": LaneConfig(1, 4)}, None, ())
    for old, new in zip(before, after, strict=True):
        assert all(new.lanes[name] is lane for name, lane in old.lanes.items())


@given(st.integers(1, 10_000), COUNTS, st.integers(0, 8))
def test_counts(value: int, count: int, start: int) -> None:
    if value < count:
        with pytest.raises(ConfigError, match=f"give at least {count}, or fewer partitions"):
            divide_count("x", value, count, start)
        return
    shares = divide_count("x", value, count, start)
    _adds_up(shares, value)
    assert shares[start % count] == max(shares)


def test_the_six_default_reservations_fit() -> None:
    lanes = {name: LaneConfig(1, 8) for name in ("system", "control", "query", "session", "skill", "prompt")}
    for most, count in itertools.product(range(7, 30), range(2, 6)):
        if most > 6 + count:
            assert sum(share.max_concurrency or 0 for share in Divider(count).divide(lanes, most, ())) == most


def test_what_cannot_be_divided_is_named() -> None:
    def refusal(lane: LaneConfig, most: int | None = None, limits: Sequence[RateLimit] = ()) -> str:
        with pytest.raises(ConfigError) as refused:
            Divider(4).divide({"api": lane}, most, limits)
        return str(refused.value)

    least = "is not allowed; give at least 4, or fewer partitions: each of 4 gets a share of it"
    assert refusal(LaneConfig(1, 3)) == f"lanes.api.max_concurrency: 3 {least}"
    assert refusal(LaneConfig(1, 4, max_pending=2)) == f"lanes.api.max_pending: 2 {least}"
    assert refusal(LaneConfig(1, 4), 3) == f"max_concurrency: 3 {least}"
    window = RateLimit.sliding_window(3, 1)
    assert refusal(LaneConfig(1, 4, rate_limit=window)) == f"lanes.api.rate_limit.sliding_window: 3.0 {least}"
    assert refusal(LaneConfig(1, 4), None, [RateLimit.per_second(3)]) == f"rate_limit.burst: 3.0 {least}"
    slow = RateLimit(2e-9, 3.15, 8)
    assert "give more, or fewer partitions: give a number above zero" in refusal(LaneConfig(1, 4, rate_limit=slow))
    assert "partition 1 has 1 of it; give more: all its slots are reserved" in refusal_of_reserved()


def refusal_of_reserved() -> str:
    lanes = {"a": LaneConfig(1, 4), "b": LaneConfig(1, 4), "c": LaneConfig(1, 4)}
    with pytest.raises(ConfigError) as refused:
        Divider(4).divide(lanes, 4, ())
    return (
        str(refused.value)
        .replace("partition 0", "partition 1")
        .replace("partition 2", "partition 1")
        .replace("partition 3", "partition 1")
    )


@given(st.text(min_size=1), st.none() | st.text(min_size=1), st.none() | st.text(min_size=1), COUNTS)
def test_a_command_goes_where_its_partition_key_its_key_or_its_id_says(
    name: str, key: str | None, part: str | None, count: int
) -> None:
    text = part if part is not None else key if key is not None else name
    found = partition_of(NewCommand(name, "a", b"", key=key, part=part), count)
    assert found == number_of(text, count)
    assert 0 <= found < count


def test_where_a_command_goes_never_changes() -> None:
    """Processes of all versions have to agree."""
    assert [number_of(text, 4) for text in ("", "a", "customer-17", "ü")] == [0, 3, 3, 1]
