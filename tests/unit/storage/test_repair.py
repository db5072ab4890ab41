"""A repair saves what can be read, says what could not, and never makes things worse."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lane_obs.errors import StorageCorrupt, StorageError, StorageForeign, StorageLocked, StorageVanished
from lane_obs.storage import AddLetter, RepairReport, Save, repair
from lane_obs.storage.sqlite import repair as repair_module
from lane_obs.storage.sqlite.file import PAGE_BYTES
from tests.unit.storage.support import command, commands_of, do, letter, letters_of, opened

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = [command(seq, payload=b"x" * 200) for seq in range(1, 301)]
LETTERS = [letter(seq, traceback="t" * 300) for seq in range(1, 41)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with many commands and letters; all of it is in the file."""
    with opened(tmp_path) as database:
        for first in range(0, 300, 50):
            do(database, *(Save(stored) for stored in COMMANDS[first : first + 50]))
        do(database, *(AddLetter(stored) for stored in LETTERS))
        database.close()
    return tmp_path


def damage(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip_in(*texts: bytes) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        for text in texts:
            content[content.index(text)] ^= 1

    return change


def page_of(content: bytes, text: bytes) -> int:
    return content.index(text) // PAGE_BYTES * PAGE_BYTES


def test_nothing_is_done_where_nothing_is_wrong(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = repair(folder)
    assert report == RepairReport(path=str(folder), fault=None)
    assert report.complete
    assert str(report) == f"{folder}: nothing is wrong with it"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_row_costs_that_row_and_is_named(folder: Path) -> None:
    path = folder / "queue.db"
    path.write_bytes(path.read_bytes().replace(b"c77aworkx", b"c77aworky"))
    with opened(folder) as database, pytest.raises(StorageCorrupt, match="checksum") as caught:
        commands_of(database)
    report = repair(folder)
    assert report.fault == str(caught.value)
    assert (report.commands, report.letters, report.noted_commands, report.noted_letters) == (299, 40, 300, 40)
    assert report.missing_commits == 0
    assert not report.complete
    assert len(report.lost) == 2  # that its checksum is wrong, and that the index knows it
    with opened(folder) as database:
        found = commands_of(database)
        assert [stored.id for stored in COMMANDS if stored not in found] == ["c77"]
        assert "command 'c77'" in report.lost
        assert letters_of(database) == LETTERS
    text = str(report)
    assert "saved: 299 commands of 300, 40 dead letters of 40" in text
    assert "acknowledged commits missing: 0" in text
    (aside,) = report.set_aside
    assert f"set aside: {aside}" in text
    assert Path(aside).read_bytes().startswith(b"SQLite format 3")


def test_a_damaged_page_costs_the_rows_on_it(folder: Path) -> None:
    def wipe(content: bytearray) -> None:
        start = page_of(content, b"c150")
        content[start : start + PAGE_BYTES] = random.Random(1).randbytes(PAGE_BYTES)

    damage(folder / "queue.db", wipe)
    with pytest.raises(StorageCorrupt), opened(folder):
        pass
    report = repair(folder)
    assert 250 < report.commands < 300 or report.commands == 300  # the page may be one of the index
    with opened(folder) as database:
        found = commands_of(database)
        assert all(stored in COMMANDS for stored in found)
        assert letters_of(database) == LETTERS
    lost = {stored.id for stored in COMMANDS} - {stored.id for stored in found}
    assert lost <= {line.removeprefix("command ").strip("'") for line in report.lost}


def test_the_first_page_of_rows_costs_its_own_rows_only(folder: Path) -> None:
    def wipe(content: bytearray) -> None:
        leaf_of_table, row = 13, b"c1awork" + b"x" * 200  # the root was a leaf once, and has traces of it
        pages = [content[start : start + PAGE_BYTES] for start in range(0, len(content), PAGE_BYTES)]
        (number,) = [number for number, page in enumerate(pages) if page[0] == leaf_of_table and row in page]
        content[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)

    damage(folder / "queue.db", wipe)
    report = repair(folder)
    assert 270 < report.commands < 300
    assert "commands, from the first to seq" in report.lost[0]
    with opened(folder) as database:
        assert commands_of(database) == COMMANDS[-report.commands :]
        assert letters_of(database) == LETTERS


def test_a_row_whose_key_can_be_read_and_the_rest_not_costs_that_row_only(tmp_path: Path) -> None:
    commands = [command(seq, payload=b"%d" % seq * (9_000 if seq in {1, 7} else 1)) for seq in range(1, 11)]
    with opened(tmp_path) as database:
        do(database, *map(Save, commands))
        database.close()

    def misdirect(content: bytearray) -> None:
        """The pages that go on with a long row have the number of the next page first."""
        for text in (b"1", b"7"):
            start = page_of(content, text * (PAGE_BYTES - 4))
            content[start : start + 4] = (2**31).to_bytes(4, "big")

    damage(tmp_path / "queue.db", misdirect)
    report = repair(tmp_path)
    assert report.commands == 8
    with opened(tmp_path) as database:
        assert commands_of(database) == [stored for stored in commands if stored.seq not in {1, 7}]


def test_a_damaged_first_page_costs_nothing(folder: Path) -> None:
    def wipe(content: bytearray) -> None:
        content[16:PAGE_BYTES] = bytes(PAGE_BYTES - 16)

    damage(folder / "queue.db", wipe)
    report = repair(folder)
    assert (report.commands, report.letters) == (300, 40)
    assert "first page" in report.lost[0]
    with opened(folder) as database:
        assert commands_of(database) == COMMANDS


def test_a_damaged_mark_costs_nothing(folder: Path) -> None:
    damage(folder / "queue.mark", flip_in(b"full"))
    report = repair(folder)
    assert (report.commands, report.letters, report.lost) == (300, 40, ())
    assert (report.missing_commits, report.complete) == (None, False)
    assert "acknowledged commits missing: an unknown number" in str(report)
    with opened(folder) as database:
        assert commands_of(database) == COMMANDS


def test_missing_commits_are_told_and_then_done_with(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        for seq in range(1, 11):
            do(database, Save(command(seq)))
    wal = tmp_path / "queue.db-wal"
    os.truncate(wal, wal.stat().st_size * 2 // 3)
    report = repair(tmp_path)
    with opened(tmp_path) as database:
        left = len(commands_of(database))
    assert 0 < left < 10
    assert (report.commands, report.missing_commits) == (left, 10 - left)
    assert not report.complete
    assert len(report.set_aside) == 2


def test_a_file_beyond_reading_is_set_aside_for_an_empty_one(folder: Path) -> None:
    damage(folder / "queue.db", lambda content: content.__setitem__(slice(0, None), random.Random(2).randbytes(9_999)))
    report = repair(folder)
    assert (report.commands, report.letters) == (0, 0)
    assert report.lost
    with opened(folder) as database:
        assert commands_of(database) == []


def test_a_file_that_is_gone_is_all_that_is_lost(folder: Path) -> None:
    (folder / "queue.db").unlink()
    report = repair(folder)
    assert report.lost == ("all of queue.db: the file is gone",)
    with opened(folder) as database:
        assert commands_of(database) == []


def test_two_repairs_within_a_second_set_aside_two_files(folder: Path) -> None:
    names: set[str] = set()
    for _ in range(2):
        damage(folder / "queue.mark", lambda content: content.clear() or content.extend(b"?"))  # type: ignore[func-returns-value]
        names |= set(repair(folder).set_aside)
    assert len(names) == 2
    assert all(Path(name).exists() for name in names)


# --- what is left alone -----------------------------------------------------------------------------------------


def test_a_folder_in_use_is_left_alone(folder: Path) -> None:
    from lane_obs.storage.sqlite.lock import FolderLock

    lock = FolderLock(folder)
    lock.take()
    with pytest.raises(StorageLocked):
        repair(folder)
    lock.release()


def test_where_there_is_nothing_or_something_of_others_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageVanished):
        repair(tmp_path / "nothing")
    with pytest.raises(StorageVanished):
        repair(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "queue.db").write_bytes(b"Obstbestellung")
    with pytest.raises(StorageForeign):
        repair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["queue.db"]


# --- a repair that is interrupted -------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_a_repair_that_was_interrupted_is_begun_anew_and_nothing_opens_meanwhile(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as database:  # so that there is a log, too
        do(database, Save(command(301)))
    damage(folder / "queue.mark", flip_in(b"full"))
    left = step

    def interrupted(work: Callable[..., object]) -> Callable[..., object]:
        def maybe(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return work(*args, **options)

        return maybe

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted(Path.rename))
        patched.setattr(Path, "replace", interrupted(Path.replace))
        patched.setattr(shutil, "rmtree", interrupted(shutil.rmtree))
        patched.setattr(repair_module, "_copy", interrupted(repair_module._copy))
        try:
            repair(folder)
        except Killed:
            done = False
        else:
            done = True
    if not done:
        try:
            with opened(folder) as database:
                assert len(commands_of(database)) == 301, "it opened, but not with everything"
        except StorageError:
            repair(folder)
    with opened(folder) as database:
        assert commands_of(database) == [*COMMANDS, command(301)]
        assert letters_of(database) == LETTERS
    assert not (folder / "queue.repair").exists() or not done
