"""The conformance suite of storages: what a durable queue relies on."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs.clock import SystemClock, sleep
from lane_obs.errors import StorageClosed
from lane_obs.storage import (
    AddLetter,
    ClearCommands,
    ClearLetters,
    DurableStorage,
    Remove,
    RemoveLetter,
    Save,
    Storage,
    StoredCommand,
    StoredDeadLetter,
    Update,
    adapt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.storage import AnyStorage, Change

_MANY = 250


async def check_storage(make: Callable[[], AnyStorage], *, outlives: bool = True) -> None:
    """Checks that a storage keeps to what `Storage` says, and `DurableStorage` when it is one.

    One that has only the seven methods is checked by itself and then through `adapt`. Everything in it is removed.
    Await this inside a test.

    Args:
        make: makes a storage, each time it is called; all of them are of the same place.
        outlives: whether what one has stored is found by the next, once the first is closed.

    Raises:
        AssertionError: what the storage does wrong.
    """
    threads = set(threading.enumerate())
    made = make()
    assert isinstance(made, Storage), f"{made!r} lacks one of the seven methods"
    if not isinstance(made, DurableStorage):
        await _check_seven(made)
    for check in (_check_seven, *_CHECKS):
        storage = adapt(make())
        await storage.open()
        await storage.clear_all()
        await check(storage)
        await storage.close()
    await _check_closed(adapt(make()))
    if outlives:
        await _check_outlives(lambda: adapt(make()))
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert not left, f"close() left threads behind: {left}"


def _command(seq: int, **fields: Any) -> StoredCommand:
    """A command with as little in it as there may be."""
    return StoredCommand(id=f"c{seq}", seq=seq, lane="a", command_type="work", payload=b"", **fields)


def _full_command(seq: int) -> StoredCommand:
    """A command with a value in each field."""
    return StoredCommand(
        id=f"ein Befehl \N{SNOWMAN} {seq}",
        seq=seq,
        lane="l\u00e4ne",
        command_type="send'mail\"",
        payload=bytes(range(256)),
        options={"timeout": 1.5, "retry": {"max_retries": 3, "on": ["OSError", None, True]}, "": "\N{SNOWMAN}"},
        attempt=2,
        state="backoff",
        not_before=1_767_225_600.25,
        deadline=1_767_229_200.5,
        key="k",
        trace=f"00-{'0af7651916cd43dd8448eb211c80319c'}-b7ad6b7169203331-01",
        submitted_at=1_767_225_599.125,
        updated_at=1_767_225_599.75,
        deaths=1,
        last_error_type="OSError",
        last_error="line 1\nline 2\x00\x7f \N{SNOWMAN}",
    )


def _letter(seq: int, **fields: Any) -> StoredDeadLetter:
    given = {"lane": "a", "command_type": "work", "failed_at": float(seq), **fields}
    return StoredDeadLetter(
        id=f"c{seq}", seq=seq, payload=b"{}", reason="failed", error_type="OSError", error="no", **given
    )


def _full_letter(seq: int) -> StoredDeadLetter:
    return StoredDeadLetter(
        id=f"ein Befehl \N{SNOWMAN} {seq}",
        seq=seq,
        lane="l\u00e4ne",
        command_type="send'mail\"",
        payload=bytes(range(256)),
        options={"timeout": None, "n": [1, 2.5, {}]},
        reason="timed_out",
        error_type="CommandTimeout",
        error="line 1\nline 2 \N{SNOWMAN}",
        traceback="Traceback (most recent call last):\n  ...",
        attempts=4,
        failed_at=1_767_225_600.25,
        submitted_at=1_767_225_599.125,
        key="k",
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def _equal(found: object, wanted: object, what: str) -> None:
    assert found == wanted, f"{what}: {found!r} in place of {wanted!r}"


# --- the seven methods ------------------------------------------------------------------------------------------


async def _check_seven(storage: Storage) -> None:
    await storage.clear_all()
    _equal(await storage.load_commands(), [], "load_commands() after clear_all()")
    _equal(await storage.load_dead_letters(), [], "load_dead_letters() after clear_all()")
    await _check_seven_with_commands(storage)
    await _check_seven_with_letters(storage)
    await storage.clear_all()
    _equal(await storage.load_commands(), [], "load_commands() after the last clear_all()")


async def _check_seven_with_commands(storage: Storage) -> None:
    commands = [_full_command(30), _command(2), _command(10)]
    for command in commands:
        await storage.save_command(command)
    _equal(await storage.load_commands(), [commands[1], commands[2], commands[0]], "load_commands(), in order of seq")
    changed = msgspec.structs.replace(commands[1], attempt=1, state="running")
    await storage.save_command(changed)
    _equal((await storage.load_commands())[0], changed, "a command that was saved again")
    await storage.remove_command("c10")
    await storage.remove_command("unknown")
    _equal(await storage.load_commands(), [changed, commands[0]], "load_commands() after remove_command()")


async def _check_seven_with_letters(storage: Storage) -> None:
    letters = [_full_letter(9), _letter(1), _letter(5)]
    for letter in letters:
        await storage.save_dead_letter(letter)
    _equal(await storage.load_dead_letters(), letters, "load_dead_letters(), oldest first")
    again = msgspec.structs.replace(letters[1], error="again")
    await storage.save_dead_letter(again)
    wanted = [letters[0], letters[2], again]
    _equal(await storage.load_dead_letters(), wanted, "load_dead_letters() after one was saved again")
    before = await storage.load_commands()
    await storage.clear_dead_letters()
    _equal(await storage.load_dead_letters(), [], "load_dead_letters() after clear_dead_letters()")
    _equal(await storage.load_commands(), before, "load_commands() after clear_dead_letters()")


# --- what a true implementation adds ----------------------------------------------------------------------------


async def _check_changes(storage: DurableStorage) -> None:
    update = Update(id="c1", state="running", attempt=1, updated_at=5.0)
    await storage.apply([Save(_command(1)), Save(_command(2)), update, Remove("c2")])
    running = msgspec.structs.replace(_command(1), state="running", attempt=1, updated_at=5.0)
    _equal(await storage.load_commands(), [running], "save, update and remove in one batch")
    back = Update(
        id="c1",
        state="backoff",
        attempt=1,
        updated_at=6.0,
        not_before=9.5,
        deaths=2,
        last_error_type="E",
        last_error="",
    )
    await storage.apply([back, Update(id="unknown", state="ready", attempt=0, updated_at=0.0)])
    wanted = msgspec.structs.replace(
        _command(1), state="backoff", attempt=1, updated_at=6.0, not_before=9.5, deaths=2, last_error_type="E",
        last_error="",
    )  # fmt: skip
    _equal(await storage.load_commands(), [wanted], "an update, and one of a command that is not stored")
    await storage.apply([Remove("c1"), Save(_command(7)), Remove("c7"), Save(_command(7)), Save(_command(3))])
    _equal(await storage.load_commands(), [_command(3), _command(7)], "changes are made in order")
    await storage.apply([])
    await storage.apply([Remove("c3"), AddLetter(_letter(3))])
    _equal(await storage.load_commands(), [_command(7)], "remove and add a letter in one batch: commands")
    _equal(await storage.load_dead_letters(), [_letter(3)], "remove and add a letter in one batch: letters")
    await storage.apply([RemoveLetter("c3"), RemoveLetter("unknown"), Save(_command(3))])
    _equal(await storage.load_commands(), [_command(3), _command(7)], "requeue a letter: commands")
    _equal(await storage.load_dead_letters(), [], "requeue a letter: letters")
    await storage.apply([ClearCommands()])
    _equal(await storage.load_commands(), [], "clear commands")


async def _check_many(storage: DurableStorage) -> None:
    done = await asyncio.gather(*(storage.apply([Save(_command(seq))]) for seq in range(1, _MANY + 1)))
    _equal(len(done), _MANY, "batches done")
    removes = [storage.apply([Remove(f"c{seq}")]) for seq in range(1, _MANY + 1, 2)]
    await removes[-1]
    assert all(remove.done() for remove in removes), "a later batch was stored before an earlier one"
    found = [command.seq for command in await storage.load_commands()]
    _equal(found, list(range(2, _MANY + 1, 2)), "commands after many batches at once")


async def _check_stream(storage: DurableStorage) -> None:
    await storage.apply([Save(_command(seq)) for seq in range(_MANY, 0, -1)])
    batches = [[command.seq for command in batch] async for batch in storage.stream_commands(batch=100)]
    _equal([len(batch) for batch in batches], [100, 100, 50], "sizes of the batches of a stream")
    _equal([seq for batch in batches for seq in batch], list(range(1, _MANY + 1)), "a stream, in order of seq")
    seen: list[int] = []
    async for batch in storage.stream_commands(batch=10):
        seen += [command.seq for command in batch]
        await storage.apply([*(Remove(command.id) for command in batch), Save(_command(_MANY + len(seen)))])
    _equal(seen, list(range(1, _MANY + 1)), "a stream while what it gave is removed and new commands are saved")


async def _check_letter_pages(storage: DurableStorage) -> None:
    lanes = ["a", "b"]
    letters = [_letter(seq, lane=lanes[seq % 2], command_type=f"type {seq % 3}") for seq in range(1, 31)]
    await storage.apply([AddLetter(letter) for letter in letters])
    page = await storage.letters(limit=12)
    found = list(page.letters)
    while page.after is not None:
        page = await storage.letters(limit=12, after=page.after)
        found += page.letters
    _equal(found, letters, "letters, page by page")
    some = await storage.letters(lane="b", command_type="type 1", since=7.0, until=25.0)
    _equal([letter.seq for letter in some.letters], [7, 13, 19], "letters by lane, type and time (since <= t < until)")
    _equal((await storage.letters(lane="unknown")).letters, (), "letters of an unknown lane")
    _equal(await storage.find_letter("c7"), letters[6], "find_letter()")
    _equal(await storage.find_letter("unknown"), None, "find_letter() of an unknown id")


async def _check_eviction(storage: DurableStorage) -> None:
    evicted: list[str] = []
    storage.on_evicted = evicted.extend
    before = storage.health().evicted
    for seq in range(1, 6):
        await storage.apply([AddLetter(_letter(seq), limit=3)])
    _equal([letter.seq for letter in await storage.load_dead_letters()], [3, 4, 5], "the newest letters stay")
    await storage.apply([AddLetter(_letter(6), limit=3, before=5.0)])
    _equal([letter.seq for letter in await storage.load_dead_letters()], [5, 6], "letters that failed before a time go")
    await sleep(SystemClock(), 0)
    _equal(sorted(evicted), ["c1", "c2", "c3", "c4"], "on_evicted was told")
    _equal(storage.health().evicted - before, 4, "health().evicted")


async def _check_health(storage: DurableStorage) -> None:
    await storage.apply([Save(_command(41)), Save(_command(42)), AddLetter(_letter(7))])
    await storage.apply([Remove("c42")])
    await storage.load_commands()  # one that writes later has written what comes before
    health = storage.health()
    _equal((health.ready, health.error), (True, None), "health().ready and .error")
    _equal((health.commands, health.letters), (1, 1), "health().commands and .letters")
    assert health.last_seq >= 42, f"health().last_seq is {health.last_seq}: it forgets what was removed"
    _equal((health.pending, health.kept, health.dropped), (0, 0, 0), "health().pending, .kept and .dropped")
    assert all(isinstance(line, str) for line in storage.cannot), "cannot has something that is no text"


async def _check_closed(storage: DurableStorage) -> None:
    await storage.open()
    await storage.open()
    await storage.close()
    await storage.close()
    future = storage.apply([Save(_command(1))])
    error = (await asyncio.gather(future, return_exceptions=True))[0]
    assert isinstance(error, StorageClosed), f"apply() after close() gave {error!r} in place of StorageClosed"
    assert not storage.health().ready, "it is ready although it is closed"


async def _check_outlives(make: Callable[[], DurableStorage]) -> None:
    storage = make()
    await storage.open()
    await storage.clear_all()
    commands, letters = [_command(1), _full_command(2)], [_full_letter(3), _letter(4)]
    changes: list[Change] = [*(Save(command) for command in commands), *(AddLetter(letter) for letter in letters)]
    pending = storage.apply(changes)
    await storage.close()
    assert pending.done(), "close() did not wait for what was still to be written"
    storage = make()
    await storage.open()
    _equal(await storage.load_commands(), commands, "commands after close() and open()")
    _equal(await storage.load_dead_letters(), letters, "letters after close() and open()")
    assert storage.health().last_seq >= 2, "health().last_seq after close() and open()"
    await storage.apply([ClearCommands(), ClearLetters()])
    await storage.close()


_CHECKS = (
    _check_changes, _check_many, _check_stream, _check_letter_pages, _check_eviction, _check_health,
)  # fmt: skip
