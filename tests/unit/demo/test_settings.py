"""The file of the demo: the default lanes, and rules for all that the story is meant to raise."""

from __future__ import annotations

from pathlib import Path

from lane_obs import DEFAULT_LANES
from lane_obs.demo.chapter import CHAPTERS, STORY_ALERTS
from lane_obs.demo.settings import SETTINGS, load_settings
from tests.integration.services import grafana

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "demo.toml"


def test_its_lanes_are_the_default_ones_under_one_limit() -> None:
    config, _ = load_settings()
    assert list(config.lanes) == list(DEFAULT_LANES)
    for name, lane in config.lanes.items():
        default = DEFAULT_LANES[name]
        assert (lane.priority, lane.min_concurrency, lane.max_concurrency) == (
            default.priority,
            default.min_concurrency,
            default.max_concurrency,
        )
    assert config.max_concurrency is not None


def test_each_alert_of_the_story_has_a_rule() -> None:
    specs = load_settings()[1].specs
    for alert in STORY_ALERTS:
        found = [
            spec
            for spec in specs
            if (spec.alert, spec.severity) == (alert.alert, alert.severity)
            and (spec.is_about(alert.lane) if alert.lane else spec.per == "queue")
        ]
        assert len(found) == 1, alert


def test_some_rules_are_there_to_stay_quiet() -> None:
    quiet = {spec.alert for spec in load_settings()[1].specs} - {alert.alert for alert in STORY_ALERTS}
    assert quiet >= {"LaneCommandsStuck", "QueueTelemetryDropping", "QueuePendingHigh", "QueueActiveHigh"}


def test_the_example_is_the_same_file() -> None:
    assert EXAMPLE.resolve() == SETTINGS.resolve()


def test_the_panels_that_the_story_points_to_are_there() -> None:
    there = {
        (name.removesuffix(".json"), panel["title"])
        for name in grafana.FILES
        for panel in grafana.panels(grafana.read(name))
    }
    assert {(panel.dashboard, panel.title) for chapter in CHAPTERS for panel in chapter.panels} <= there
    assert all(chapter.panels for chapter in CHAPTERS)
