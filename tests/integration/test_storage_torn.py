"""Files that a crash or a bad disk left torn: a storage opens with all that was committed, or refuses loudly."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs.errors import StorageCorrupt, StorageError, StorageVanished
from lane_obs.storage import AddLetter, Remove, Save, Update, repair
from tests.unit.storage.support import command, commands_of, do, letter, letters_of, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.storage.sqlite.database import Database

PAGE = 4_096
NAMES = ["queue.db", "queue.db-wal", "queue.mark"]


def write(database: Database) -> None:
    """Something of everything: rows of all sizes, removed ones, a checkpoint in the middle."""
    for first in range(1, 201, 20):
        do(database, *(Save(command(seq, payload=b"x" * (seq * 7 % 900))) for seq in range(first, first + 20)))
    for seq in range(1, 31):
        do(database, AddLetter(letter(seq, traceback="t" * seq * 100), limit=25))
    database.checkpoint()
    for seq in range(1, 60, 3):
        do(database, Update(id=f"c{seq}", state="running", attempt=1, updated_at=5.0), Remove(f"c{seq + 1}"))
    for seq in range(201, 260):
        do(database, Save(command(seq)))


class Folders(dict[str, Any]):
    """By name, a folder and what was committed there. Hypothesis shows it with each example that fails."""

    def __repr__(self) -> str:
        return "folders"


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    """A folder whose owner ended well and one whose owner did not, each with what was committed."""
    with tempfile.TemporaryDirectory() as place:
        found = Folders()
        for name in ("closed", "killed"):
            folder = Path(place) / name
            folder.mkdir()
            with opened(folder, "normal") as database:
                write(database)
                found[name] = (folder, (commands_of(database), letters_of(database)))
                if name == "closed":
                    database.close()
        yield found


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, float, int]]]:
    """Which folder, which file, and what happens to it; places are parts of its length."""
    part = st.floats(0, 1, exclude_max=True)
    damage = st.one_of(
        st.tuples(st.just("flip"), part, st.integers(0, 7)),
        st.tuples(st.just("head"), part, st.integers(0, 7)),
        st.tuples(st.just("cut"), part, st.just(0)),
        st.tuples(st.just("wipe"), part, st.sampled_from([1, 16, 512, PAGE])),
        st.tuples(st.just("swap"), part, st.integers(0, 60)),
        st.tuples(st.just("remove"), part, st.just(0)),
    )
    name, file = draw(st.sampled_from(["closed", "killed"])), draw(st.sampled_from([*NAMES[:2], *NAMES]))
    return name, file, draw(st.lists(damage, min_size=1, max_size=3))


def damage(path: Path, what: list[tuple[str, float, int]]) -> bool:
    """Does it; false where nothing is different then."""
    if not path.exists():
        return False
    before = path.read_bytes()
    content = bytearray(before)
    for kind, part, number in what:
        if kind == "remove":
            path.unlink()
            return True
        place = int(part * len(content))
        if not content:
            break
        if kind == "flip":
            content[place] ^= 1 << number
        elif kind == "head":
            content[int(part * min(100, len(content)))] ^= 1 << number
        elif kind == "cut":
            del content[place:]
        elif kind == "wipe":
            content[place : place + number] = bytes(len(content[place : place + number]))
        else:
            swap(content, place // PAGE * PAGE, number * PAGE)
    path.write_bytes(content)
    return content != before


def swap(content: bytearray, one: int, other: int) -> None:
    if one + PAGE <= len(content) and other + PAGE <= len(content):
        kept = content[one : one + PAGE]
        content[one : one + PAGE] = content[other : other + PAGE]
        content[other : other + PAGE] = kept


@given(damages())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_a_torn_file_opens_with_all_that_was_committed_or_not_at_all(
    folders: Folders, torn: tuple[str, str, list[tuple[str, float, int]]]
) -> None:
    name, file, what = torn
    folder, committed = folders[name]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(folder, copy)
        damaged = damage(copy / file, what)
        fault = None
        try:
            with opened(copy, "normal", make=False) as database:
                found = commands_of(database), letters_of(database)
        except StorageError as error:
            fault = error
        if fault is None:
            assert found == committed
            return
        assert damaged, f"it was whole: {fault}"
        if isinstance(fault, StorageCorrupt | StorageVanished) and (copy / "queue.db").exists():
            check_repair(copy, committed)


def check_repair(folder: Path, committed: Any) -> None:
    """Only what was once committed is saved, and it does not say that all is well unless it is."""
    report = repair(folder)
    assert report.fault is not None
    with opened(folder, "normal", make=False) as database:
        commands, letters = commands_of(database), letters_of(database)
    assert (len(commands), len(letters)) == (report.commands, report.letters)
    once = {stored.seq: stored for stored in committed[0]}
    assert all(stored.seq in once or stored.seq <= 200 for stored in commands)
    if report.complete:
        assert (commands, letters) == committed
