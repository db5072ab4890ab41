"""The three Grafana dashboards, with the levels of any rules.

python -m dashboards.grafana lanes.toml DIRECTORY    # with those of a file's own rules
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dashboards import lane, overview, process
from dashboards.levels import Levels
from lane_obs.alerts import load_alerts
from lane_obs.demo.settings import SETTINGS
from lane_obs.monitor import MonitorConfig

if TYPE_CHECKING:
    from collections.abc import Callable

BOARDS: Final[dict[str, Callable[[Levels], str]]] = {
    "overview.json": overview.text,
    "lane.json": lane.text,
    "process.json": process.text,
}
"""What makes each dashboard, by the name of its file."""

DEMO: Final = "../deploy/grafana/dashboards"
"""Where those with the levels of the demo's rules go: `deploy/compose.yaml` shows the demo."""


def _of_monitor(name: str) -> str:
    return BOARDS[name](Levels(MonitorConfig().specs))


def _of_demo(name: str) -> str:
    return BOARDS[name](Levels(load_alerts(SETTINGS).specs))


OUTPUTS: Final[dict[str, Callable[[], str]]] = {
    **{name: partial(_of_monitor, name) for name in BOARDS},
    **{f"{DEMO}/{name}": partial(_of_demo, name) for name in BOARDS},
}


def main(rules: str, directory: str) -> None:
    """Writes the dashboards with the levels of a file's rules."""
    levels = Levels(load_alerts(rules).specs)
    for name, text in BOARDS.items():
        (Path(directory) / name).write_text(text(levels), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
