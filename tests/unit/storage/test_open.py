"""What is looked at before a file is believed: whose it is, its version, its parts, and what its mark says."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from lane_obs.errors import (
    StorageCorrupt,
    StorageForeign,
    StorageLocked,
    StorageReadOnly,
    StorageTooNew,
    StorageVanished,
)
from lane_obs.storage import LocalStorage, Remove, Save, StoredCommand
from lane_obs.storage.sqlite import mark as mark_module
from lane_obs.storage.sqlite.file import SCHEMA_VERSION, connect, schema_sql
from lane_obs.storage.sqlite.lock import FolderLock
from lane_obs.storage.sqlite.mark import read_mark
from lane_obs.storage.sqlite.migration import MIGRATIONS
from lane_obs.storage.sqlite.row import COLUMNS, command_row
from tests.unit.storage.support import command, commands_of, do, opened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with five commands, let go of without a clean end, so that all of it is in the write-ahead log."""
    with opened(tmp_path) as database:
        for seq in range(1, 6):
            do(database, Save(command(seq)))
    return tmp_path


def by_hand(folder: Path, *statements: str) -> None:
    connection = connect(folder / "queue.db", "FULL")
    for statement in statements:
        connection.execute(statement)
    connection.close(force=True)


def refused(folder: Path, kind: type[Exception], text: str) -> None:
    before = (folder / "queue.db").read_bytes() if (folder / "queue.db").exists() else None
    with pytest.raises(kind, match=text), opened(folder):
        pass
    after = (folder / "queue.db").read_bytes() if (folder / "queue.db").exists() else None
    assert after == before, "a file that is refused is not touched"


# --- whose it is ------------------------------------------------------------------------------------------------


def test_a_file_of_another_program_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"Obstbestellung\n" * 100)
    refused(tmp_path, StorageForeign, "it is no SQLite database")
    (tmp_path / "queue.db").write_bytes(b"")
    refused(tmp_path, StorageForeign, "it is empty")
    (tmp_path / "queue.db").unlink()
    other = apsw.Connection(str(tmp_path / "queue.db"))
    other.execute("CREATE TABLE fruit (name TEXT)")
    other.close()
    refused(tmp_path, StorageForeign, "another program made it")


def test_a_file_that_was_ours_and_is_no_more_is_damaged_not_foreign(folder: Path) -> None:
    (folder / "queue.db").write_bytes(b"\0" * 4096)
    refused(folder, StorageCorrupt, "no SQLite database, which it was not before")
    (folder / "queue.db").write_bytes(b"")
    refused(folder, StorageCorrupt, "it is empty")


def test_a_damaged_application_id_is_damage(folder: Path) -> None:
    content = bytearray((folder / "queue.db").read_bytes())
    content[70] ^= 1
    (folder / "queue.db").write_bytes(content)
    refused(folder, StorageCorrupt, "another program made it .* which it was not before")


def test_a_later_schema_is_not_touched(folder: Path) -> None:
    by_hand(folder, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    refused(folder, StorageTooNew, f"schema version {SCHEMA_VERSION + 1}; this release knows versions to")


def test_a_file_that_is_gone_is_not_made_anew(folder: Path) -> None:
    (folder / "queue.db").unlink()
    refused(folder, StorageVanished, r"queue\.mark and queue\.db-wal shows")
    (folder / "queue.db-wal").unlink()
    refused(folder, StorageVanished, "nothing is made anew")
    (folder / "queue.mark").unlink()
    with opened(folder) as database:
        assert commands_of(database) == []


def test_what_an_interrupted_first_start_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "queue.db.new").write_bytes(b"half of a file")
    with opened(tmp_path) as database:
        assert commands_of(database) == []
    assert not (tmp_path / "queue.db.new").exists()


# --- its parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        (["UPDATE ledger SET commands = commands + 1"], "it has 5 commands, but its ledger says 6"),
        (["UPDATE ledger SET letters = 1"], "it has 0 dead letters, but its ledger says 1"),
        (["UPDATE ledger SET total = total - 1"], "its rows are not those of its ledger"),
        (["UPDATE ledger SET last_seq = 4"], "its rows are not those of its ledger"),
        (["UPDATE ledger SET uid = 'another'"], "belongs to another database"),
        (["DELETE FROM ledger"], "its ledger has 0 rows"),
        (["DROP TRIGGER command_removed"], "the definition of command_removed is not as it was written"),
        (["DROP TRIGGER command_removed", "DELETE FROM commands WHERE seq = 3"], "definition of command_removed"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused(folder: Path, statements: list[str], text: str) -> None:
    by_hand(folder, *statements)
    refused(folder, StorageCorrupt, text)


def test_an_index_that_does_not_agree_with_its_table_is_refused(folder: Path) -> None:
    with opened(folder) as database:
        database.close()
    path, entry = folder / "queue.db", b"\x03\x11\x01c4\x04"  # of the index: types of a text and a number, "c4", 4
    assert entry in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(entry, b"\x03\x11\x01c3\x04"))
    refused(folder, StorageCorrupt, "row 4 missing from index")


def test_rows_that_were_removed_by_hand_are_no_damage(folder: Path) -> None:
    by_hand(folder, "DELETE FROM commands WHERE seq > 2", "CREATE INDEX by_lane ON commands (lane)")
    with opened(folder) as database:
        assert [stored.seq for stored in commands_of(database)] == [1, 2]
        assert (database.commands, database.last_seq) == (2, 5)


# --- the mark ---------------------------------------------------------------------------------------------------


def test_the_mark_counts_commits(folder: Path) -> None:
    mark = read_mark(folder)
    assert mark is not None
    assert (mark.commits, mark.durability) == (5, "full")
    with opened(folder, "async") as database:
        assert database.commits == 5
        do(database, Remove("c1"))
    mark = read_mark(folder)
    assert mark is not None
    assert (mark.commits, mark.durability) == (6, "async")


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_commits_that_were_acknowledged_and_are_missing_are_noticed(tmp_path: Path, durability: str) -> None:
    with opened(tmp_path, durability) as database:
        for seq in range(1, 6):
            do(database, Save(command(seq)))
    wal = tmp_path / "queue.db-wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    refused(tmp_path, StorageCorrupt, r"the last \d commits, which were acknowledged, are missing")
    wal.unlink()
    refused(tmp_path, StorageCorrupt, "the last 5 commits, which were acknowledged, are missing")


def test_after_a_crash_of_the_machine_normal_may_lack_the_last_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, "normal") as database:
        do(database, Save(command(1)))
    (tmp_path / "queue.db-wal").unlink()
    boot = tmp_path / "boot_id"
    boot.write_text("another run of the machine\n", "utf-8")
    monkeypatch.setattr(mark_module, "_BOOT_ID", boot)
    with caplog.at_level(logging.WARNING, "lane_obs.storage"), opened(tmp_path, "normal") as database:
        assert commands_of(database) == []
    assert "the last 1 commits are missing since the machine went down" in caplog.text


def test_after_a_crash_of_the_machine_full_may_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "queue.db-wal").unlink()
    monkeypatch.setattr(mark_module, "_BOOT_ID", folder / "none")
    refused(folder, StorageCorrupt, "the last 5 commits")


def test_a_damaged_mark_is_told(folder: Path) -> None:
    mark = folder / "queue.mark"
    mark.write_bytes(mark.read_bytes().replace(b"full", b"fuel"))
    refused(folder, StorageCorrupt, "the mark of the last commit is damaged")
    mark.write_bytes(b"\0" * 151)
    refused(folder, StorageCorrupt, "the mark of the last commit is damaged")


def test_without_a_mark_it_opens_and_says_that_nobody_can_tell(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "queue.mark").unlink()
    with caplog.at_level(logging.WARNING, "lane_obs.storage"), opened(folder) as database:
        assert len(commands_of(database)) == 5
    assert "nobody can tell whether commits are missing" in caplog.text
    mark = read_mark(folder)
    assert mark is not None
    assert mark.commits == 5


# --- older files ------------------------------------------------------------------------------------------------


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """One with a file of schema version 0."""
    script = __file__.replace("test_open.py", "version0.sql")
    connection = apsw.Connection(str(tmp_path / "queue.db"))
    with open(script, encoding="utf-8") as file:
        connection.execute(file.read()).fetchall()
    connection.close()
    return tmp_path


def from_version_0(connection: apsw.Connection) -> None:
    """The step from version 0, which only this test knows."""
    connection.execute(schema_sql())
    insert = f"INSERT INTO commands ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    jobs: list[Any] = connection.execute("SELECT * FROM jobs").fetchall()
    for number, name, lane, kind, body in jobs:
        found = StoredCommand(id=name, seq=number, lane=lane, command_type=kind, payload=body.encode())
        connection.execute(insert, command_row(found))
    counts = "count(*), 0, sum(fixed_sum + state_sum), max(seq)"
    connection.execute(f"INSERT INTO ledger SELECT 1, 'an old one', 0.0, 7, {counts} FROM commands")
    connection.execute("DROP TABLE jobs")


def test_an_older_file_is_brought_up_to_date(old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIGRATIONS, 0, from_version_0)
    for _ in range(2):
        with opened(old_folder) as database:
            assert [(stored.id, stored.payload) for stored in commands_of(database)] == [
                ("one", b'{"to":"ada"}'), ("two", b'{"to":"bob"}'), ("five", b"{}"),
            ]  # fmt: skip
            assert (database.commits, database.last_seq) == (7, 5)


def test_a_step_that_fails_leaves_the_older_file_as_it_was(old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_the_end(connection: apsw.Connection) -> None:
        from_version_0(connection)
        raise ZeroDivisionError

    monkeypatch.setitem(MIGRATIONS, 0, fail_at_the_end)
    with pytest.raises(ZeroDivisionError), opened(old_folder):
        pass
    monkeypatch.setitem(MIGRATIONS, 0, from_version_0)
    with opened(old_folder) as database:
        assert len(commands_of(database)) == 3


def test_a_step_that_leaves_other_tables_than_those_of_a_new_file_is_found_out(
    old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_a_trigger(connection: apsw.Connection) -> None:
        from_version_0(connection)
        connection.execute("DROP TRIGGER letter_added")

    monkeypatch.setitem(MIGRATIONS, 0, forget_a_trigger)
    with pytest.raises(StorageCorrupt, match="the definition of letter_added"), opened(old_folder):
        pass


def test_a_version_that_nobody_can_bring_up_to_date_is_refused(old_folder: Path) -> None:
    with pytest.raises(StorageForeign, match="it has schema version 0, which no release"), opened(old_folder):
        pass


async def test_to_be_read_only_an_older_file_is_brought_up_to_date_in_a_copy(
    old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MIGRATIONS, 0, from_version_0)
    before = (old_folder / "queue.db").read_bytes()
    storage = LocalStorage(old_folder, read_only=True)
    await storage.open()
    assert len(await storage.load_commands()) == 3
    with pytest.raises(StorageReadOnly):
        await storage.apply([Remove("one")])
    await storage.close()
    assert (old_folder / "queue.db").read_bytes() == before


# --- the lock ---------------------------------------------------------------------------------------------------


def test_a_lock_is_taken_once_and_again_after_it_was_let_go(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    first.take()
    assert first.is_in_place
    with pytest.raises(StorageLocked):
        second.take()
    first.release()
    first.release()
    assert not first.is_in_place
    second.take()
    second.release()


def test_text_that_a_dead_owner_left_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "queue.lock").write_text('{"pid":1,"host":"elsewhere"}' + "x" * 500, "utf-8")
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    lock.take()
    with pytest.raises(StorageLocked, match="this very process"):
        other.take()
    lock.release()


def test_an_owner_that_could_not_say_who_it_is_still_owns(tmp_path: Path) -> None:
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    lock.take()
    (tmp_path / "queue.lock").write_text("", "utf-8")
    with pytest.raises(StorageLocked, match="another process owns this folder") as caught:
        other.take()
    assert caught.value.pid is None
    (tmp_path / "queue.lock").unlink()
    assert not lock.is_in_place
    lock.release()
