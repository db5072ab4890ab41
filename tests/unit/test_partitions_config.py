"""Partitions: what is taken, what is refused and with which words, and which partition a command gets."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from lane_obs import ConfigError, InvalidCommand, Partitions
from lane_obs.config.partitions import PartitionKind
from lane_obs.config.table import partitions_from_table


async def asynchronous(command_type: str, key: str | None) -> int:
    return 0


BAD: list[tuple[Any, str, object, str]] = [
    (lambda: Partitions.by_key(0), "by_key", 0, "whole number of 1 or more"),
    (lambda: Partitions.by_key(True), "by_key", True, "whole number of 1 or more"),
    (lambda: Partitions.by_key(None), "by_key", None, "whole number of 1 or more"),  # type: ignore[arg-type]
    (lambda: Partitions.round_robin(-1), "round_robin", -1, "whole number of 1 or more"),
    (lambda: Partitions.round_robin(2.0), "round_robin", 2.0, "whole number of 1 or more"),  # type: ignore[arg-type]
    (lambda: Partitions.custom(hash, 0), "custom", 0, "whole number of 1 or more"),  # type: ignore[arg-type]
    (lambda: Partitions.custom(None), "function", None, "give a plain function"),  # type: ignore[arg-type]
    (lambda: Partitions.custom(asynchronous), "function", asynchronous, "give a plain function"),  # type: ignore[arg-type]
    (lambda: Partitions("per_key", 3), "count", 3, "give none"),
    (lambda: Partitions("per_key", function=max), "function", max, "Partitions.custom only"),  # type: ignore[arg-type]
    (lambda: Partitions("by_user"), "kind", "by_user", "'by_key', 'per_key', 'round_robin', 'custom'"),
    (lambda: Partitions.per_key(fair=1), "fair", 1, "give True or False"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "field", "value", "words"), BAD)
def test_what_is_not_allowed_is_refused(make: Any, field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert (caught.value.field, caught.value.value) == (f"partitions.{field}", value)
    assert words in str(caught.value)


def test_partitions_are_frozen_values() -> None:
    assert Partitions.by_key(4) == Partitions("by_key", 4)
    assert Partitions.by_key(4, fair=True) != Partitions.by_key(4)
    assert dataclasses.replace(Partitions.by_key(4), count=8) == Partitions.by_key(8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Partitions.by_key(4).count = 3  # type: ignore[misc]
    assert Partitions.per_key().kind is PartitionKind.PER_KEY


# --- which partition --------------------------------------------------------------------------------------------


def test_a_key_has_the_same_partition_in_every_process() -> None:
    keys = ["", "tenant-1", "tenant-2", "Zürich", "\U0001f600"]
    program = (
        "from lane_obs import Partitions\n"
        f"print([Partitions.by_key(16).assign('t', key, 0) for key in {keys!r}])"
    )  # fmt: skip
    here = [Partitions.by_key(16).assign("t", key, 0) for key in keys]
    assert here == [0, 15, 5, 14, 4]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.stdout == f"{here}\n"


def test_the_hash_is_crc_32_by_its_published_check_value() -> None:
    assert Partitions.by_key(2**32).assign("t", "123456789", 0) == 0xCBF43926


@pytest.mark.parametrize("count", [2, 7, 16, 100])
@pytest.mark.parametrize("name", ["{}", "user-{}", "00000000-0000-4000-8000-{:012}", "{}@example.org"])
def test_keys_that_are_alike_are_spread_evenly(count: int, name: str) -> None:
    partitions, keys = Partitions.by_key(count), 20_000
    loads = Counter(partitions.assign("t", name.format(number), 0) for number in range(keys))
    assert set(loads) == set(range(count))
    assert max(loads.values()) < 1.35 * keys / count


def test_per_key_is_the_key_itself() -> None:
    partitions = Partitions.per_key()
    assert [partitions.assign("t", key, 9) for key in ("a", "b", "")] == ["a", "b", ""]


@pytest.mark.parametrize("partitions", [Partitions.per_key(), Partitions.by_key(4)])
def test_a_command_without_a_key_is_in_no_partition_by_key(partitions: Partitions) -> None:
    assert partitions.assign("t", None, 1) is None


def test_round_robin_deals_out_by_the_number_of_the_submit() -> None:
    partitions = Partitions.round_robin(3)
    assert [partitions.assign("t", None, turn) for turn in range(1, 8)] == [1, 2, 0, 1, 2, 0, 1]


def test_a_function_gets_type_and_key_and_may_say_none() -> None:
    partitions = Partitions.custom(lambda command_type, key: (command_type, key) if key else None)
    assert partitions.assign("send", "x", 1) == ("send", "x")
    assert partitions.assign("send", None, 2) is None
    bounded = Partitions.custom(lambda _type, key: None if key is None else len(key), 4)
    assert [bounded.assign("t", key, 0) for key in ("", "abc", None)] == [0, 3, None]


@pytest.mark.parametrize("given", [-1, 4, True, 1.0, "1", float("nan")])
def test_a_partition_that_there_is_not_is_refused(given: Any) -> None:
    with pytest.raises(InvalidCommand, match=r"'send'.*key 'x'.*not a whole number from 0 to 3"):
        Partitions.custom(lambda _type, _key: given, 4).assign("send", "x", 0)


def test_what_has_no_name_is_refused() -> None:
    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError("no name")

    with pytest.raises(InvalidCommand, match="no name"):
        Partitions.custom(lambda _type, _key: Nameless()).assign("f", None, 0)


def test_what_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(InvalidCommand, match="unhashable type: 'list'"):
        Partitions.custom(lambda _type, _key: [], None).assign("send", "x", 0)  # type: ignore[arg-type,return-value]


def test_a_function_that_fails_is_an_invalid_command_with_its_cause() -> None:
    with pytest.raises(
        InvalidCommand, match="no partition for a command 'send' with key None: KeyError: 'send'"
    ) as caught:
        Partitions.custom(lambda command_type, _key: dict[str, int]()[command_type]).assign("send", None, 0)
    assert isinstance(caught.value.__cause__, KeyError)


# --- from a file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "partitions"),
    [
        ({"by_key": 16, "fair": True}, Partitions.by_key(16, fair=True)),
        ({"per_key": True}, Partitions.per_key()),
        ({"per_key": True, "fair": False}, Partitions.per_key()),
        ({"round_robin": 4}, Partitions.round_robin(4)),
    ],
)
def test_tables_that_are_taken(table: dict[str, Any], partitions: Partitions) -> None:
    assert partitions_from_table("partitions", table) == partitions


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        (16, "partitions", "give a table"),
        ({}, "partitions", "give one of by_key, per_key, round_robin"),
        ({"fair": True}, "partitions", "give one of by_key, per_key, round_robin"),
        ({"by_key": 4, "per_key": True}, "partitions", "give one of"),
        ({"by_keys": 4}, "partitions.by_keys", "did you mean 'by_key'?"),
        ({"by_key": 0}, "partitions.by_key", "whole number of 1 or more"),
        ({"by_key": True}, "partitions.by_key", "whole number of 1 or more"),
        ({"per_key": False}, "partitions.per_key", "give true"),
        ({"per_key": 1}, "partitions.per_key", "give true"),
        ({"round_robin": "4"}, "partitions.round_robin", "whole number of 1 or more"),
        ({"by_key": 4, "fair": "yes"}, "partitions.fair", "give true or false"),
        ({"custom": "module:function"}, "partitions.custom", "a function cannot come from a file"),
        ({"function": "module:function", "by_key": 4}, "partitions.function", "a function cannot come from a file"),
    ],
)
def test_tables_that_are_refused(table: Any, field: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        partitions_from_table("partitions", table)
    assert caught.value.field == field
    assert words in str(caught.value)
