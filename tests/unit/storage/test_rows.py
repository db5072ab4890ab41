"""Commands and letters are read as they were written, or not at all."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs.storage import StoredCommand, StoredDeadLetter, Update
from lane_obs.storage.sqlite.row import (
    COLUMNS,
    FIXED,
    DamagedRow,
    command_row,
    letter_row,
    state_row,
    to_command,
    to_letter,
)
from tests.unit.storage.support import command, letter

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.floats(allow_nan=False, width=64)
numbers = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def records(kind: Any) -> Any:
    by_type = {
        "str": texts, "int": numbers, "float": times, "bytes": st.binary(max_size=50),
        "dict[str, Any]": st.dictionaries(texts, values, max_size=3), "str | None": st.none() | texts,
        "float | None": st.none() | times,
    }  # fmt: skip
    return st.builds(kind, **{name: by_type[text] for name, text in kind.__annotations__.items()})


@given(records(StoredCommand))
@settings(max_examples=200, deadline=None)
def test_a_command_is_read_as_it_was_written(stored: StoredCommand) -> None:
    assert to_command(command_row(stored)) == stored


@given(records(StoredDeadLetter))
@settings(max_examples=200, deadline=None)
def test_a_letter_is_read_as_it_was_written(stored: StoredDeadLetter) -> None:
    assert to_letter(letter_row(stored)) == stored


@pytest.mark.parametrize("place", range(len(COLUMNS)))
def test_a_command_with_any_column_changed_is_not_believed(place: int) -> None:
    row = list(command_row(command(7)))
    row[place] = 8 if row[place] != 8 else 9
    with pytest.raises(DamagedRow, match="checksum"):
        to_command(row)


@pytest.mark.parametrize("place", range(16))
def test_a_letter_with_any_column_changed_is_not_believed(place: int) -> None:
    row = list(letter_row(letter(7)))
    row[place] = 8 if row[place] != 8 else 9
    with pytest.raises(DamagedRow, match="checksum"):
        to_letter(row)


def test_the_state_of_one_command_does_not_pass_for_that_of_another() -> None:
    with pytest.raises(DamagedRow):
        to_command(command_row(command(1))[: len(FIXED)] + state_row(command(2)))


def test_an_update_writes_the_same_columns_as_a_save() -> None:
    stored = command(1, state="backoff", attempt=3, not_before=5.0, deaths=1, last_error_type="E", last_error="e")
    update = Update(
        id="c1", state="backoff", attempt=3, not_before=5.0, deaths=1, last_error_type="E", last_error="e",
        updated_at=stored.updated_at,
    )  # fmt: skip
    assert state_row(update) == command_row(stored)[len(FIXED) :]


class Word(StrEnum):
    READY = "ready"


def test_whole_seconds_words_of_an_enumeration_and_byte_arrays_are_written_as_what_they_mean() -> None:
    odd = StoredCommand(
        id="c1", seq=True, lane="a", command_type="w", payload=bytearray(b"x"), state=Word.READY, not_before=5,
        submitted_at=1, deadline=math.inf,
    )  # fmt: skip
    found = to_command(command_row(odd))
    assert found == msgspec.structs.replace(odd, payload=b"x")
    assert [type(found.seq), type(found.not_before), type(found.state)] == [int, float, str]


def test_a_lone_surrogate_in_the_text_of_an_error_does_not_keep_it_from_being_stored() -> None:
    found = to_letter(letter_row(letter(1, error="a \udcff ä", traceback="\ud800")))
    assert (found.error, found.traceback) == ("a \\udcff ä", "\\ud800")
    stored = command(1, last_error="\udcff")
    assert to_command(command_row(stored)).last_error == "\\udcff"


@pytest.mark.parametrize(
    "fields",
    [{"deadline": math.nan}, {"lane": "\udcff"}, {"options": {"a": object()}}, {"seq": 2**64}, {"seq": "x"}],
)
def test_what_cannot_be_stored_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        command_row(msgspec.structs.replace(command(1), **fields))


@pytest.mark.parametrize("value", [5, 5.5, b"5", True])
@pytest.mark.parametrize("name", ["id", "lane", "command_type", "key", "trace"])
def test_what_must_be_text_and_is_none_is_refused(name: str, value: Any) -> None:
    for stored, to_row in ((command(1), command_row), (letter(1), letter_row)):
        with pytest.raises(TypeError, match=f"{name} must be text, not {type(value).__name__}"):
            to_row(msgspec.structs.replace(stored, **{name: value}))  # type: ignore[operator]


@pytest.mark.parametrize(
    "fields",
    [{"id": None}, {"lane": None}, {"payload": 5}, {"payload": "text"}, {"payload": [1]}, {"options": ["a"]},
     {"options": []}, {"options": None}],
)  # fmt: skip
def test_what_would_be_read_back_as_something_else_is_refused(fields: dict[str, Any]) -> None:
    for stored, to_row in ((command(1), command_row), (letter(1), letter_row)):
        with pytest.raises(TypeError):
            to_row(msgspec.structs.replace(stored, **fields))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["error", "error_type", "traceback"])
def test_an_error_is_told_in_text(name: str) -> None:
    with pytest.raises(TypeError, match="text, not int"):
        letter_row(msgspec.structs.replace(letter(1), **{name: 5}))
    if name != "traceback":
        with pytest.raises(TypeError, match="text, not int"):
            state_row(msgspec.structs.replace(command(1), **{f"last_{name}": 5}))
