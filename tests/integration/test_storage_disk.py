"""Real disks that are full, go read-only or are limited, and what a storage makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.clock import VirtualClock
from lane_obs.errors import StorageError, StorageFull, StorageIOError, StorageReadOnly
from lane_obs.storage import AddLetter, LocalStorage, Remove, Save, StoredCommand, StoredDeadLetter
from lane_obs.storage.sqlite.batch import Batch, Settings
from lane_obs.storage.sqlite.net import steps_of
from lane_obs.storage.sqlite.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lane_obs.storage import Change

_MIB = 1024 * 1024


def lacking(what: str) -> None:
    """Skips; but where the tests prove something, it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system below the test's folder; all of them are unmounted in the end."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        lacking("only root may mount file systems")
    with contextlib.ExitStack() as mounted:

        def do(name: str, *options: str) -> Path:
            place = tmp_path / name
            place.mkdir(exist_ok=True)
            try:
                run("mount", *options, str(place))
            except (OSError, subprocess.CalledProcessError) as error:
                lacking(f"this machine cannot mount that: {getattr(error, 'stderr', error)}")
            mounted.callback(subprocess.run, ["umount", "-l", str(place)], check=False, capture_output=True)
            return place

        yield do


@pytest.fixture
def small_disk(mount: Callable[..., Path]) -> Path:
    """A file system of 2 MiB."""
    return mount("small", "-t", "tmpfs", "-o", "size=2m", "tmpfs")


def command(seq: int, size: int = 0) -> StoredCommand:
    return StoredCommand(id=f"c{seq}", seq=seq, lane="a", command_type="work", payload=b"x" * size)


def batch(*changes: Change) -> Batch:
    """What is handed to the thread that writes, from within a running loop."""
    return Batch(steps_of(changes), asyncio.get_running_loop().create_future())


def letter(seq: int) -> StoredDeadLetter:
    return StoredDeadLetter(
        id=f"c{seq}", seq=seq, lane="a", command_type="work", payload=b"{}", reason="failed", error_type="E", error="e"
    )


def fill(path: Path) -> None:
    """Leaves no room on a file system."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4_096)


async def fails(storage: LocalStorage, *changes: Change) -> StorageError:
    with pytest.raises(StorageError) as caught:
        await storage.apply(changes)
    return caught.value


async def until(ready: bool, storage: LocalStorage) -> None:
    """Waits until it was told that the storage is or is not ready."""
    changed = asyncio.Event()
    storage.on_state = lambda health: changed.set() if health.ready == ready else None
    if storage.health().ready != ready:
        async with asyncio.timeout(30):
            await changed.wait()
    storage.on_state = None


def quick(folder: Path, **options: Any) -> LocalStorage:
    return LocalStorage(folder, first_retry=0.02, last_retry=0.1, **options)


# --- full -------------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_full_disk_refuses_new_commands_loses_nothing_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    storage = quick(small_disk / "queue")
    await storage.open()
    stored = 20
    await storage.apply([Save(command(seq)) for seq in range(1, stored + 1)])
    fill(small_disk / "filler")
    refused = None
    while refused is None:
        stored += 1
        try:
            await storage.apply([Save(command(stored, 20_000))])
        except StorageFull as error:
            refused = error
    assert not refused.kept
    assert refused.path == str(small_disk / "queue" / "queue.db")
    assert "full" in refused.cause
    assert not storage.health().ready
    kept = await fails(storage, Remove("c1"), AddLetter(letter(1)))
    assert isinstance(kept, StorageFull)
    assert kept.kept
    assert not (await fails(storage, Save(command(999)))).kept
    (small_disk / "filler").unlink()
    await until(True, storage)
    await storage.apply([Save(command(1_000))])
    assert [each.seq for each in await storage.load_commands()] == [*range(2, stored), 1_000]
    assert await storage.load_dead_letters() == [letter(1)]
    await storage.close()
    again = quick(small_disk / "queue")
    await again.open()
    assert [each.seq for each in await again.load_commands()] == [*range(2, stored), 1_000]
    await again.close()


async def test_it_is_back_only_when_there_is_room_for_more_than_a_small_transaction(small_disk: Path) -> None:
    settings = Settings(
        folder=small_disk / "queue", durability="full", keep_bytes=1_000_000, first_retry=1, last_retry=1
    )
    store = Store(settings, VirtualClock())
    store.open()
    store.write([batch(Save(command(1)), Save(command(2)))])
    fill(small_disk / "filler")
    with (small_disk / "filler").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 12 * 1024)
    refused = batch(Save(command(3, 200_000)))
    store.write([refused])
    assert isinstance(refused.error, StorageFull)
    kept = batch(Remove("c1"))
    store.write([kept])
    assert isinstance(kept.error, StorageFull)
    for _ in range(3):
        store.retry()
        assert isinstance(store.error, StorageFull)
    assert not store.kept  # that fitted
    assert store.sizes()["commands"] == 1
    assert [path.name for path in (small_disk / "queue").iterdir() if "queue." not in path.name] == []
    (small_disk / "filler").unlink()
    store.retry()
    assert store.error is None
    again = batch(Save(command(3, 200_000)))
    store.write([again])
    assert again.error is None
    store.close()


async def test_a_disk_that_is_full_at_the_end_keeps_all_that_was_acknowledged(small_disk: Path) -> None:
    storage = quick(small_disk / "queue")
    await storage.open()
    await storage.apply([Save(command(seq, 2_000)) for seq in range(1, 101)])
    fill(small_disk / "filler")
    await storage.close()
    storage = quick(small_disk / "queue", read_only=True)
    await storage.open()
    assert len(await storage.load_commands()) == 100
    await storage.close()


async def test_there_must_be_room_to_begin(small_disk: Path) -> None:
    fill(small_disk / "filler")
    storage = quick(small_disk / "queue")
    with pytest.raises(StorageFull):
        await storage.open()
    (small_disk / "filler").unlink()
    await storage.open()
    await storage.apply([Save(command(1))])
    await storage.close()


LIMITED = """
import asyncio, resource, sys
from lane_obs.errors import StorageFull
from lane_obs.storage import LocalStorage, Remove, Save, StoredCommand

def command(seq):
    return StoredCommand(id=f"c{seq}", seq=seq, lane="a", command_type="work", payload=b"x" * 3_000)

async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    storage = LocalStorage(sys.argv[1], first_retry=0.02, last_retry=0.05)
    await storage.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    seq = 0
    try:
        while True:
            seq += 1
            await storage.apply([Save(command(seq))])
    except StorageFull as error:
        assert not error.kept
        print("refused:", error.cause)
    try:
        await storage.apply([Remove("c1")])
    except StorageFull as error:
        print("kept:", error.kept)
    back = asyncio.Event()
    storage.on_state = lambda health: health.ready and back.set()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await asyncio.wait_for(back.wait(), 20)
    await storage.apply([Save(command(10_000))])
    found = [each.seq for each in await storage.load_commands()]
    assert found == [*range(2, seq), 10_000], found
    await storage.close()
    print("went on")

asyncio.run(main())
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path / "queue")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("refused: File too large\nkept: True\nwent on\n", 0), done.stderr


# --- read-only --------------------------------------------------------------------------------------------------


def test_files_that_may_not_be_written_are_refused_and_can_be_looked_into(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys, tempfile
import lane_obs.storage.sqlite.writer, encodings.idna
from lane_obs.errors import StorageReadOnly
from lane_obs.storage import LocalStorage, Save, StoredCommand

folder = sys.argv[1]

async def main():
    storage = LocalStorage(folder)
    await storage.open()
    await storage.apply([Save(StoredCommand(id="1", seq=1, lane="a", command_type="w", payload=b""))])
    await storage.close()
    for path in (*(os.path.join(folder, name) for name in os.listdir(folder)), folder):
        os.chmod(path, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        await LocalStorage(folder).open()
    except StorageReadOnly as error:
        print("refused:", error.cause)
    storage = LocalStorage(folder, read_only=True)
    await storage.open()
    print([each.id for each in await storage.load_commands()])
    await storage.close()

asyncio.run(main())
"""
    made = [path for path in tmp_path.parents if path.name.startswith(("pytest-", "popen-"))]  # for their user only
    for path in (tmp_path, *made):
        path.chmod(0o755)
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "queue")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("refused: Permission denied\n['1']\n", 0), done.stderr


async def test_a_file_system_that_is_mounted_read_only_is_refused_until_it_is_not(mount: Callable[..., Path]) -> None:
    place = mount("disk", "-t", "tmpfs", "tmpfs")
    storage = quick(place / "queue")
    await storage.open()
    await storage.apply([Save(command(1))])
    await storage.close()
    run("mount", "-o", "remount,ro", str(place))
    with pytest.raises(StorageReadOnly):
        await storage.open()
    looking = quick(place / "queue", read_only=True)
    await looking.open()
    assert await looking.load_commands() == [command(1)]
    await looking.close()
    run("mount", "-o", "remount,rw", str(place))
    await storage.open()
    await storage.apply([Remove("c1")])
    await storage.close()


async def test_a_file_system_that_goes_read_only_under_a_running_storage(
    mount: Callable[..., Path], tmp_path: Path
) -> None:
    """The kernel does so by itself when a disk fails; ext4 can be told to. Then the disk is mounted again."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * _MIB)
    if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
        lacking("there is no mkfs.ext4 or no losetup")
    run("mkfs.ext4", "-q", "-F", str(image))
    place = mount("disk", "-o", "loop,errors=remount-ro", str(image))
    device = run("losetup", "-j", str(image)).partition(":")[0]
    trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    if not trigger.exists():
        lacking("this kernel's ext4 cannot be told to fail")
    storage = quick(place / "queue")
    await storage.open()
    await storage.apply([Save(command(seq)) for seq in range(1, 11)])
    trigger.write_text("a test of lane_obs", "ascii")
    error = await fails(storage, Save(command(99)))
    assert isinstance(error, StorageReadOnly | StorageIOError)
    assert (await fails(storage, Remove("c1"))).kept
    assert not (await fails(storage, Save(command(98)))).kept
    run("umount", "-l", str(place))
    other = run("losetup", "--find", "--show", str(image))
    try:
        mount("disk", other)
        await until(True, storage)
        await storage.apply([Save(command(11))])
        assert [each.seq for each in await storage.load_commands()] == list(range(2, 12))
    finally:
        await storage.close()
        subprocess.run(["umount", str(place)], check=False, capture_output=True)
        run("losetup", "--detach", other)
