"""`LocalStorage` while all goes well: who waits for what, what is written together, and what lies on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError
from lane_obs.errors import (
    StorageClosed,
    StorageCorrupt,
    StorageLocked,
    StorageReadOnly,
    StorageRefused,
    StorageVanished,
)
from lane_obs.storage import AddLetter, LocalStorage, Remove, RemoveLetter, Save, Update
from tests.unit.storage.support import command, commands_of, letter, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def storage_of(folder: Path, **options: Any) -> AsyncIterator[LocalStorage]:
    storage = LocalStorage(folder, **options)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


@contextlib.contextmanager
def busy(storage: LocalStorage) -> Any:
    """Keeps the writing thread at something else, so that all changes have to wait."""
    begun, end = threading.Event(), threading.Event()
    storage._ask(lambda _: (begun.set(), end.wait()))
    assert begun.wait(30)
    try:
        yield
    finally:
        end.set()


async def seqs(storage: LocalStorage) -> list[int]:
    return [stored.seq for stored in await storage.load_commands()]


# --- group commit -----------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_all_changes_that_arrive_meanwhile_share_a_commit_and_the_loop_is_woken_once(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        told: list[str] = []
        assert storage._writer is not None
        tell = storage._writer._tell
        storage._writer._tell = lambda work, *args: (told.append(work.__name__), tell(work, *args))  # type: ignore[assignment]
        with busy(storage):
            futures = [storage.apply([Save(command(seq))]) for seq in range(1, 301)]
            await asyncio.sleep(0)
            assert not any(future.done() for future in futures)
        await asyncio.gather(*futures)
        assert storage.health().commits == 1
        assert told.count("_settle") <= 2  # one for the commit, one for what kept the thread busy
        assert await seqs(storage) == list(range(1, 301))


async def test_submitters_that_come_again_together_are_not_written_in_twos(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        numbers = iter(range(1, 1_281))

        async def submitter() -> None:
            for seq in numbers:
                await storage.apply([Save(command(seq))])

        await asyncio.gather(*(submitter() for _ in range(64)))
        health = storage.health()
        assert health.changes == 1_280
        assert health.commits < 200


async def test_the_histogram_and_the_counts_are_those_of_the_commits(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        for seq in range(1, 6):
            await storage.apply([Save(command(seq)), Update(id=f"c{seq}", state="running", attempt=1, updated_at=1.0)])
        health = storage.health()
        assert (health.commits, health.changes, health.commands, health.last_seq) == (5, 10, 5, 5)
        assert health.commit_seconds.count == 5
        assert health.commit_seconds.total > 0
        assert (health.ready, health.path, health.failures) == (True, str(tmp_path), 0)
        await storage.load_commands()
    with opened(tmp_path):
        pass


# --- all or nothing ---------------------------------------------------------------------------------------------


async def test_a_batch_that_cannot_be_stored_harms_no_other_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        await storage.apply([Save(command(1))])
        with busy(storage):
            before = [storage.apply([Save(command(seq))]) for seq in range(2, 12)]
            taken = storage.apply([Save(command(50)), Remove("c2"), Save(command(1, id="another of seq 1"))])
            after = [storage.apply([Save(command(seq))]) for seq in range(12, 22)]
        with pytest.raises(StorageRefused, match=r"UNIQUE constraint failed: commands\.seq"):
            await taken
        await asyncio.gather(*before, *after)
        assert await seqs(storage) == list(range(1, 22))
        assert storage.health().ready


async def test_what_cannot_be_written_down_is_refused_at_once(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        future = storage.apply([Save(command(1)), Save(command(2, options={"a": object()}))])
        assert future.done()
        with pytest.raises(StorageRefused, match="cannot be stored"):
            await future
        refused = storage.apply([Save(command(3, lane=5))])
        with pytest.raises(StorageRefused, match="lane must be text, not int"):
            await refused
        assert await seqs(storage) == []
        assert storage.health().ready


async def test_a_command_takes_the_place_of_a_removed_one_in_the_same_batch(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        await storage.apply([Save(command(1))])
        await storage.apply([Remove("c1"), Save(command(1, id="other"))])
        assert [stored.id for stored in await storage.load_commands()] == ["other"]


async def test_a_failed_future_that_nobody_awaits_makes_no_noise(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        storage.apply([Save(command(1, options={"a": object()}))])
        gc.collect()


async def test_cancelling_who_waits_changes_nothing_of_what_is_stored(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        with busy(storage):
            waiter = asyncio.ensure_future(storage.save_command(command(1)))
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        assert await seqs(storage) == [1]


# --- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("durability", ["full", "normal", "async"])
async def test_close_writes_what_waits(durability: str, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, durability=durability)
    await storage.open()
    futures = [storage.apply([Save(command(seq))]) for seq in range(1, 101)]
    await storage.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with opened(tmp_path) as database:
        assert len(commands_of(database)) == 100
    left = [thread for thread in threading.enumerate() if thread.name == "lane-obs-storage"]
    assert left == []
    assert not (tmp_path / "queue.db-wal").exists() or (tmp_path / "queue.db-wal").stat().st_size == 0


async def test_two_who_close_at_once_both_wait(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await storage.open()
    future = storage.apply([Save(command(1))])
    await asyncio.gather(storage.close(), storage.close())
    assert future.done()


async def test_reading_from_a_closed_storage_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with pytest.raises(StorageClosed):
        await storage.load_commands()
    with pytest.raises(StorageClosed):
        await storage.letters()


async def test_the_log_is_emptied_while_work_goes_on_and_a_file_much_too_large_is_made_small(tmp_path: Path) -> None:
    async with storage_of(tmp_path, durability="normal") as storage:
        for first in range(0, 20_000, 2_000):
            await storage.apply([Save(command(seq, payload=b"x" * 1_000)) for seq in range(first + 1, first + 2_001)])
        await storage.load_commands()
        large = storage.health().file_bytes
        assert (tmp_path / "queue.db-wal").stat().st_size < 17 * 1024 * 1024
        for first in range(0, 20_000, 2_000):
            await storage.apply([Remove(f"c{seq}") for seq in range(first + 1, first + 2_001)])
    assert (tmp_path / "queue.db").stat().st_size < large / 20


# --- durability="async" -----------------------------------------------------------------------------------------


async def test_async_tells_at_once_and_writes_later_and_waits_when_its_buffer_is_full(tmp_path: Path) -> None:
    async with storage_of(tmp_path, durability="async", buffer=10) as storage:
        with busy(storage):
            futures = [storage.apply([Save(command(seq))]) for seq in range(1, 31)]
            assert [future.done() for future in futures] == [True] * 10 + [False] * 20
        await asyncio.gather(*futures)
        assert await seqs(storage) == list(range(1, 31))


async def test_full_waits_for_its_commit_however_little_there_is(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        future = storage.apply([Save(command(1))])
        assert not future.done()
        await future


# --- reading ----------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_left_early_leaves_nothing(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        await storage.apply([Save(command(seq)) for seq in range(1, 101)])
        async with contextlib.aclosing(storage.stream_commands(batch=10)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                assert len(batch) == 10
                break


async def test_a_damaged_command_ends_a_stream_and_makes_the_storage_fail(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        told: list[Any] = []
        storage.on_state = told.append
        await storage.apply([Save(command(seq)) for seq in range(1, 31)])
        # Both the row and its sum in the ledger are wrong then, but not the row's own checksum.
        await storage._ask(
            lambda database: database._connection.execute("UPDATE commands SET lane = 'b' WHERE seq = 25")
        )
        seen: list[int] = []

        async def read() -> None:
            async for batch in storage.stream_commands(batch=10):
                seen.extend(stored.seq for stored in batch)

        with pytest.raises(StorageCorrupt, match="command 'c25', seq 25, is not as it was written"):
            await read()
        assert seen == list(range(1, 21))
        assert not storage.health().ready
        assert [type(health.error) for health in told] == [StorageCorrupt]
        with pytest.raises(StorageCorrupt) as caught:
            await storage.apply([Save(command(99))])
        assert not caught.value.kept


async def test_what_waits_is_counted_by_lane_type_and_state(tmp_path: Path) -> None:
    async with storage_of(tmp_path) as storage:
        await storage.apply([Save(command(seq, lane="b" if seq > 2 else "a")) for seq in range(1, 6)])
        await storage.apply([Save(command(9, state="delayed", not_before=5_000.0))])
        found = [(w.lane, w.command_type, w.state, w.count, w.oldest, w.next_start) for w in await storage.waiting()]
        assert found == [
            ("a", "work", "delayed", 1, 1_009.0, 5_000.0),
            ("a", "work", "ready", 2, 1_001.0, None),
            ("b", "work", "ready", 3, 1_003.0, None),
        ]


# --- the folder -------------------------------------------------------------------------------------------------


async def test_the_folder_and_its_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet" / "queue"
    old = os.umask(0)
    try:
        async with storage_of(folder) as storage:
            await storage.apply([Save(command(1))])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(["queue.db", "queue.db-wal", "queue.lock", "queue.mark"], 0o600)


async def test_a_second_storage_is_refused_with_its_owners_pid_until_the_first_is_closed(tmp_path: Path) -> None:
    second = LocalStorage(tmp_path)
    async with storage_of(tmp_path):
        with pytest.raises(StorageLocked, match=f"this very process {os.getpid()} on .* owns this folder") as caught:
            await second.open()
        assert (caught.value.pid, caught.value.host) == (os.getpid(), socket.gethostname())
        with pytest.raises(StorageLocked):
            await LocalStorage(tmp_path, read_only=True).open()
    await second.open()
    await second.close()


async def test_another_program_that_has_the_file_open_is_told_of(tmp_path: Path) -> None:
    async with storage_of(tmp_path):
        pass
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); "
        "print(1, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "queue.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        await asyncio.to_thread(other.stdout.readline)
        with pytest.raises(StorageLocked, match="locked"):
            await LocalStorage(tmp_path).open()
        other.kill()


def test_a_folder_is_read_without_changing_anything(tmp_path: Path) -> None:
    async def fill() -> None:
        async with storage_of(tmp_path) as storage:
            await storage.apply([Save(command(seq)) for seq in range(1, 6)] + [AddLetter(letter(7))])

    async def look() -> None:
        async with storage_of(tmp_path, read_only=True) as storage:
            assert await seqs(storage) == [1, 2, 3, 4, 5]
            assert (await storage.find_letter("c7")) == letter(7)
            assert len(await storage.waiting()) == 1
            for change in (Save(command(9)), Remove("c1"), RemoveLetter("c7")):
                with pytest.raises(StorageReadOnly):
                    await storage.apply([change])
            assert await seqs(storage) == [1, 2, 3, 4, 5]

    asyncio.run(fill())
    for there in (True, False):
        if not there:
            (tmp_path / "queue.lock").unlink()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert ("queue.lock" in before) is there
        asyncio.run(look())
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


async def test_there_must_be_something_to_read(tmp_path: Path) -> None:
    with pytest.raises(StorageVanished, match="there is no such file"):
        await LocalStorage(tmp_path, read_only=True).open()
    with pytest.raises(StorageVanished):
        await LocalStorage(tmp_path / "nothing", read_only=True).open()
    assert list(tmp_path.iterdir()) == []


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"path": ""}, "path"),
        ({"path": 7}, "path"),
        ({"durability": "safe"}, "durability"),
        ({"durability": "async", "buffer": 0}, "buffer"),
        ({"keep_bytes": -1}, "keep_bytes"),
        ({"first_retry": 0}, "first_retry"),
        ({"last_retry": "soon"}, "last_retry"),
    ],
)
def test_what_is_not_allowed_is_refused(options: dict[str, Any], field: str) -> None:
    given = {"path": "queue", **options}
    with pytest.raises(ConfigError, match=field):
        LocalStorage(given.pop("path"), **given)


def test_it_says_what_it_is(tmp_path: Path) -> None:
    assert repr(LocalStorage(tmp_path)) == f"LocalStorage({str(tmp_path)!r}, durability='full')"
    assert not LocalStorage(tmp_path).health().ready


def test_sqlite_is_loaded_only_when_a_storage_is_opened() -> None:
    program = "import sys, lane_obs.storage; lane_obs.storage.LocalStorage('x'); print('apsw' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
