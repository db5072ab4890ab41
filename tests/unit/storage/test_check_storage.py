"""Every storage that ships passes the conformance suite, and what is wrong with a bad one is found."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs.storage import LocalStorage, MemoryStorage, Save, StorageHealth
from lane_obs.testing.storage import check_storage
from tests.unit.storage.support import json_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.both_loops
async def test_memory_conforms() -> None:
    assert await check_storage(MemoryStorage, outlives=False) is None


@pytest.mark.both_loops
@pytest.mark.parametrize("durability", ["full", "normal", "async"])
async def test_sqlite_conforms(durability: str, tmp_path: Path) -> None:
    assert await check_storage(lambda: LocalStorage(tmp_path / "queue", durability=durability)) is None


@pytest.mark.both_loops
async def test_the_example_with_seven_methods_conforms(tmp_path: Path) -> None:
    kind = json_storage()
    assert await check_storage(lambda: kind(tmp_path / "queue.json")) is None


class Unsorted(MemoryStorage):
    async def load_commands(self) -> list[Any]:
        return list(self._commands.values())


class ForgetsRemoves(MemoryStorage):
    def _remove(self, change: Any) -> None:
        pass


class LosesAField(MemoryStorage):
    def _save(self, change: Save) -> None:
        super()._save(Save(msgspec.structs.replace(change.command, deadline=None)))


class NeverEvicts(MemoryStorage):
    def _add_letter(self, change: Any) -> None:
        super()._add_letter(msgspec.structs.replace(change, limit=None, before=None))


class StreamsAll(MemoryStorage):
    async def stream_commands(self, batch: int = 1000) -> Any:
        async for page in super().stream_commands(1_000_000):
            yield page


class ForgetsTheHighestSeq(MemoryStorage):
    def health(self) -> StorageHealth:
        return msgspec.structs.replace(super().health(), last_seq=len(self._commands))


class LeavesAThread(MemoryStorage):
    async def open(self) -> None:
        await super().open()
        end = threading.Event()
        ENDS.append(end)
        threading.Thread(target=end.wait, daemon=True).start()


ENDS: list[threading.Event] = []


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (object, "lacks one of the seven methods"),
        (Unsorted, "in order of seq"),
        (ForgetsRemoves, "after remove_command"),
        (LosesAField, "in order of seq"),
        (NeverEvicts, "the newest letters stay"),
        (StreamsAll, "sizes of the batches"),
        (ForgetsTheHighestSeq, "last_seq"),
        (LeavesAThread, "threads behind"),
    ],
)
async def test_what_is_wrong_with_a_storage_is_found(make: Callable[[], Any], fault: str) -> None:
    try:
        with pytest.raises(AssertionError, match=fault):
            await check_storage(make, outlives=False)
    finally:
        for end in ENDS:
            end.set()


async def test_a_storage_that_forgets_when_it_is_closed_is_found() -> None:
    with pytest.raises(AssertionError, match="after close"):
        await check_storage(MemoryStorage)
