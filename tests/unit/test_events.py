"""Events as data: keys, payloads, times."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from lane_obs import CAUSES, LaneEvent, WaitByCause
from lane_obs.events import (
    EVENT_TYPES,
    CommandFailed,
    CommandStarted,
    CommandSubmitted,
    LanePressure,
    QueueStarted,
    ShutdownStarted,
)


def test_every_kind_of_event_has_a_key_of_its_own() -> None:
    keys = [kind.key for kind in EVENT_TYPES]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("queue.") and key == key.lower() for key in keys)


def test_the_keys_of_the_reference_are_kept() -> None:
    keys = {kind.key for kind in EVENT_TYPES}
    reference = {f"queue.command.{name}" for name in ("submitted", "started", "completed", "retry", "failed")}
    reference |= {"queue.command.timeout", "queue.command.dead_lettered"}
    reference |= {"queue.shutdown.started", "queue.lane.pressure", "queue.lane.idle"}
    assert reference <= keys


def test_every_event_is_a_lane_event_with_the_header_first() -> None:
    for kind in EVENT_TYPES:
        assert issubclass(kind, LaneEvent)
        assert kind.__struct_fields__[:3] == ("seq", "at", "wall"), kind


def test_the_timestamp_is_aware_and_in_utc() -> None:
    event = QueueStarted(1, 5.0, 1_767_225_600.25)
    assert event.timestamp == datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)


def test_the_payload_is_the_events_own_fields() -> None:
    assert LanePressure(1, 2.0, 3.0, "api", 7, 5).payload == {"lane": "api", "pending": 7, "threshold": 5}
    assert ShutdownStarted(1, 2.0, 3.0, 4, 2).payload == {"pending": 4, "running": 2}
    assert QueueStarted(1, 2.0, 3.0).payload == {}


def test_the_payload_is_plain_data_that_json_takes() -> None:
    started = CommandStarted(9, 1.0, 2.0, "id-1", "api", "fetch", 1, 0.5, WaitByCause(slots=0.5))
    payload = json.loads(json.dumps(started.payload))
    assert payload["command_id"] == "id-1"
    assert payload["wait_by_cause"] == {cause: 0.5 if cause == "slots" else 0.0 for cause in CAUSES}


def test_an_exception_is_not_part_of_the_payload() -> None:
    error = ValueError("no")
    failed = CommandFailed(
        9, 1.0, 2.0, "id-1", "api", "fetch", 1, run_seconds=1.0, error_type="ValueError", error="no", exception=error
    )
    assert failed.exception is error
    assert "exception" not in failed.payload
    assert failed.payload["error_type"] == "ValueError"
    assert failed.payload["run_seconds"] == 1.0


def test_an_event_cannot_be_changed() -> None:
    event = CommandSubmitted(1, 2.0, 3.0, "id-1", "api", "fetch", 0)
    with pytest.raises(AttributeError):
        event.lane = "other"  # type: ignore[misc]
    assert event == CommandSubmitted(1, 2.0, 3.0, "id-1", "api", "fetch", 0)


def test_waits_add_up_by_cause() -> None:
    total = WaitByCause(slots=1.0, delay=2.0) + WaitByCause(slots=0.5, pause=3.0)
    assert total == WaitByCause(slots=1.5, pause=3.0, delay=2.0)
    assert total.total == 6.5
    assert list(total.as_dict()) == list(CAUSES)
    assert msgspec.structs.asdict(total) == total.as_dict()
