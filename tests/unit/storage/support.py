"""Stored commands and letters to test with, and databases without their thread."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lane_obs.storage import LetterFilter, StoredCommand, StoredDeadLetter
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.net import Net, steps_of
from lane_obs.storage.sqlite.row import AFTER_ALL, BEFORE_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.storage import Change

ROOT = Path(__file__).resolve().parents[3]


def command(seq: int, **fields: Any) -> StoredCommand:
    given = {"id": f"c{seq}", "lane": "a", "command_type": "work", "payload": b'{"n":%d}' % seq, **fields}
    return StoredCommand(seq=seq, submitted_at=1_000.0 + seq, **{"updated_at": 1_000.0 + seq, **given})


def letter(seq: int, **fields: Any) -> StoredDeadLetter:
    given = {"id": f"c{seq}", "lane": "a", "command_type": "work", "failed_at": float(seq), "error": "no", **fields}
    return StoredDeadLetter(seq=seq, payload=b"{}", reason="failed", error_type="OSError", **given)


def do(database: Database, *changes: Change) -> list[str]:
    """Commits changes; ids of letters that gave way."""
    net = Net()
    net.add(steps_of(changes))
    evicted = database.commit(net)
    database.mark()
    return evicted


def commands_of(database: Database) -> list[StoredCommand]:
    return database.page(BEFORE_ALL, AFTER_ALL, 100_000)


def letters_of(database: Database) -> list[StoredDeadLetter]:
    return list(database.letter_page(LetterFilter(), 100_000, 0).letters)


@contextlib.contextmanager
def opened(folder: Path, durability: str = "full", **options: Any) -> Iterator[Database]:
    """A database of a folder, made where there is none; let go of as it is."""
    database = Database(folder, durability, 1_000.0, **options)
    try:
        yield database
    finally:
        database.drop()


def json_storage() -> Any:
    """The class of examples/own_storage.py."""
    path = ROOT / "examples" / "own_storage.py"
    spec = importlib.util.spec_from_file_location("own_storage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.JsonStorage
