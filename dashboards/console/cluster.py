"""The queue that many processes share, as the broker has it; nothing where there is no broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards.console.language import asked, part
from dashboards.console.table import Column, cells, heads, queries
from dashboards.panels import SECONDS
from dashboards.promql import highest
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

_LANES: Final = {
    **{
        f"at_broker_{state}": Column(state.capitalize(), highest(c.CLUSTER_DEPTH, "lane", where=(f'state="{state}"',)))
        for state in c.STATES
    },
    "in_all": Column("Running", highest(c.CLUSTER_ACTIVE, "lane")),
    "most": Column("Limit", highest(c.CLUSTER_LIMIT, "lane")),
    "at_broker_age": Column("Oldest ready", highest(c.CLUSTER_OLDEST, "lane"), SECONDS, "cluster_oldest_ready_age"),
    "letters": Column("Dead letters", highest(c.CLUSTER_LETTERS, "lane")),
    "held": Column("Paused", highest(c.CLUSTER_PAUSED, "lane")),
}


def section(levels: Levels) -> str:
    """A table of its lanes, and how many processes there are."""
    return part(
        "cluster.html",
        lanes=asked(highest(c.CLUSTER_ACTIVE, "lane")),
        columns=queries(_LANES),
        heads=heads(_LANES),
        cells=cells(levels, "lane", _LANES),
        members=asked(highest(c.CLUSTER_MEMBERS, "role")),
        slots=asked(highest(c.CLUSTER_SLOTS)),
    )
