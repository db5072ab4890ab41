"""What happens to durable commands within one turn of the loop goes to the storage in one go; nothing else changes."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import DuplicateId, LaneConfig, MemorySink, QueueManager, VirtualClock, command
from lane_obs.errors import StorageRefused
from lane_obs.storage import MemoryStorage
from lane_obs.storage.change import AddLetter, Remove, Save, Update

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.storage.change import Change

LANES = {"a": LaneConfig(0, 100), "line": LaneConfig(0, 1)}
MANY = 50
who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
ran: list[Any] = []


@command("turns.note")
async def note(text: str) -> str:
    ran.append((text, who.get()))
    return text


@command("turns.fail")
async def fail(text: str) -> None:
    raise ValueError(text)


@command("turns.hang")
async def hang() -> None:
    await asyncio.Event().wait()


@command("turns.linger")
async def linger() -> None:
    """Does not listen when it is told to stop, until it is told again."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


class Counting(MemoryStorage):
    """Notes what it is given at once, and refuses what it does not like."""

    def __init__(self, dislikes: str = "\0") -> None:
        super().__init__()
        self._dislikes = dislikes
        self.calls: list[list[type[Any]]] = []

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        if any(self._dislikes in text for change in changes for text in _texts(change)):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageRefused("here", "it is not liked"))
            return future
        self.calls.append([type(change) for change in changes])
        return super().apply(changes)

    def ids(self) -> list[str]:
        return [row.id for row in sorted(self._commands.values(), key=lambda row: row.seq)]


def _texts(change: Change) -> list[str]:
    if isinstance(change, Save):
        return [change.command.payload.decode()]
    return [change.letter.error] if isinstance(change, AddLetter) else []


async def killed(manager: QueueManager) -> None:
    """Ends a queue as `kill -9` would."""
    journal = manager._keeper.journal
    assert journal is not None
    kept, journal.storage = journal.storage, MemoryStorage()
    await journal.storage.open()
    await kept.close()
    await manager.close()


async def started(
    storage: MemoryStorage, clock: VirtualClock, *, paused: tuple[str, ...] = (), **options: Any
) -> QueueManager:
    sink = MemorySink()
    manager = QueueManager(LANES, storage=storage, clock=clock, sinks=[sink], **options)
    for lane in paused:
        manager.pause(lane)
    await manager.start()
    await sink.wait_for("queue.recovery.complete")
    return manager


async def test_submits_starts_and_ends_of_one_turn_are_one_call_each(clock: VirtualClock) -> None:
    storage = Counting()
    async with await started(storage, clock) as manager:
        handles = await asyncio.gather(*(manager.submit("a", note, str(number)) for number in range(MANY)))
        assert [await handle for handle in handles] == [str(number) for number in range(MANY)]
    saves = [len(call) for call in storage.calls if Save in call]
    assert saves == [1, MANY - 1]  # the first had nobody to wait for
    assert len([call for call in storage.calls if Update in call]) <= 3
    assert len([call for call in storage.calls if Remove in call]) <= 3
    assert [text for text, _ in ran] == [str(number) for number in range(MANY)]


async def test_of_several_that_are_saved_together_only_the_one_that_cannot_be_stored_fails(clock: VirtualClock) -> None:
    async with await started(Counting("bad"), clock) as manager:
        texts = ["first", "one", "bad", "two"]
        results = await asyncio.gather(*(manager.submit("line", note, text) for text in texts), return_exceptions=True)
        assert [isinstance(result, StorageRefused) for result in results] == [False, False, True, False]
        await clock.run(manager.drain())
        assert [text for text, _ in ran] == ["first", "one", "two"]
        seqs = [result.seq for result in results if not isinstance(result, BaseException)]
        assert seqs == sorted(set(seqs))


async def test_an_end_that_cannot_be_stored_takes_no_other_with_it(clock: VirtualClock) -> None:
    storage = Counting("bad")
    async with await started(storage, clock) as manager:
        texts = ["x", "bad", "y"]
        manager.pause("a")
        handles = [await manager.submit("a", fail, "x" if text == "bad" else text) for text in texts]
        handles[1]._args = ("bad",)  # its letter cannot be stored, while the command could
        manager.resume("a")
        for handle in handles:
            with pytest.raises(ValueError, match=r"x|y|bad"):
                await handle
        letters = await storage.load_dead_letters()
        assert [letter.error for letter in letters] == ["x", "y"]


async def test_a_command_runs_in_the_context_of_its_own_submitter(clock: VirtualClock) -> None:
    async def submitter(name: str) -> str:
        who.set(name)
        handle = await manager.submit("a", note, name)
        return await handle

    async with await started(Counting(), clock) as manager:
        await asyncio.gather(*(submitter(name) for name in "abc"))
    assert ran == [("a", "a"), ("b", "b"), ("c", "c")]


async def test_a_submitter_that_is_cancelled_leaves_its_command_on_its_way(clock: VirtualClock) -> None:
    async with await started(Counting(), clock) as manager:
        alone, keyed, other = (
            asyncio.ensure_future(manager.submit("a", note, text, key=key))
            for text, key in (("x", None), ("y", "k"), ("y", "k"))
        )
        await asyncio.sleep(0)
        alone.cancel()
        keyed.cancel()
        assert (await (await other)) == "y"
        assert alone.cancelled()
        assert keyed.cancelled()
        await clock.run(manager.drain())
    assert [text for text, _ in ran] == ["x", "y"]


async def test_an_id_is_free_again_within_the_turn_of_its_commands_end(clock: VirtualClock) -> None:
    storage = Counting()
    async with await started(storage, clock) as manager:
        manager.pause("a")
        other = asyncio.ensure_future(manager.submit("a", note, "other"))
        await clock.advance(0)
        await other
        first = await manager.submit("a", note, "first", id="same")
        other = asyncio.ensure_future(manager.submit("a", note, "other"))
        first.cancel()
        second = await manager.submit("a", note, "second", id="same")
        assert "same" in storage.ids()
        assert manager.get("same") is second
        await other
        manager.resume("a")


async def test_ids_of_earlier_processes_are_known_and_belong_to_their_commands(clock: VirtualClock) -> None:
    storage, ids = Counting(), []
    for seed in (1, 2, 3):
        manager = await started(storage, clock, paused=("line",), seed=seed)
        ids += [(await manager.submit("line", note, f"{seed} {number}")).id for number in range(2)]
        ids.append((await manager.submit("line", note, f"{seed} own", id=f"own-{seed}")).id)
        await killed(manager)
    assert len({key.partition("-")[0] for key in ids}) == 4
    manager = await started(storage, clock, paused=("line",), seed=4, drain_timeout=0)
    async with manager:
        found = [manager.get(key) for key in ids]
        assert [None if handle is None else handle.id for handle in found] == ids == storage.ids()
        with pytest.raises(DuplicateId):
            await manager.submit("line", note, "again", id=ids[0])
        assert manager.get(f"{ids[0].partition('-')[0]}-{99}") is None
        assert manager.get(f"{ids[0].partition('-')[0]}-2000000000000000000000000") is None
        assert found[0] is not None
        found[0].cancel()
        await manager.submit("line", note, "again", id=ids[0])
        manager.resume("line")
        await clock.run(manager.drain())
    assert [text for text, _ in ran if text != "again"][:3] == ["1 1", "1 own", "2 0"]


async def test_what_its_user_cancelled_before_the_close_does_not_run_again(clock: VirtualClock) -> None:
    storage = Counting()
    manager = await started(storage, clock)
    handles = [await manager.submit("a", linger), await manager.submit("a", hang)]
    await clock.advance(1)
    handles[0].cancel()
    await clock.run(manager.close())
    assert [handle.state for handle in handles] == ["cancelled", "cancelled"]
    assert storage.ids() == [handles[1].id]


async def test_numbers_go_on_above_those_of_dead_letters(clock: VirtualClock) -> None:
    class Forgetful(Counting):
        """Knows only of what it holds, as a storage of seven methods does."""

        async def open(self) -> None:
            self._last_seq = 0
            await super().open()

    storage = Forgetful()
    async with await started(storage, clock) as manager:
        failed = await manager.submit("a", fail, "x")
        await clock.run(manager.drain())
    async with await started(storage, clock) as manager:
        manager.pause("a")
        new = await manager.submit("a", note, "new")
        again = manager.dead_letters.requeue(failed.id)
        assert again.id == failed.id
        assert again.seq < new.seq
        manager.resume("a")


async def test_submits_during_a_save_go_together_into_the_next(clock: VirtualClock) -> None:
    class Slow(Counting):
        """Each save takes a second."""

        def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
            done = super().apply(changes)
            if not isinstance(changes[0], Save):
                return done
            late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            clock.call_at(clock.now() + 1, late.set_result, None)
            return late

    storage = Slow()
    async with await started(storage, clock) as manager:
        submits = []
        for number in range(8):
            submits.append(asyncio.ensure_future(manager.submit("line", note, str(number))))
            await clock.advance(0.25)
        handles = await clock.run(asyncio.gather(*submits))
        await clock.run(manager.drain())
    assert [len(call) for call in storage.calls if Save in call] == [1, 3, 4]
    assert [text for text, _ in ran] == [str(number) for number in range(8)]
    assert [handle.seq for handle in handles] == sorted(handle.seq for handle in handles)
