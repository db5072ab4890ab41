"""Processes that die in the middle of it: nothing that was acknowledged is lost, and the folder is free at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import apsw
import pytest

from lane_obs.errors import StorageLocked
from lane_obs.storage import LocalStorage
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.migration import MIGRATIONS
from tests.unit.storage.support import ROOT, commands_of, letters_of
from tests.unit.storage.test_open import from_version_0

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 12

TRAFFIC = """
import asyncio, os, sys
from lane_obs.storage import AddLetter, LocalStorage, Remove, Save, StoredCommand, StoredDeadLetter, Update

folder, first, durability = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ledger = os.open(folder + ".ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(what, seq):
    os.write(ledger, f"{what} {seq}\\n".encode())

async def main():
    storage = LocalStorage(folder, durability=durability)
    await storage.open()
    print("open", flush=True)
    seqs = iter(range(first, first + 1_000_000))
    async def submitter():
        for seq in seqs:
            note("saves", seq)
            await storage.apply([Save(StoredCommand(
                id=f"c{seq}", seq=seq, lane="a", command_type="w", payload=b"x" * (seq % 500)))])
            note("saved", seq)
            await storage.apply([Update(id=f"c{seq}", state="running", attempt=1, updated_at=1.0)])
            note("started", seq)
            if seq % 2:
                note("removes", seq)
                letter = StoredDeadLetter(id=f"c{seq}", seq=seq, lane="a", command_type="w", payload=b"",
                                          reason="failed",
                                          error_type="E", error="e")
                await storage.apply([Remove(f"c{seq}"), AddLetter(letter)] if seq % 3 == 0 else [Remove(f"c{seq}")])
                note("removed", seq)
    await asyncio.gather(*(submitter() for _ in range(16)))

asyncio.run(main())
"""


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def await_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def noted(ledger: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {name: set() for name in ("saves", "saved", "started", "removes", "removed")}
    for line in ledger.read_text("ascii").split("\n")[:-1]:
        what, seq = line.split()
        found[what].add(int(seq))
    return found


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_outlives_a_kill_at_any_moment(tmp_path: Path, durability: str) -> None:
    folder, ledger = tmp_path / "queue", tmp_path / "queue.ledger"
    folder.mkdir()
    rng, first = random.Random(5), 1
    for number in range(ROUNDS):
        process = start(TRAFFIC, folder, first, durability)
        if number % 4:  # else it may die in the middle of opening
            assert await_line(process) == b"open"
        time.sleep(rng.uniform(0, 0.25) if number % 4 else rng.uniform(0.1, 0.5))
        kill(process)
        if not ledger.exists():
            continue
        facts = noted(ledger)
        with contextlib.closing(Database(folder, durability, 0.0)) as database:
            stored = {each.seq: each for each in commands_of(database)}
            letters = {letter.seq for letter in letters_of(database)}
        assert facts["saved"] - facts["removes"] <= stored.keys() <= facts["saves"] - facts["removed"]
        assert all(stored[seq].state == "running" for seq in facts["started"] - facts["removes"])
        assert {seq for seq in facts["removed"] if seq % 3 == 0} <= letters
        assert not letters & stored.keys(), "a removal and its dead letter are one change"
        first = max(facts["saves"], default=0) + 1
    assert len(noted(ledger)["removed"]) > 100


MIGRATION = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.migration import MIGRATIONS
from tests.unit.storage.test_open import from_version_0

def step(connection):
    print("begins", flush=True)
    for _ in range(20):
        from_version_0(connection)
        for name in ("ledger", "commands", "letters"):
            connection.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
            connection.execute(f"DROP TABLE old_{name}")
        connection.execute("CREATE TABLE jobs (number INTEGER, name TEXT, lane TEXT, kind TEXT, body TEXT)")
        rows = "(1, 'one', 'a', 'w', ''), (2, 'two', 'a', 'w', ''), (5, 'five', 'a', 'w', '')"
        connection.execute(f"INSERT INTO jobs VALUES {rows}")
    from_version_0(connection)

MIGRATIONS[0] = step
database = Database(pathlib.Path(sys.argv[1]), "full", 0.0)
print("done", flush=True)
database.drop()
"""


def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    monkeypatch.setitem(MIGRATIONS, 0, from_version_0)
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        connection = apsw.Connection(str(folder / "queue.db"))
        script = (ROOT / "tests" / "unit" / "storage" / "version0.sql").read_text("utf-8")
        connection.execute(script).fetchall()
        connection.close()
        process = start(MIGRATION, folder, ROOT)
        assert await_line(process) == b"begins"
        time.sleep(rng.uniform(0, 0.05))
        kill(process)
        with contextlib.closing(Database(folder, "full", 0.0)) as database:
            assert [each.id for each in commands_of(database)] == ["one", "two", "five"]


# --- the lock ---------------------------------------------------------------------------------------------------

OWNER = """
import asyncio, sys
from lane_obs.storage import LocalStorage

async def main():
    storage = LocalStorage(sys.argv[1])
    await storage.open()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await storage.close()

asyncio.run(main())
"""


async def test_a_living_owner_is_named_and_a_dead_ones_folder_is_free_at_once(tmp_path: Path) -> None:
    process = start(OWNER, tmp_path)
    assert await asyncio.to_thread(await_line, process) == b"open"
    storage = LocalStorage(tmp_path)
    with pytest.raises(StorageLocked, match=f"process {process.pid} on .* owns this folder") as caught:
        await storage.open()
    assert caught.value.pid == process.pid
    kill(process)
    await storage.open()
    await storage.close()


FORKING = """
import asyncio, gc, os, sys
from lane_obs.errors import StorageClosed, StorageLocked
from lane_obs.storage import LocalStorage, Save, StoredCommand

def command(seq):
    return StoredCommand(id=f"c{seq}", seq=seq, lane="a", command_type="w", payload=b"")

async def main():
    storage = LocalStorage(sys.argv[1])
    await storage.open()
    for seq in range(1, 201):
        await storage.apply([Save(command(seq))])
        if seq % 20 == 0:
            pending = storage.apply([Save(command(1_000 + seq))])
            child = os.fork()
            if not child:
                closed = not storage.health().ready
                storage._flush()
                storage.__dict__.clear()  # lets go of all that the parent has open, but for SQLite's connection
                gc.collect()
                os._exit(0 if closed else 1)
            assert os.waitpid(child, 0)[1] == 0
            await pending
    print(len(await storage.load_commands()), flush=True)
    child = os.fork()
    if not child:
        print("child", os.getpid(), flush=True)
        sys.stdin.read()  # until the test is over
        os._exit(0)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_forked_process_neither_uses_the_storage_nor_keeps_its_lock(tmp_path: Path) -> None:
    process = start(FORKING, tmp_path)
    assert await asyncio.to_thread(await_line, process) == b"210"
    assert (await asyncio.to_thread(await_line, process)).startswith(b"child ")
    storage = LocalStorage(tmp_path)
    with pytest.raises(StorageLocked):
        await storage.open()
    process.send_signal(signal.SIGKILL)  # its child lives on
    await asyncio.to_thread(process.wait)
    await storage.open()
    assert len(await storage.load_commands()) == 210
    await storage.close()
    kill(process)


LEAVING = """
import asyncio, sys
from lane_obs.storage import LocalStorage, Save, StoredCommand

async def main():
    storage = LocalStorage(sys.argv[1], durability="async")
    await storage.open()
    for seq in range(1, 5_001):
        storage.apply([Save(StoredCommand(id=f"c{seq}", seq=seq, lane="a", command_type="w", payload=b""))])

asyncio.run(main())
"""


def test_a_process_that_ends_without_close_still_writes_what_waits(tmp_path: Path) -> None:
    process = start(LEAVING, tmp_path)
    assert process.wait(60) == 0
    kill(process)
    with contextlib.closing(Database(tmp_path, "full", 0.0)) as database:
        assert len(commands_of(database)) == 5_000
