"""What a transaction writes comes to the same as making the changes one by one."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs.errors import StorageRefused
from lane_obs.storage import (
    AddLetter,
    Change,
    ClearCommands,
    ClearLetters,
    MemoryStorage,
    Remove,
    RemoveLetter,
    Save,
    Update,
)
from lane_obs.storage.sqlite.net import Net, steps_of
from lane_obs.storage.sqlite.row import to_command
from tests.unit.storage.support import command, commands_of, do, letter, letters_of, opened

seqs = st.integers(1, 6)
updates = st.builds(
    lambda seq, state, attempt: Update(id=f"c{seq}", state=state, attempt=attempt, updated_at=float(attempt)),
    seqs, st.sampled_from(["ready", "running", "backoff"]), st.integers(0, 9),
)  # fmt: skip
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda seq, n: Save(command(seq, payload=b"%d" % n)), seqs, st.integers(0, 9)),
    updates,
    st.builds(lambda seq: Remove(f"c{seq}"), seqs),
    st.builds(lambda seq, n: AddLetter(letter(seq, error=str(n))), seqs, st.integers(0, 9)),
    st.builds(lambda seq: RemoveLetter(f"c{seq}"), seqs),
    st.sampled_from([ClearLetters(), ClearCommands()]),
)


async def one_by_one(batches: list[list[Change]]) -> tuple[list[Any], list[Any]]:
    storage = MemoryStorage()
    await storage.open()
    for batch in batches:
        for change in batch:
            await storage.apply([change])
    return await storage.load_commands(), await storage.load_dead_letters()


@given(st.lists(st.lists(changes, max_size=8), max_size=4))
@settings(max_examples=60, deadline=None)
def test_transactions_of_many_changes_come_to_the_same_as_one_by_one(batches: list[list[Change]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with opened(Path(folder), "normal") as database:
            for batch in batches:
                do(database, *batch)
            found = commands_of(database), letters_of(database)
            assert (database.commands, database.letters) == (len(found[0]), len(found[1]))
        with opened(Path(folder), "normal") as database:  # it would not open if its ledger were wrong
            assert (commands_of(database), letters_of(database)) == found
    assert found == asyncio.run(one_by_one(batches))


def test_changes_of_one_command_are_written_once() -> None:
    net = Net()
    for attempt in range(1, 100):
        net.add(steps_of([Update(id="c1", state="running", attempt=attempt, updated_at=0.0)]))
    net.add(steps_of([Save(command(2)), Update(id="c2", state="running", attempt=1, updated_at=0.0)]))
    net.add(steps_of([Save(command(3)), Remove("c3"), Update(id="c3", state="ready", attempt=0, updated_at=0.0)]))
    saves, written, removes = net.parts()
    assert [to_command(row) for row in saves] == [command(2, state="running", attempt=1, updated_at=0.0)]
    assert [(row[1], row[-1]) for row in written] == [(99, "c1")]
    assert removes == [("c3",)]
    assert net.changes == 104


def test_a_net_can_be_split_by_id() -> None:
    net = Net()
    net.add(steps_of([Save(command(1)), Remove("c2"), AddLetter(letter(3)), RemoveLetter("c4")]))
    assert [(list(part.commands), list(part.letters)) for part in net.split()] == [
        (["c1"], []), (["c2"], []), ([], ["c3"]), ([], ["c4"]),
    ]  # fmt: skip
    assert net.cost() > 4 * 300


# --- many rows a statement --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 200])
def test_any_number_of_rows_is_written_and_the_ledger_agrees(count: int, tmp_path: Path) -> None:
    half = count // 2
    with opened(tmp_path, "normal") as database:
        do(database, *(Save(command(seq)) for seq in range(1, count + 1)))
        assert commands_of(database) == [command(seq) for seq in range(1, count + 1)]
        do(
            database,
            *(Update(id=f"c{seq}", state="running", attempt=seq, updated_at=2.0) for seq in range(1, count + 1)),
        )
        assert [(each.attempt, each.updated_at) for each in commands_of(database)] == [
            (seq, 2.0) for seq in range(1, count + 1)
        ]
        do(database, *(Remove(f"c{seq}") for seq in range(1, half + 1)))
        assert [each.seq for each in commands_of(database)] == list(range(half + 1, count + 1))
        assert (database.commands, database.last_seq) == (count - half, count)
    with opened(tmp_path, "normal") as database:  # it would not open if its ledger were wrong
        assert len(commands_of(database)) == count - half


def test_commands_that_are_there_already_are_replaced_among_new_ones(tmp_path: Path) -> None:
    again = [command(seq, payload=b"again") for seq in range(1, 300)]
    with opened(tmp_path, "normal") as database:
        do(database, *(Save(command(seq)) for seq in range(100, 200)))
        do(database, *(Save(stored) for stored in again), AddLetter(letter(500)))
        assert commands_of(database) == again
        assert letters_of(database) == [letter(500)]
        assert (database.commits, database.commands, database.last_seq) == (2, 299, 299)
    with opened(tmp_path, "normal") as database:
        assert commands_of(database) == again


def test_commands_may_change_places(tmp_path: Path) -> None:
    with opened(tmp_path, "normal") as database:
        do(database, Save(command(1)), Save(command(2)))
        do(database, Save(command(1, id="c2")), Save(command(2, id="c1")))
        assert [(each.seq, each.id) for each in commands_of(database)] == [(1, "c2"), (2, "c1")]
    with opened(tmp_path, "normal") as database:
        assert database.commands == 2


def test_what_is_refused_after_all_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path, "normal") as database:
        do(database, *(Save(command(seq)) for seq in range(1, 100)))
        taken = Save(command(50, id="another of seq 50"))
        with pytest.raises(StorageRefused, match=r"UNIQUE constraint failed: commands\.seq"):
            do(
                database,
                Remove("c1"),
                Save(command(2, payload=b"again")),
                *(Save(command(n)) for n in range(200, 300)),
                taken,
            )
        assert commands_of(database) == [command(seq) for seq in range(1, 100)]
        assert (database.commits, database.commands, database.last_seq) == (1, 99, 99)
    with opened(tmp_path, "normal") as database:
        assert (database.commits, database.commands) == (1, 99)
