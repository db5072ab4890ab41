"""A queue on a disk that fails and comes back: a real one, a small file system that is full, read-only or gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from lane_obs import (
    LaneConfig,
    MemorySink,
    MonitorConfig,
    QueueManager,
    QueueMonitor,
    RetryPolicy,
    StorageError,
    command,
)
from lane_obs.alerts import Rule
from lane_obs.errors import StorageFull, StorageReadOnly, StorageVanished
from lane_obs.http import create_app
from lane_obs.monitor import AlertState
from lane_obs.storage import LocalStorage
from tests.integration.services.tools import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lane_obs import CommandHandle
    from lane_obs.runtime.stats import StorageStats

LANES = {"a": LaneConfig(0, 400), "memory": LaneConfig(0, 4, durable=False)}
LARGE = "x" * 400_000
LONG = "x" * 8_000
MANY = 300
ran: list[Any] = []
gate: asyncio.Event


@command("failing.note")
async def note(name: str, _padding: str = "") -> str:
    ran.append(name)
    return name


@command("failing.wait")
async def wait(name: str) -> str:
    ran.append(name)
    await gate.wait()
    return name


@command("failing.fail")
async def fail(name: str) -> None:
    ran.append(name)
    await gate.wait()
    raise ValueError(f"{name} {LONG}")


class Disk:
    """A small file system, and what can happen to it."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.folder = where / "queue"
        self._ballast = where / "ballast"

    def fill(self) -> None:
        """Leaves no room."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))

    def free(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        mount("-o", f"remount,{how}", str(self.where))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        missing("only root can mount a small file system")
    where = tmp_path / f"disk-{uuid.uuid4().hex[:6]}"
    where.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=24m,mode=0700", "lane-obs-test", str(where))
    except subprocess.CalledProcessError as error:
        missing(f"cannot mount a small file system: {error.stderr.decode().strip()}")
    yield Disk(where)
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The storage logs its failures, as it should."""
    global gate
    gate = asyncio.Event()
    ran.clear()
    caplog.set_level(logging.CRITICAL, "lane_obs.storage")
    yield
    ran.clear()


class Running:
    """A queue on a folder, looked at from outside."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.sink = MemorySink()
        storage = LocalStorage(folder, first_retry=0.02, last_retry=0.05)
        self.manager = QueueManager(LANES, storage=storage, sinks=[self.sink], **options)
        transport = httpx.ASGITransport(app=create_app(self.manager))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def __aenter__(self) -> Running:
        await self.manager.start()
        await self.told("queue.recovery.complete")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.manager.close()
        await self._http.aclose()

    @property
    def storage(self) -> StorageStats:
        stats = self.manager.stats().storage
        assert stats is not None
        return stats

    async def ready(self) -> str:
        answer = await self._http.get("/readyz")
        said: dict[str, str] = answer.json()
        assert (answer.status_code == 200) == (said["status"] == "ready")
        return said.get("reason", "ready")

    async def fill(self, disk: Disk) -> list[CommandHandle[Any]]:
        """Fills the disk, and has commands fail whose letters need more than the write-ahead log has room for."""
        handles = list(await self.manager.submit_many("a", [(fail, f"fails {number}") for number in range(MANY)]))
        while len(ran) < MANY:
            await asyncio.sleep(0)
        disk.fill()
        gate.set()
        await self.told("queue.storage.failed")
        return handles

    async def submit_fails(self, kind: type[StorageError], *words: str) -> None:
        """A durable submit fails with this error, and the queue says that it is not ready."""
        with pytest.raises(kind) as caught:
            await self.manager.submit("a", note, "refused", LARGE)
        assert not caught.value.kept
        for word in words:
            assert word in str(caught.value)
        await self.told("queue.storage.failed")
        assert await self.ready() == "storage_failed"
        assert not self.storage.ready
        assert self.storage.failures >= 1
        assert await self.manager.submit_nowait("memory", note, "in memory") == "in memory"

    async def told(self, key: str) -> None:
        """Returns once this event has come."""
        try:
            await asyncio.wait_for(self.sink.wait_for(key), 20)
        except TimeoutError:
            pytest.fail(f"no {key}: {self.storage}, {[event.key for event in self.sink.events][-8:]}")

    async def until(self, *words: str) -> None:
        """Returns once the storage has tried again twice, having dropped its open files by then, and says so."""
        enough = self.storage.failures + 2
        try:
            async with asyncio.timeout(20):
                while self.storage.failures < enough or not any(word in str(self.storage.error) for word in words):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"none of {words}: {self.storage}")

    async def back(self) -> None:
        """The storage works again, and so does the queue."""
        await self.told("queue.storage.back")
        assert await self.ready() == "ready"
        assert await (await self.manager.submit("a", note, "afterwards")) == "afterwards"


async def left(folder: Path) -> tuple[list[str], list[str]]:
    storage = LocalStorage(folder)
    await storage.open()
    rows = [row.id for row in await storage.load_commands()], [row.id for row in await storage.load_dead_letters()]
    await storage.close()
    return rows


async def test_a_full_disk_refuses_durable_submits_until_there_is_room(disk: Disk) -> None:
    async with Running(disk.folder) as queue:
        waits = await queue.manager.submit("a", wait, "waits", id="waits")
        handles = await queue.fill(disk)
        await queue.submit_fails(StorageFull, str(disk.folder), "full")
        results = await asyncio.gather(*handles, return_exceptions=True)  # they are delivered, and written down later
        assert {type(result) for result in results} == {ValueError}
        assert await waits == "waits"
        disk.free()
        await queue.back()
        assert {event.payload["error_type"] for event in queue.sink.of("queue.storage.failed")} == {"StorageFull"}
    assert "refused" not in ran
    assert await left(disk.folder) == ([], [handle.id for handle in handles])
    ran.clear()
    async with Running(disk.folder) as queue:
        await queue.manager.drain()
        assert ran == []
        assert len(queue.manager.dead_letters) == MANY


async def test_the_alert_fires_while_the_storage_fails_and_is_resolved_once_it_works(disk: Disk) -> None:
    rules = (Rule(measure="storage_failed", critical=0),)
    config = MonitorConfig(
        interval=0.01, rules=rules, pending_warning_threshold=None, active_warning_threshold=None, queue="demo"
    )
    async with Running(disk.folder) as queue:
        monitor = QueueMonitor(queue.manager, config)
        await monitor.start()
        away = disk.folder.rename(disk.where / "elsewhere")
        await queue.submit_fails(StorageVanished)
        await queue.told("queue.alert.firing")
        [alert] = monitor.alerts
        assert (alert.alert, alert.severity, alert.state) == ("QueueStorageFailed", "critical", AlertState.FIRING)
        assert (alert.queue, alert.lane, alert.value) == ("demo", None, 1)
        away.rename(disk.folder)
        await queue.back()
        await queue.told("queue.alert.resolved")
        assert monitor.alerts == []
        await monitor.stop()
    changes = [event.key for event in queue.sink.events if event.key.startswith("queue.alert.")]
    assert changes == ["queue.alert.firing", "queue.alert.resolved"]


async def test_files_that_may_not_be_written_refuse_the_start(disk: Disk) -> None:
    async with Running(disk.folder):
        pass
    disk.remount("ro")
    queue = Running(disk.folder)
    with pytest.raises(StorageReadOnly, match=str(disk.folder)):
        await queue.manager.start()
    disk.remount("rw")
    async with queue:
        assert await queue.ready() == "ready"


async def test_a_folder_that_comes_back_read_only_waits_until_it_may_be_written(disk: Disk) -> None:
    # A file system with files that are open for writing cannot be made read-only; a look at it can.
    look = disk.where / "look"
    look.mkdir()
    async with Running(disk.folder) as queue:
        away = disk.folder.rename(disk.where / "elsewhere")
        await queue.submit_fails(StorageVanished)
        await queue.until("the file is gone")
        mount("--bind", str(away), str(look))
        mount("-o", "remount,ro,bind", str(look))
        disk.folder.symlink_to(look)  # it comes back read-only: were it so only a moment later, a try may come first
        await queue.until("read-only", "Read-only", "may not be written")
        with pytest.raises(StorageReadOnly, match=str(disk.folder)):
            await queue.manager.submit("a", note, "refused")
        disk.folder.unlink()
        away.rename(disk.folder)
        await queue.back()
    assert "refused" not in ran
    assert await left(disk.folder) == ([], [])


async def test_a_folder_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    async with Running(folder) as queue:
        waits = await queue.manager.submit("a", wait, "waits", id="waits")
        away = folder.rename(tmp_path / "elsewhere")
        await queue.submit_fails(StorageVanished, str(folder), "the file is gone")
        gate.set()
        assert await waits == "waits"
        away.rename(folder)
        await queue.back()
    assert await left(folder) == ([], [])
    assert ran.count("waits") == 1
    assert "refused" not in ran


async def test_a_close_while_the_disk_is_full_says_so_and_the_next_start_runs_what_was_not_written(disk: Disk) -> None:
    queue = Running(disk.folder)
    await queue.manager.start()
    await queue.fill(disk)
    await queue.submit_fails(StorageFull)
    with pytest.raises(StorageError, match="could not be written"):
        await queue.manager.close()
    assert queue.sink.of("queue.closed"), "the sinks were not told"
    assert queue.manager.stats().storage is not None
    disk.free()
    ran.clear()
    async with Running(disk.folder) as again:
        await again.manager.drain()
        assert len(again.manager.dead_letters) == MANY
    assert 0 < len(ran) <= MANY  # at least once: nothing could be written down of their ends


async def test_what_is_tried_again_while_the_disk_fails_keeps_its_attempts(disk: Disk) -> None:
    async with Running(disk.folder) as queue:
        policy = RetryPolicy.fixed(3, 0.01)
        handle = await queue.manager.submit("a", fail, "fails", retry=policy, id="x")
        await queue.fill(disk)
        with pytest.raises(ValueError, match="fails"):
            await handle
        assert handle.attempt == 4
        with pytest.raises(StorageFull):
            queue.manager.dead_letters.requeue("x")
        assert "x" in queue.manager.dead_letters
        disk.free()
        await queue.back()
        again = queue.manager.dead_letters.requeue("x")
        with pytest.raises(ValueError, match="fails"):
            await again
    assert (await left(disk.folder))[1][-1] == "x"


async def test_recovery_goes_on_once_a_storage_that_failed_meanwhile_works_again(disk: Disk) -> None:
    async with Running(disk.folder) as queue:
        queue.manager.pause("a")
        await queue.manager.submit_many("a", [(note, f"n{number}") for number in range(3_000)])
    stopped = asyncio.Event()
    queue = Running(disk.folder)
    storage: Any = queue.manager._keeper.journal.storage  # type: ignore[union-attr]
    stream = storage.stream_commands

    async def interrupted(batch: int) -> Any:
        """The real one, with the folder away after its first page."""
        async for page in stream(batch):
            yield page
            if not stopped.is_set():
                stopped.set()
                disk.folder.rename(disk.where / "elsewhere")
                with pytest.raises(StorageVanished):
                    await storage.remove_command("no such command")
                await queue.until("the file is gone")

    storage.stream_commands = interrupted
    await queue.manager.start()
    await queue.told("queue.recovery.failed")
    assert await queue.ready() == "storage_failed"
    (disk.where / "elsewhere").rename(disk.folder)
    await queue.told("queue.recovery.complete")
    assert await queue.ready() == "ready"
    await queue.manager.drain()
    await queue.manager.close()
    assert sorted(ran) == sorted(f"n{number}" for number in range(3_000))
    assert await left(disk.folder) == ([], [])
