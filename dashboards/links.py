"""Where one can go from here: another dashboard with everything kept, the traces of a lane, the runbook."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

from lane_obs.alerts.spec import RUNBOOK

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import DashboardLink

    from lane_obs.alerts import AlertSpec

TAG: Final = "lane-obs"
"""All these dashboards have it, and are found by it."""

OVERVIEW: Final = "lane-obs-overview"
LANE: Final = "lane-obs-lane"
PROCESS: Final = "lane-obs-process"

_KEPT: Final = ("datasource", "traces", "service", "job", "instance", "queue")
_VARIABLE: Final = re.compile(r"(\$\{[^}]*\})")


def lane_of(lane: str) -> dashboard.DashboardLink:
    """To the dashboard of the lane that something is about, with the other variables and the time kept."""
    kept = "&".join(f"${{{name}:queryparam}}" for name in _KEPT)
    return dashboard.DashboardLink("Lane ${__field.labels.lane}" if "labels" in lane else "Lane").url(
        f"/d/{LANE}?var-lane={lane}&{kept}&${{__url_time_range}}"
    )


def traces_of(lane: str) -> dashboard.DashboardLink:
    """To the traces of the lane's attempts in Explore."""
    return dashboard.DashboardLink("Traces of this lane").url(_explore(f"process {lane}"))


def of_dashboard() -> list[Builder[DashboardLink]]:
    """What stands at the top of each dashboard."""
    others = dashboard.DashboardLink("lane_obs").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    traces = dashboard.DashboardLink("Traces").type(DashboardLinkType.LINK).url(_explore()).icon("external link")
    runbook_link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(RUNBOOK).icon("doc")
    return [
        others.as_dropdown(as_dropdown=False).include_vars(include_vars=True).keep_time(keep_time=True),
        traces.tooltip("Search the traces of the service in Explore").target_blank(target_blank=True),
        runbook_link.tooltip("What each alert means and what to do").target_blank(target_blank=True),
    ]


def runbook(spec: AlertSpec) -> dashboard.DashboardLink:
    """To what the runbook says of an alert."""
    return (
        dashboard.DashboardLink(f"Runbook: {spec.rule}")
        .type(DashboardLinkType.LINK)
        .url(spec.runbook)
        .target_blank(target_blank=True)
    )


def _explore(operation: str = "") -> str:
    narrowed = f',"operation":"{operation}"' if operation else ""
    query = (
        '{"refId":"A","datasource":{"type":"jaeger","uid":"${traces}"},"queryType":"search","service":"${service}"'
        f'{narrowed},"limit":50}}'
    )
    pane = (
        f'{{"a":{{"datasource":"${{traces}}","queries":[{query}],"range":{{"from":"${{__from}}","to":"${{__to}}"}}}}}}'
    )
    # Grafana puts the variables in after this: they must stay as they are.
    return "/explore?schemaVersion=1&panes=" + "".join(
        part if _VARIABLE.fullmatch(part) else quote(part, safe="") for part in _VARIABLE.split(pane)
    )
