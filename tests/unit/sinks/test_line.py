"""What a log line says of an event, before anyone writes it."""

from __future__ import annotations

from typing import Any

import pytest

from lane_obs import LaneEvent, WaitByCause
from lane_obs import events as kinds
from lane_obs.events import EVENT_TYPES
from lane_obs.sinks.line import URGENT, Redactor, clean, fields_of, form_of, kinds_from, line_of


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ("é", "é"),
        ("\ud800", "\\ud800"),
        ({1: ["\ud800", None, True, 1.5]}, {"1": ["\\ud800", None, True, 1.5]}),
        (("a", 2**63 - 1, 2**63, -(2**63)), ["a", 2**63 - 1, str(2**63), -(2**63)]),
        (WaitByCause(slots=1.0), WaitByCause(slots=1.0).as_dict()),
        (b"x", "b'x'"),
    ],
)
def test_clean_makes_text_of_what_cannot_be_written(value: Any, cleaned: Any) -> None:
    assert clean(value) == cleaned


def test_warnings_and_errors_are_urgent_and_nothing_else_is() -> None:
    assert kinds_from("warning") == URGENT
    assert kinds_from("debug") is None


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.key)
def test_no_line_has_a_key_twice_or_one_of_the_heads_own(kind: type[LaneEvent]) -> None:
    form = form_of(kind)
    keys = ["event", "level", *form.keys, *(["outcome"] if len(form.head) > 1 else [])]
    assert len(keys) == len(set(keys))
    assert not {"trace", "trace_id", "span_id", "exception", "seq", "at"} & set(keys)


def test_the_line_and_the_plain_fields_say_the_same() -> None:
    event = kinds.CommandCompleted(1, 2.0, 3.0, "id-1", "a", "f", 1, 0.5, 0.25)
    line, fields = line_of(event), fields_of(event)
    assert {key: getattr(line, key) for key in fields} == fields


def test_an_event_kind_that_is_not_known_here_is_a_debug_line() -> None:
    class Mine(LaneEvent, frozen=True):
        """Of someone else."""

        key = "mine"
        colour: str

    assert form_of(Mine).level == "debug"
    assert Redactor(None).fields_of(Mine(1, 2.0, 3.0, "red")) == {"timestamp": 3.0, "colour": "red"}
