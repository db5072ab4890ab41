"""The row about what a lane's own policies do to its order and its pace: rate limits, boosts, partitions."""

from __future__ import annotations

from dashboards.board import Row
from dashboards.panels import COUNT, PER_SECOND, RATIO, SECONDS, Query, Words, graph
from dashboards.promql import highest, rate, total
from lane_obs.metrics import catalogue as c

_NO_LIMIT, _NO_PARTITIONS = "No rate limit", "No partitions"


def row() -> Row:
    """Of the dashboard of a lane."""
    panels = [
        graph(
            Words("Rate limit left", "What the lane's tightest rate limit would let through now, in cost."),
            Query(total(c.RATE_LEFT, "lane"), "{{lane}}"),
            unit=COUNT,
            none=_NO_LIMIT,
        ),
        graph(
            Words(
                "Held back",
                "Time in which a rate limit held all ready work back, or other commands of the same partitions did, as "
                "a share of all time.",
            ),
            Query(rate(c.BLOCKED, "lane", "cause", where=('cause=~"rate_limit|partition"',)), "{{lane}} {{cause}}"),
            unit=RATIO,
            stacked=True,
        ),
        graph(
            Words("Boosts", "How often the priority of a waiting command rose, by deadline or age, by the second."),
            Query(rate(c.BOOSTED, "lane"), "{{lane}}"),
            unit=PER_SECOND,
        ),
        graph(
            Words("Partitions", "Partitions that have a command: it waits, runs or backs off."),
            Query(total(c.PARTITIONS, "lane"), "{{lane}}"),
            unit=COUNT,
            none=_NO_PARTITIONS,
        ),
        graph(
            Words(
                "Largest partitions",
                "Ready commands of the partitions that have most of them, ten at most; none where a lane has more than "
                "1,000.",
            ),
            Query(total(c.PARTITION_DEPTH, "lane", "partition"), "{{lane}} {{partition}}"),
            unit=COUNT,
            none=_NO_PARTITIONS,
        ),
        graph(
            Words(
                "Partitions that wait longest",
                "How long the next command of a partition has been ready, of the ten where that is longest; none where "
                "a lane has more than 1,000.",
            ),
            Query(highest(c.PARTITION_AGE, "lane", "partition"), "{{lane}} {{partition}}"),
            unit=SECONDS,
            none=_NO_PARTITIONS,
        ),
    ]
    return Row("Rate limits, boosts, partitions", panels)
