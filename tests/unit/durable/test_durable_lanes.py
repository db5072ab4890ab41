"""Durable lanes: what is stored when, what comes back after the process has gone, and what cannot."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs import (
    Command,
    CommandExpired,
    ConfigError,
    DuplicateId,
    InvalidCommand,
    LaneConfig,
    MemorySink,
    QueueManager,
    RetryPolicy,
    StorageError,
    VirtualClock,
    command,
)
from lane_obs.clock import sleep
from lane_obs.command import registry
from lane_obs.storage import MemoryStorage
from tests.unit.durable.support import Kept, killed
from tests.unit.durable.support import restarted as started_again

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.storage.change import Change

LANES = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 2), "memory": LaneConfig(0, 2, durable=False)}
ran: list[Any] = []


@command("durable.note")
async def note(number: int, text: str = "") -> int:
    ran.append(number)
    return number * 2


@command("durable.fail")
async def fail(text: str) -> None:
    ran.append(text)
    raise ValueError(text)


@command("durable.hang")
async def hang() -> None:
    await asyncio.Event().wait()


@command("durable.doubled")
def doubled(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return 2 * number


@command("durable.order")
@dataclasses.dataclass
class Order(Command[str]):
    item: str
    count: int = 1

    async def execute(self) -> str:
        ran.append(self.item)
        return self.item * self.count


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


async def restarted(storage: Kept, clock: VirtualClock, lanes: Any = None) -> tuple[QueueManager, MemorySink]:
    return await started_again(storage, clock, lanes or LANES)


# --- while it runs ----------------------------------------------------------------------------------------------


async def test_a_command_is_stored_before_its_submit_returns_and_gone_when_its_result_is_there(
    clock: VirtualClock,
) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        manager.pause("a")
        handle = await manager.submit("a", note, 21, timeout=5.0, key="once")
        (row,) = storage.stored()
        assert (row.id, row.lane, row.command_type, row.state, row.key) == (
            handle.id, "a", "durable.note", "ready", "once",
        )  # fmt: skip
        assert msgspec.json.decode(row.payload) == [21]
        assert row.options == {"timeout": 5.0}
        manager.resume("a")
        assert await handle == 42
        assert storage.stored() == []


async def test_each_attempt_and_each_back_off_is_written_down(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        handle = await manager.submit("a", fail, "x", retry=RetryPolicy.fixed(1, 10.0, jitter="none"))
        await clock.advance(1)
        (row,) = storage.stored()
        assert (row.state, row.attempt, row.last_error_type, row.last_error) == ("backoff", 1, "ValueError", "x")
        assert row.not_before == pytest.approx(clock.wall() + 9)
        await clock.advance(10)
        with pytest.raises(ValueError, match="x"):
            await handle
        assert storage.stored() == []
        (letter,) = await storage.load_dead_letters()
        assert (letter.id, letter.error_type, letter.error, letter.attempts) == (handle.id, "ValueError", "x", 2)
        assert "raise ValueError(text)" in (letter.traceback or "")


async def test_sync_functions_are_stored_too_and_run_again(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    handle = await manager.submit("a", doubled, 21)
    (row,) = storage.stored()
    assert (row.command_type, msgspec.json.decode(row.payload)) == ("durable.doubled", [21])
    await killed(manager)
    again, _ = await restarted(storage, clock)
    found = again.get(handle.id)
    assert found is not None
    assert await found == 42
    await again.stop()


async def test_the_dead_letter_of_a_sync_function_keeps_its_arguments(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        handle = await manager.submit("a", doubled, -1)
        with pytest.raises(ValueError, match="negative"):
            await handle
        (letter,) = await storage.load_dead_letters()
        assert msgspec.json.decode(letter.payload) == [-1]


async def test_objects_of_registered_classes_are_stored_too(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        manager.pause("a")
        handles = [await manager.submit("a", Order("tea", 2)), await manager.submit("a", "durable.order", "jam")]
        assert [msgspec.json.decode(row.payload) for row in storage.stored()] == [
            {"item": "tea", "count": 2}, {"item": "jam", "count": 1},
        ]  # fmt: skip
        manager.resume("a")
        assert [await handle for handle in handles] == ["teatea", "jam"]


async def test_a_lane_that_opted_out_stores_nothing(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        manager.pause("memory")
        handle = manager.submit_nowait("memory", sleep, clock, 5)  # nothing that could be stored
        assert storage.stored() == []
        manager.resume("memory")
        await clock.run(handle)


@pytest.mark.parametrize(
    ("work", "args", "text"),
    [
        (lambda: 1, (), "is not registered"),
        (note, ("seven",), "Expected `int`, got `str`"),
        (note, (1, object()), r"\[1\] object"),
        (note, (1, "x", 3), "does not take 3 positional arguments"),
    ],
)
async def test_what_could_not_be_rebuilt_is_refused_and_nothing_is_stored(
    clock: VirtualClock, work: Any, args: tuple[Any, ...], text: str
) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        with pytest.raises(InvalidCommand, match=text):
            await manager.submit("a", work, *args)
        with pytest.raises(InvalidCommand, match=text):
            await manager.submit_many("a", [(note, 1), (work, *args)])
        assert storage.stored() == []
        assert ran == []


async def test_a_submit_that_does_not_wait_is_refused(clock: VirtualClock) -> None:
    async with QueueManager(LANES, storage=Kept(), clock=clock) as manager:
        with pytest.raises(InvalidCommand, match="durable"):
            manager.submit_nowait("a", note, 1)


async def test_one_key_is_one_command_also_while_it_is_being_saved(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        first, second = await asyncio.gather(*(manager.submit("a", note, 1, key="k") for _ in range(2)))
        assert first is second
        await clock.run(manager.drain())
        assert ran == [1]
        results = await asyncio.gather(
            *(manager.submit("a", note, number, id="same") for number in (2, 3)), return_exceptions=True
        )
        assert [type(result) for result in results if isinstance(result, Exception)] == [DuplicateId]


async def test_a_full_lane_counts_what_is_being_saved(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 1, max_pending=2)}
    async with QueueManager(lanes, storage=Kept(), clock=clock) as manager:
        manager.pause("a")
        submits = [asyncio.ensure_future(manager.submit("a", note, number)) for number in range(5)]
        await clock.advance(0)
        assert [submit.done() for submit in submits] == [True, True, False, False, False]
        assert manager.stats().lanes["a"].pending == 2
        manager.resume("a")
        await clock.run(asyncio.gather(*submits))
        await clock.run(manager.drain())
        assert ran == [0, 1, 2, 3, 4]


async def test_order_holds_among_many_submitters(clock: VirtualClock) -> None:
    async with QueueManager(LANES, storage=Kept(), clock=clock) as manager:
        handles = await asyncio.gather(*(manager.submit("a", note, number) for number in range(50)))
        await clock.run(manager.drain())
        assert [handle.seq for handle in handles] == sorted(handle.seq for handle in handles)
        assert ran == list(range(50))


async def test_a_cancelled_command_is_forgotten(clock: VirtualClock) -> None:
    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock) as manager:
        waiting = await manager.submit("a", note, 1, delay=50)
        running = await manager.submit("b", hang)
        await clock.advance(1)
        waiting.cancel()
        running.cancel()
        await clock.advance(1)
        assert storage.stored() == []


async def test_a_storage_that_fails_fails_the_submit_and_nothing_runs(clock: VirtualClock) -> None:
    class Broken(Kept):
        def apply(self, changes: Any) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(StorageError("here", "disk full"))
            return future

    sink = MemorySink()
    async with QueueManager(LANES, storage=Broken(), clock=clock, sinks=[sink]) as manager:
        with pytest.raises(StorageError, match="disk full"):
            await manager.submit("a", note, 1)
        assert await clock.run(manager.submit_nowait("memory", note, 2)) == 4  # in memory all goes on
        await clock.advance(0)
        assert ran == [2]
        assert [event.payload["reason"] for event in sink.of("queue.command.rejected")] == ["storage"]


def test_a_lane_cannot_be_durable_without_a_storage() -> None:
    with pytest.raises(ConfigError, match=r"lanes.a.durable"):
        QueueManager({"a": LaneConfig(durable=True)})


@pytest.mark.parametrize("storage", [5, "dir", object(), MemoryStorage])
def test_a_storage_is_a_storage(storage: Any) -> None:
    with pytest.raises(ConfigError, match="storage"):
        QueueManager(storage=storage)


@pytest.mark.parametrize(
    ("values", "field"),
    [({"durable": 1}, "durable"), ({"on_crash": "x"}, "on_crash"), ({"max_crashes": 0}, "max_crashes")],
)
def test_bad_policies_are_named(values: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LaneConfig(**values)
    assert caught.value.field == field


# --- afterwards -------------------------------------------------------------------------------------------------


async def test_what_waited_comes_back_in_order_before_what_is_new(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    for number in range(5):
        await manager.submit("a", note, number)
    await manager.submit("a", note, 100, delay=50)
    await killed(manager)
    manager, sink = await restarted(storage, clock)
    async with manager:
        assert manager.stats().storage.recovered  # type: ignore[union-attr]
        new = await manager.submit("a", note, 7)
        assert await clock.run(new) == 14
        assert ran == [0, 1, 2, 3, 4, 7]
        assert len(sink.of("queue.command.recovered")) == 6
        await clock.advance(60)
        assert ran[-1] == 100
    assert storage.stored() == []


async def test_work_that_was_given_before_the_start_and_stored_work_do_not_get_in_each_others_way(
    clock: VirtualClock,
) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    for number in range(3):
        await manager.submit("a", note, number)
    await killed(manager)
    manager = QueueManager(LANES, storage=storage, clock=clock)
    early = [manager.submit_nowait("memory", note, number) for number in range(10, 13)]
    async with manager:
        await clock.run(manager.drain())
        assert sorted(ran) == [0, 1, 2, 10, 11, 12]
        assert [await handle for handle in early] == [20, 22, 24]
    assert storage.stored() == []


async def test_a_running_command_counts_its_attempt_and_runs_again(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    handle = await manager.submit("a", hang, key="k")
    await clock.advance(1)
    await killed(manager)
    assert storage.rows() == [("durable.hang", "running", 1)]
    manager, _ = await restarted(storage, clock)
    await clock.advance(1)
    again = manager.get(handle.id)
    assert again is not None
    assert again.attempt == 2
    assert (await manager.submit("a", hang, key="k")) is again
    await clock.run(manager.close())
    assert storage.stored()[0].deaths == 1


async def test_a_command_that_kills_its_process_becomes_a_dead_letter(clock: VirtualClock) -> None:
    storage = Kept()
    for _ in range(3):
        manager = QueueManager({"a": LaneConfig(0, 1, max_crashes=3)}, storage=storage, clock=clock)
        await manager.start()
        if not storage.stored():
            await manager.submit("a", hang)
        await clock.advance(1)
        await killed(manager)
    manager, _ = await restarted(storage, clock, {"a": LaneConfig(0, 1, max_crashes=3)})
    async with manager:
        (letter,) = manager.dead_letters.list()
        assert (letter.error_type, letter.attempts) == ("ProcessDied", 3)
        assert "3 times" in letter.error
        assert storage.stored() == []


async def test_a_lane_may_want_no_second_try(clock: VirtualClock) -> None:
    storage = Kept()
    lanes = {"a": LaneConfig(0, 1, on_crash="dead_letter")}
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    await manager.submit("a", hang)
    await manager.submit("a", note, 1)
    await clock.advance(1)
    await killed(manager)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        assert [letter.error_type for letter in manager.dead_letters.list()] == ["ProcessDied"]
        await clock.run(manager.drain())
        assert ran == [1]


class Watched(Kept):
    """Notes what is stored after each change: the process may be killed there."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[set[str], int]] = []

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        done = super().apply(changes)
        self.states.append(({row.state for row in self.stored()}, len(self._letters)))
        return done


@pytest.mark.parametrize("config", [LaneConfig(0, 1, on_crash="dead_letter"), LaneConfig(0, 1, max_crashes=1)])
async def test_what_must_not_run_again_is_never_stored_as_ready(clock: VirtualClock, config: LaneConfig) -> None:
    storage = Watched()
    manager = QueueManager({"a": config}, storage=storage, clock=clock)
    await manager.start()
    await manager.submit("a", hang)
    await clock.advance(1)
    await killed(manager)
    storage.states.clear()
    manager, _ = await restarted(storage, clock, {"a": config})
    await manager.close()
    assert storage.states == [(set(), 1)]


async def test_an_orderly_close_leaves_all_work_stored_and_counts_no_crash(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    await manager.submit("a", hang)
    await manager.submit("a", note, 1)
    await clock.advance(1)
    await clock.run(manager.close())
    assert storage.rows() == [("durable.hang", "ready", 1), ("durable.note", "ready", 0)]
    assert storage.stored()[0].deaths == 0


async def test_back_off_and_deadline_go_on(clock: VirtualClock) -> None:
    storage = Kept()
    retry = RetryPolicy.fixed(3, 20.0, jitter="none")
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    await manager.submit("a", fail, "x", retry=retry)
    await manager.submit("b", note, 5, delay=100, deadline=30)
    await clock.advance(5)
    await killed(manager)
    await clock.advance(5)  # the process is away
    manager, sink = await restarted(storage, clock)
    async with manager:
        ran.clear()
        await clock.advance(9)
        assert ran == []
        await clock.advance(2)  # 20 s after the first failure
        assert ran == ["x"]
        await clock.advance(10)
        assert [event.payload["error_type"] for event in sink.of("queue.command.expired")] == [CommandExpired.__name__]
        await clock.run(manager.drain())
        assert ran == ["x", "x", "x"]  # four attempts in all


async def test_a_deadline_that_passed_meanwhile_expires_at_once(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    await manager.submit("a", note, 5, deadline=30)
    await killed(manager)
    await clock.advance(60)
    manager, _ = await restarted(storage, clock)
    async with manager:
        assert [str(letter.reason) for letter in manager.dead_letters.list()] == ["expired"]
        assert ran == []


async def test_an_unregistered_type_is_kept_and_runs_once_it_is_registered(clock: VirtualClock) -> None:
    storage = Kept()

    @command("durable.later")
    async def later(number: int) -> None:
        ran.append(number)

    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    await manager.submit("a", later, 3)
    await killed(manager)
    registry.remove("durable.later")
    manager, sink = await restarted(storage, clock)
    async with manager:
        assert [event.payload["reason"] for event in sink.of("queue.command.kept")] == ["unregistered"]
        assert manager.stats().storage.kept == {"unknown_lane": 0, "unregistered": 1}  # type: ignore[union-attr]
        assert storage.rows() == [("durable.later", "ready", 0)]
        registry.add("durable.later", later)
        await clock.advance(0)
        await clock.run(manager.drain())
        assert ran == [3]
        assert manager.stats().storage.kept["unregistered"] == 0  # type: ignore[union-attr]
    assert storage.stored() == []
    registry.remove("durable.later")


async def test_a_lane_that_is_gone_keeps_its_commands(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager({"old": LaneConfig(0, 1)}, storage=storage, clock=clock)
    await manager.start()
    manager.pause("old")
    await manager.submit("old", note, 3)
    await killed(manager)
    manager, sink = await restarted(storage, clock)
    async with manager:
        assert [event.payload["reason"] for event in sink.of("queue.command.kept")] == ["unknown_lane"]
    assert storage.rows() == [("durable.note", "ready", 0)]


async def test_a_payload_that_no_longer_fits_becomes_a_dead_letter_with_the_reason(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    manager.pause("a")
    await manager.submit("a", note, 3)
    await killed(manager)
    (row,) = storage.stored()
    await storage.open()
    await storage.save_command(msgspec.structs.replace(row, payload=b'["three"]'))
    manager, _ = await restarted(storage, clock)
    async with manager:
        (letter,) = manager.dead_letters.list()
        assert "Expected `int`, got `str`" in letter.error
        (stored,) = await storage.load_dead_letters()
        assert stored.payload == b'["three"]'
        assert storage.stored() == []


# --- dead letters -----------------------------------------------------------------------------------------------


async def test_dead_letters_survive_and_can_be_requeued_and_purged(clock: VirtualClock) -> None:
    storage = Kept()
    manager = QueueManager(LANES, storage=storage, clock=clock)
    await manager.start()
    for text in ("x", "y", "z"):
        await manager.submit("a", fail, text, id=text)
    await clock.run(manager.drain())
    await killed(manager)
    ran.clear()
    manager, _ = await restarted(storage, clock)
    async with manager:
        assert [letter.id for letter in manager.dead_letters.list()] == ["x", "y", "z"]
        handle = manager.dead_letters.requeue("y")
        assert handle.attempt == 0
        await clock.run(manager.drain())
        assert ran == ["y"]
        assert [letter.id for letter in manager.dead_letters.list(lane="a")] == ["x", "z", "y"]
        assert manager.dead_letters.purge(command_type="durable.fail") == 3
        await clock.advance(0)
        assert await storage.load_dead_letters() == []


async def test_the_trace_of_the_submit_stays_with_a_command_through_its_dead_letter(clock: VirtualClock) -> None:
    class Tracing(MemorySink):
        def traceparent(self) -> str:
            return "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    storage = Kept()
    async with QueueManager(LANES, storage=storage, clock=clock, sinks=[Tracing()]) as manager:
        handle = await manager.submit("a", fail, "x")
        await clock.run(manager.drain())
        (letter,) = await storage.load_dead_letters()
        assert letter.trace == Tracing().traceparent()
        manager.pause("a")
        manager.dead_letters.requeue(handle.id)
        await clock.advance(0)
        assert [row.trace for row in storage.stored()] == [letter.trace]
        manager.resume("a")


async def test_old_letters_give_way(clock: VirtualClock) -> None:
    from lane_obs import DeadLetterQueue

    storage, sink = Kept(), MemorySink()
    letters = DeadLetterQueue(2, max_age=100)
    async with QueueManager(LANES, storage=storage, clock=clock, dead_letters=letters, sinks=[sink]) as manager:
        for text in ("x", "y", "z"):
            await manager.submit("a", fail, text, id=text)
            await clock.advance(40)
        assert [letter.id for letter in letters.list()] == ["y", "z"]
        await clock.advance(45)
        assert [letter.id for letter in letters.list()] == ["z"]
        await clock.advance(0)
        assert (letters.evicted, len(sink.of("queue.dead_letter.evicted"))) == (2, 2)
        await clock.advance(0)
        assert [letter.id for letter in await storage.load_dead_letters()] == ["z"]
