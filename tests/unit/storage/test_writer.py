"""What the thread that writes takes into one commit, and for whom it waits before; decided here without the thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lane_obs.clock import SystemClock
from lane_obs.storage import AddLetter, Remove, Save, Update
from lane_obs.storage.sqlite.batch import Batch, Settings
from lane_obs.storage.sqlite.mark import read_mark
from lane_obs.storage.sqlite.net import steps_of
from lane_obs.storage.sqlite.store import Store
from lane_obs.storage.sqlite.writer import Writer
from tests.unit.storage.support import command, letter

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.storage import Change

RUNS = Update(id="c1", state="running", attempt=1, updated_at=1.0)


def settings_of(folder: Path) -> Settings:
    return Settings(folder=folder, durability="full", keep_bytes=0, first_retry=1.0, last_retry=1.0)


def idle_writer(folder: Path) -> Writer:
    """One whose thread is not started: its parts are called here, and it may not sleep."""
    loop = asyncio.get_running_loop()
    return Writer(settings_of(folder), SystemClock(), loop=loop, on_state=lambda: None, on_evicted=lambda _: None)


def put(writer: Writer, *changes: Change, waits: bool = True) -> None:
    writer.put(Batch(steps_of(changes), asyncio.get_running_loop().create_future() if waits else None))


def taken(writer: Writer) -> int:
    batches, _, _ = writer._take()
    return len(batches)


async def test_as_many_submits_are_expected_as_the_last_commit_held(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)
    for seq in range(1, 65):
        put(writer, Save(command(seq)))
    assert (taken(writer), writer.expected) == (64, 64)
    for number in range(3):  # a few with many commands each count as what they are: three who may come again
        put(writer, *(Save(command(seq)) for seq in range(100 * number + 100, 100 * number + 200)))
    assert (taken(writer), writer.expected) == (3, 3)


async def test_nobody_is_expected_after_changes_that_no_submitter_waits_for(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)
    put(writer, Save(command(1)))
    assert (taken(writer), writer.expected) == (1, 1)
    put(writer, RUNS)
    put(writer, Remove("c1"), AddLetter(letter(1)))
    assert (taken(writer), writer.expected) == (2, 0)
    for seq in range(2, 12):
        put(writer, Save(command(seq)), waits=False)
    assert (taken(writer), writer.expected) == (10, 0)


async def test_only_submits_count_as_those_who_were_waited_for(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)
    for seq in range(1, 4):
        put(writer, Save(command(seq)))
        put(writer, RUNS)
    assert not writer._wait_for(4, 0.0)
    assert writer._wait_for(3, 0.0)
    assert writer._wait_for(0, 0.0)
    assert (taken(writer), writer.expected) == (6, 3)
    for _ in range(5):
        put(writer, RUNS)
    assert not writer._wait_for(1, 0.0)
    assert writer._wait_for(0, 0.0)


async def test_a_submit_wakes_who_waits_for_so_many_and_another_change_who_waits_for_anything(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)

    def woken() -> bool:
        return writer._sleep.acquire(blocking=False)

    put(writer, Save(command(1)))
    writer._wake_at = 2
    put(writer, RUNS)
    assert not woken()
    put(writer, Save(command(2)))
    assert woken()
    put(writer, Save(command(3)))  # it is awake
    assert not woken()
    assert taken(writer) == 4
    writer._wake_at = 0
    put(writer, RUNS)
    assert woken()


async def test_what_ends_it_or_asks_it_is_not_kept_waiting_for_submits(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)
    writer._wake_at = 100
    writer.stop()
    assert writer._sleep.acquire(blocking=False)
    assert writer._wait_for(100, 0.0)


async def test_a_commit_is_marked_before_the_next_however_soon_that_comes(tmp_path: Path) -> None:
    writer = idle_writer(tmp_path)
    writer.store.open()
    for number in range(1, 5):
        put(writer, Save(command(number)))  # waits already when the thread looks for more
        writer._turn()
        mark = read_mark(tmp_path)
        assert mark is not None
        assert mark.commits == number - 1
    writer.store.close()


def test_a_log_that_has_grown_is_emptied_at_rest_and_later_while_more_waits(tmp_path: Path) -> None:
    store = Store(settings_of(tmp_path), SystemClock())
    store.open()
    written: list[int] = []

    def write(*, busy: bool) -> int:
        """Writes some, and tells how many pages stay in the log."""
        first = 1_500 * len(written) + 1
        changes = [Save(command(seq, payload=b"x" * 1_000)) for seq in range(first, first + 1_500)]
        store.write([Batch(steps_of(changes), None)])
        assert store.database is not None
        written.append(store.database.wal_pages)
        store.upkeep(busy=busy)
        return store.database.wal_pages

    while write(busy=True):
        assert written[-1] < 4_000
    assert 4_000 <= written[-1] < 6_000
    while write(busy=False):
        assert written[-1] < 1_000
    assert 1_000 <= written[-1] < 3_000
    store.close()
