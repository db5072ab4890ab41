"""A storage that fails: what is refused, what is kept, and how it comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.clock import VirtualClock
from lane_obs.errors import StorageCorrupt, StorageError, StorageFull, StorageVanished
from lane_obs.storage import AddLetter, LocalStorage, Remove, RemoveLetter, Save, StorageHealth, Update
from lane_obs.storage.sqlite.batch import Batch, Settings
from lane_obs.storage.sqlite.net import steps_of
from lane_obs.storage.sqlite.store import Store
from tests.unit.storage.support import command, commands_of, letter, letters_of, opened

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.storage import Change


class States:
    """What was told of a storage's state; can be waited for."""

    def __init__(self, storage: LocalStorage) -> None:
        self.told: list[StorageHealth] = []
        self._changed = asyncio.Event()
        storage.on_state = self._note

    def _note(self, health: StorageHealth) -> None:
        self.told.append(health)
        self._changed.set()

    async def wait(self, *, ready: bool) -> None:
        async with asyncio.timeout(20):
            while not self.told or self.told[-1].ready != ready:
                self._changed.clear()
                await self._changed.wait()


async def fails(storage: LocalStorage, *changes: Change) -> StorageError:
    with pytest.raises(StorageError) as caught:
        await storage.apply(changes)
    return caught.value


async def limit_pages(storage: LocalStorage, more: int | None) -> None:
    """Has SQLite find its file full after so many more pages; `None` for no limit."""

    def limit(database: Any) -> None:
        pages = 2**30 if more is None else database._connection.pragma("page_count") + more
        database._connection.pragma("max_page_count", pages)

    await storage._ask(limit)


@contextlib.asynccontextmanager
async def open_storage(folder: Path, **options: Any) -> Any:
    storage = LocalStorage(folder, **{"first_retry": 0.01, "last_retry": 0.05, **options})
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


# --- a folder that goes and comes back --------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_changes_of_stored_commands_are_kept_and_written_when_the_folder_is_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    async with open_storage(folder) as storage:
        states = States(storage)
        await storage.apply([Save(command(seq)) for seq in range(1, 5)])
        folder.rename(elsewhere)
        refused = await fails(storage, Save(command(9)), Remove("c4"))
        assert (type(refused), refused.kept) == (StorageVanished, False)
        assert refused.path == str(folder / "queue.db")
        for change in (
            Update(id="c1", state="running", attempt=1, updated_at=1.0),
            Update(id="c1", state="backoff", attempt=1, updated_at=2.0, not_before=3.0),
            Remove("c2"),
        ):
            assert (await fails(storage, change)).kept
        assert (await fails(storage, Remove("c3"), AddLetter(letter(3)))).kept
        health = storage.health()
        assert (health.ready, type(health.error), health.kept) == (False, StorageVanished, 5)
        assert not folder.exists()
        elsewhere.rename(folder)
        await states.wait(ready=True)
        assert [told.ready for told in states.told] == [False, True]
        assert (storage.health().kept, storage.health().error) == (0, None)
        await storage.apply([Save(command(10))])
    with opened(folder) as database:
        found = {stored.id: stored.state for stored in commands_of(database)}
        assert found == {"c1": "backoff", "c4": "ready", "c10": "ready"}
        assert letters_of(database) == [letter(3)]


async def test_a_folder_that_was_deleted_is_never_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    storage = LocalStorage(folder, first_retry=0.001, last_retry=0.001)
    await storage.open()
    await storage.apply([Save(command(1))])
    shutil.rmtree(folder)
    assert isinstance(await fails(storage, Remove("c1")), StorageVanished)
    failures = storage.health().failures
    folder.mkdir()
    async with asyncio.timeout(20):
        while storage.health().failures < failures + 3:
            await asyncio.sleep(0.001)
    assert not storage.health().ready
    with pytest.raises(StorageError, match="1 changes could not be written"):
        await storage.close()
    assert not (folder / "queue.db").exists()


async def test_another_database_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    folder, other = tmp_path / "queue", tmp_path / "other"
    async with open_storage(other) as storage:
        await storage.apply([Save(command(7))])
    storage = LocalStorage(folder, first_retry=0.001, last_retry=0.001)
    await storage.open()
    await storage.apply([Save(command(1))])
    folder.rename(tmp_path / "away")
    other.rename(folder)
    await fails(storage, Remove("c1"))
    async with asyncio.timeout(20):
        while not isinstance(storage.health().error, StorageCorrupt):
            await asyncio.sleep(0.001)
    with pytest.raises(StorageError):
        await storage.close()
    with opened(folder) as database:
        assert [stored.seq for stored in commands_of(database)] == [7]


# --- a full disk, as SQLite sees it -----------------------------------------------------------------------------


async def test_a_full_disk_refuses_new_commands_keeps_the_rest_and_passes(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        states = States(storage)
        await storage.apply([Save(command(seq)) for seq in range(1, 11)])
        await limit_pages(storage, 0)
        error = await fails(storage, Save(command(20, payload=b"x" * 100_000)))
        assert isinstance(error, StorageFull)
        assert not error.kept
        for seq in range(1, 6):
            with contextlib.suppress(StorageFull):
                await storage.apply([Remove(f"c{seq}"), AddLetter(letter(seq, traceback="t" * 8_000))])
        await limit_pages(storage, None)
        await states.wait(ready=True)
        await storage.apply([Save(command(21))])
        assert [stored.seq for stored in await storage.load_commands()] == [6, 7, 8, 9, 10, 21]
        assert len(await storage.load_dead_letters()) == 5
        assert storage.health().failures >= 1


async def test_what_was_acknowledged_by_async_is_kept_too(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    async with open_storage(folder, durability="async") as storage:
        states = States(storage)
        folder.rename(elsewhere)
        await storage.apply([Save(command(1))])  # it is not known yet that the folder is gone
        await states.wait(ready=False)
        assert not (await fails(storage, Save(command(2)))).kept
        elsewhere.rename(folder)
        await states.wait(ready=True)
        assert [stored.seq for stored in await storage.load_commands()] == [1]


async def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    async with open_storage(folder, keep_bytes=10_000) as storage:
        states = States(storage)
        folder.rename(elsewhere)
        errors = [await fails(storage, RemoveLetter(f"c{seq}")) for seq in range(100)]
        kept = [error.kept for error in errors]
        assert 10 < sum(kept) < 100
        assert kept == sorted(kept, reverse=True)
        health = storage.health()
        assert (health.kept, health.dropped) == (sum(kept), 100 - sum(kept))
        elsewhere.rename(folder)
        await states.wait(ready=True)


async def test_changes_of_one_command_take_the_place_of_one_while_they_are_kept(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    async with open_storage(folder, keep_bytes=10_000) as storage:
        states = States(storage)
        await storage.apply([Save(command(1))])
        folder.rename(elsewhere)
        for attempt in range(1, 200):
            assert (await fails(storage, Update(id="c1", state="running", attempt=attempt, updated_at=0.0))).kept
        elsewhere.rename(folder)
        await states.wait(ready=True)
        assert [stored.attempt for stored in await storage.load_commands()] == [199]


async def test_close_tries_once_more_to_write_what_is_kept(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    storage = LocalStorage(folder, first_retry=1_000)
    await storage.open()
    await storage.apply([Save(command(1)), Save(command(2))])
    folder.rename(elsewhere)
    assert (await fails(storage, Remove("c1"))).kept
    elsewhere.rename(folder)
    await storage.close()
    with opened(folder) as database:
        assert [stored.seq for stored in commands_of(database)] == [2]


async def test_a_change_that_cannot_be_stored_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "queue", tmp_path / "elsewhere"
    async with open_storage(folder, durability="async") as storage:
        states = States(storage)
        await storage.apply([Save(command(1))])
        await storage.load_commands()
        folder.rename(elsewhere)
        await storage.apply([Save(command(1, id="another of seq 1"))])
        await states.wait(ready=False)
        await fails(storage, AddLetter(letter(5)))
        elsewhere.rename(folder)
        await states.wait(ready=True)
        assert [stored.id for stored in await storage.load_commands()] == ["c1"]
        assert await storage.load_dead_letters() == [letter(5)]
        assert storage.health().dropped == 1


# --- when it is tried again -------------------------------------------------------------------------------------


def test_tries_are_further_and_further_apart(tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = Settings(folder=tmp_path / "q", durability="full", keep_bytes=10_000, first_retry=0.1, last_retry=1.0)
    store = Store(settings, clock)
    store.open()
    (tmp_path / "q").rename(tmp_path / "away")
    store.write([Batch(steps_of([Remove("c1")]), None)])
    waits = []
    for _ in range(6):
        waits.append(store.seconds_to_retry())
        store.retry()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    (tmp_path / "away").rename(tmp_path / "q")
    store.retry()
    assert (store.error, store.seconds_to_retry()) == (None, None)
    store.close()


def test_a_fault_that_does_not_pass_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path, durability="full", keep_bytes=10_000, first_retry=0.1, last_retry=1.0)
    store = Store(settings, VirtualClock())
    store.open()
    store._fail(StorageCorrupt(tmp_path, "it is damaged"))
    assert store.seconds_to_retry() is None
    store.close()
