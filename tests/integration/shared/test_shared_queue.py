"""One queue, several managers: what `QueueManager(broker=...)` promises, over every broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import lane_obs
from lane_obs import (
    CommandCancelled,
    CommandExpired,
    CommandTimeout,
    ConfigError,
    DuplicateId,
    InvalidCommand,
    LaneConfig,
    LaneFullError,
    MemorySink,
    Partitions,
    QueueManager,
    RetryPolicy,
    ShutdownInProgress,
    State,
)
from lane_obs.command import registry
from lane_obs.errors import CommandDropped, RemoteError, ResultLost
from tests.integration.shared import commands
from tests.integration.shared.commands import (
    Point,
    Sum,
    add,
    begun,
    boom,
    double,
    flaky,
    gate,
    hold,
    huge,
    no_json,
    note,
    point,
    spend,
    step,
    surrogate,
    telling,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lane_obs.distributed import Broker

    Join = Callable[..., Broker]

LANES = {"fast": LaneConfig(1, 4, priority=0), "slow": LaneConfig(1, 2, priority=1)}


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    commands.reset()


def producer(join: Join, lanes: Any = None, **options: Any) -> QueueManager:
    return QueueManager(lanes or LANES, broker=join(), work=False, **options)


def worker(join: Join, lanes: Any = None, *, concurrency: int = 8, **options: Any) -> QueueManager:
    return QueueManager(lanes or LANES, broker=join(concurrency=concurrency), **options)


# --- results ----------------------------------------------------------------------------------------------------


async def test_a_command_runs_in_the_process_that_works_and_its_result_comes_to_the_one_that_submitted(
    join: Join,
) -> None:
    ours, theirs = MemorySink(), MemorySink()
    async with producer(join, sinks=[ours]) as manager, worker(join, sinks=[theirs]):
        handle = await manager.submit("fast", add, 2, 3)
        assert handle.state is State.READY
        assert await handle == 5
        assert (handle.state, handle.attempt) == (State.SUCCEEDED, 1)
        assert handle.result() == 5
        await theirs.wait_for("queue.command.completed")
    assert [event.key for event in ours.events if "command" in event.key] == ["queue.command.submitted"]
    keys = [event.key for event in theirs.events if "command" in event.key]
    assert keys == ["queue.command.started", "queue.command.completed"]


async def test_one_process_may_do_both(join: Join) -> None:
    async with worker(join) as manager:
        assert await (await manager.submit("fast", add, 1, 1)) == 2


async def test_a_command_object_a_sync_function_and_a_name_run_too(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        assert await (await manager.submit("fast", Sum([1, 2, 3]))) == 6
        assert await (await manager.submit("fast", double, 21)) == 42
        assert await (await manager.submit("fast", "many.add", 4, 4)) == 8


async def test_a_result_comes_back_as_its_annotation_says(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        assert await (await manager.submit("fast", point, 3)) == Point(3, 6)


async def test_any_process_can_await_any_command_by_its_id(join: Join) -> None:
    async with producer(join) as manager, worker(join) as other:
        handle = await manager.submit("fast", point, 3)
        assert await other.result(handle.id) == {"x": 3, "y": 6}
        assert await manager.result(handle.id) == {"x": 3, "y": 6}
        with pytest.raises(ResultLost, match="not there"):
            await manager.result("nobody")


async def test_an_error_comes_back_as_text_and_leaves_a_dead_letter(join: Join) -> None:
    async with producer(join) as manager, worker(join) as runner:
        handle = await manager.submit("fast", boom, "text")
        with pytest.raises(RemoteError, match="ValueError: text") as caught:
            await handle
        assert (caught.value.error_type, caught.value.lane) == ("ValueError", "fast")
        assert "raise ValueError(text)" in caught.value.traceback
        assert handle.state is State.FAILED
        (letter,) = await manager.cluster.letters()
        assert (letter.id, letter.command_type, letter.reason) == (handle.id, "many.boom", "failed")
        assert letter.error_type == "ValueError"
        assert len(runner.dead_letters) == 0


async def test_an_error_whose_text_cannot_be_had_is_an_error_all_the_same(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        with pytest.raises(RemoteError, match="message unavailable"):
            await (await manager.submit("fast", unreadable))
        with pytest.raises(RemoteError, match=r"a\\ud800b"):
            await (await manager.submit("fast", surrogate))


async def test_a_value_that_does_not_travel_says_so_and_the_command_has_succeeded(join: Join) -> None:
    async with producer(join) as manager, worker(join) as runner:
        handle = await manager.submit("fast", no_json)
        with pytest.raises(ResultLost, match="cannot be sent: object"):
            await handle
        assert handle.state is State.SUCCEEDED
        largest = runner.broker.max_result  # type: ignore[union-attr]
        with pytest.raises(ResultLost, match="bytes as JSON"):
            await (await manager.submit("fast", huge, largest + 1))


async def test_what_is_too_large_or_not_registered_is_refused_and_nothing_is_enqueued(join: Join) -> None:
    async def bare() -> None: ...

    async with producer(join) as manager:
        with pytest.raises(InvalidCommand, match="at most"):
            await manager.submit("fast", boom, "x" * (manager.broker.max_body + 1))  # type: ignore[union-attr]
        with pytest.raises(InvalidCommand, match="not registered"):
            await manager.submit("fast", bare)
        assert (await manager.cluster.stats()).submitted == 0


# --- retries, time-outs, deadlines ------------------------------------------------------------------------------


async def test_a_retry_goes_back_to_the_broker_and_runs_again(join: Join) -> None:
    sink = MemorySink()
    async with producer(join) as manager, worker(join, sinks=[sink]) as runner:
        retry = RetryPolicy.fixed(3, 0.001)
        handle = await manager.submit("fast", flaky, "f", 2, retry=retry)
        assert await handle == 3
        assert handle.attempt == 3
        assert runner.stats().lanes["fast"].ended["succeeded"] == 1
        assert runner.stats().submitted == 1
    retries = [event for event in sink.events if event.key == "queue.command.retry"]
    assert [event.attempt for event in retries] == [1, 2]
    (ended,) = [event for event in sink.events if event.key == "queue.command.completed"]
    assert ended.wait_by_cause.backoff > 0


async def test_retries_end_and_the_last_error_counts(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        handle = await manager.submit("fast", flaky, "f", 9, retry=RetryPolicy.fixed(1, 0.001))
        with pytest.raises(RemoteError, match="attempt 2: ConnectionError"):
            await handle
        assert commands.runs["f"] == 2


async def test_an_attempt_that_takes_too_long_ends(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        with pytest.raises(CommandTimeout):
            await (await manager.submit("fast", hold, "long", timeout=0.02))


async def test_a_deadline_ends_a_waiting_command_and_one_that_runs(join: Join) -> None:
    sink = MemorySink()
    async with producer(join) as manager, worker(join, sinks=[sink]):
        running = await manager.submit("fast", hold, "held", deadline=0.05)
        waiting = await manager.submit("slow", hold, "late", delay=30, deadline=0.05)
        for handle in (running, waiting):
            with pytest.raises(CommandExpired):
                await handle
            assert handle.state is State.EXPIRED
        assert commands.runs["late"] == 0
        letters = await manager.cluster.letters()
        assert {letter.reason for letter in letters} == {"expired"}


# --- cancel -----------------------------------------------------------------------------------------------------


async def test_a_waiting_command_is_cancelled_from_anywhere(join: Join) -> None:
    async with producer(join) as manager, producer(join) as other:
        handle = await manager.submit("fast", add, 1, 2)
        assert await other.cluster.cancel(handle.id) == "cancelled"
        with pytest.raises(CommandCancelled):
            await handle
        assert await other.cluster.cancel(handle.id) == "unknown"
        assert handle.cancel() is False


@pytest.mark.parametrize("way", ["handle", "manager", "cluster"])
async def test_a_running_command_is_cancelled_from_anywhere(join: Join, way: str) -> None:
    async with producer(join) as manager, worker(join):
        handle = await manager.submit("fast", hold, "it")
        await begun("it").wait()
        if way == "handle":
            assert handle.cancel() is True
        elif way == "manager":
            assert manager.cancel(handle.id) is True
        else:
            assert await manager.cluster.cancel(handle.id) == "running"
        with pytest.raises(CommandCancelled):
            await handle
        assert await manager.cluster.letters() == []


async def test_cancelling_who_waits_cancels_no_command(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        handle = await manager.submit("fast", hold, "it")
        await begun("it").wait()

        async def wait() -> str:
            return await handle

        waiter = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        gate("it").set()
        assert await handle == "it"


# --- rules over all members -------------------------------------------------------------------------------------


async def test_a_lane_never_runs_more_than_its_maximum_over_all_members(join: Join) -> None:
    lanes = {"two": LaneConfig(1, 2)}
    async with producer(join, lanes) as manager, worker(join, lanes), worker(join, lanes):
        handles = [await manager.submit("two", hold, f"h{number}") for number in range(6)]
        for number in range(2):
            await begun(f"h{number}").wait()
        for number in range(6):
            gate(f"h{number}").set()
        assert [await handle for handle in handles] == [f"h{number}" for number in range(6)]
        assert commands.highest["all"] == 2


async def test_commands_of_a_key_run_one_at_a_time_in_order_over_all_members(join: Join) -> None:
    lanes = {"keyed": LaneConfig(1, 8, partitions=Partitions.per_key())}
    async with producer(join, lanes) as manager, worker(join, lanes), worker(join, lanes):
        handles = [
            await manager.submit("keyed", step, f"{number % 3}", partition_key=f"{number % 3}") for number in range(30)
        ]
        for handle in handles:
            await handle
        assert [commands.highest[key] for key in "012"] == [1, 1, 1]


async def test_a_paused_lane_starts_nothing_anywhere(join: Join) -> None:
    sink = MemorySink()
    async with producer(join, sinks=[sink]) as manager, worker(join):
        assert await manager.cluster.pause("fast") is True
        handle = await manager.submit("fast", add, 1, 2)
        other = await manager.submit("slow", add, 2, 2)
        assert await other == 4
        found = await manager.cluster.find(handle.id)
        assert found is not None
        assert (found.state, found.command_type) == ("ready", "many.add")
        assert (await manager.cluster.stats()).lanes["fast"].paused is True
        manager.resume("fast")
        assert await handle == 3
        assert await manager.cluster.resume("fast") is False


async def test_submits_come_in_order(join: Join) -> None:
    lanes = {"one": LaneConfig(1, 1)}
    async with producer(join, lanes) as manager:
        await manager.submit_many("one", [(note, f"{number}") for number in range(50)])
        last = await manager.submit("one", note, "last")
        async with worker(join, lanes):
            await last
    assert commands.order == [*(f"{number}" for number in range(50)), "last"]


async def test_a_true_cost_is_settled_with_the_end(join: Join) -> None:
    lanes = {"costly": LaneConfig(1, 4, rate_limit=lane_obs.RateLimit.per_hour(1, burst=10))}
    async with producer(join, lanes) as manager, worker(join, lanes):
        for _ in range(20):
            await (await manager.submit("costly", spend, 0.0, cost=5.0))
        with pytest.raises(ConfigError, match="cost"):
            await manager.submit("costly", spend, 0.0, cost=11.0)


# --- ids, keys, bounds ------------------------------------------------------------------------------------------


async def test_a_key_in_use_gives_the_live_command(join: Join) -> None:
    async with producer(join) as manager, producer(join) as other, worker(join):
        first = await manager.submit("fast", hold, "it", key="k")
        second = await other.submit("fast", hold, "it", key="k")
        assert second.id == first.id
        gate("it").set()
        assert (await first, await second) == ("it", "it")
        assert commands.runs["it"] == 1


async def test_an_id_in_use_is_refused(join: Join) -> None:
    async with producer(join) as manager, producer(join) as other:
        await manager.submit("fast", add, 1, 1, id="mine")
        with pytest.raises(DuplicateId):
            await other.submit("fast", add, 1, 1, id="mine")


async def test_a_full_lane_rejects_or_drops_or_lets_wait(join: Join) -> None:
    lanes = {
        "rejects": LaneConfig(max_pending=1, overflow="reject"),
        "drops": LaneConfig(max_pending=1, overflow="drop_oldest"),
        "waits": LaneConfig(max_pending=1),
    }
    async with producer(join, lanes) as manager:
        for lane in ("rejects", "drops", "waits"):
            await manager.submit(lane, add, 0, 0, id=lane)
        with pytest.raises(LaneFullError):
            await manager.submit("rejects", add, 1, 1)
        newer = await manager.submit("drops", add, 1, 1)
        with pytest.raises(CommandDropped):
            await manager.result("drops")
        waiting = [asyncio.ensure_future(manager.submit("waits", add, number, 0)) for number in range(3)]
        async with worker(join, lanes):
            assert [await (await one) for one in waiting] == [0, 1, 2]
            assert await newer == 2


async def test_who_waits_for_room_hears_of_the_shutdown(join: Join) -> None:
    lanes = {"waits": LaneConfig(max_pending=1)}
    manager = producer(join, lanes)
    await manager.start()
    await manager.submit("waits", add, 0, 0)
    waiting = asyncio.ensure_future(manager.submit("waits", add, 1, 0))
    while not manager._keeper._intake._waiting:  # type: ignore[union-attr]
        await asyncio.sleep(0)
    await manager.stop()
    with pytest.raises(ShutdownInProgress):
        await waiting


# --- letters ----------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_requeued_and_runs_anew(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        handle = await manager.submit("fast", flaky, "f", 1)
        with pytest.raises(RemoteError):
            await handle
        assert await manager.cluster.requeue([handle.id, "nobody"]) == [handle.id]
        assert await manager.result(handle.id) == 2
        assert await manager.cluster.letters() == []


async def test_what_is_not_registered_where_it_is_claimed_waits_and_others_run(join: Join) -> None:
    @lane_obs.command("many.unknown_there")
    async def unknown_there() -> str:
        return "known again"

    sink = MemorySink()
    async with producer(join) as manager:
        handle = await manager.submit("fast", unknown_there)
        registry.remove("many.unknown_there")
        async with worker(join, sinks=[sink]):
            while not (passed := [event for event in sink.events if event.key == "queue.command.passed_on"]):
                await asyncio.sleep(0.01)
            assert await (await manager.submit("fast", add, 1, 1)) == 2
            lane_obs.command("many.unknown_there")(unknown_there)
            assert await handle == "known again"
        assert [event.command_id for event in passed] == [handle.id]
        assert await manager.cluster.letters() == []


async def test_a_lane_that_one_worker_lacks_is_served_by_the_other(join: Join) -> None:
    sink = MemorySink()
    both = {**LANES, "newer": LaneConfig()}
    async with producer(join, both) as manager, worker(join, sinks=[sink], concurrency=3) as old:
        handles = await manager.submit_many("newer", [(add, number, 0) for number in range(20)])
        while len({event.command_id for event in sink.events if event.key == "queue.command.passed_on"}) < 20:
            await asyncio.sleep(0.01)
        async with worker(join, both):
            assert [await handle for handle in handles] == list(range(20))
            handles = await manager.submit_many("newer", [(add, number, 0) for number in range(20)])
            assert [await handle for handle in handles] == list(range(20))
            assert await (await manager.submit("fast", add, 1, 1)) == 2
        assert (await old.cluster.stats()).ended["succeeded"] == 41
        assert await manager.cluster.letters() == []


# --- progress ---------------------------------------------------------------------------------------------------


async def test_progress_comes_to_who_awaits(join: Join) -> None:
    async with producer(join) as manager, worker(join):
        handle: Any = await manager.submit("fast", telling, "it")

        async def wait() -> str:
            return await handle

        waiter = asyncio.ensure_future(wait())
        await begun("it").wait()
        while handle.progress is None:
            await asyncio.sleep(0.001)
        assert handle.progress == {"share": 0.5}
        gate("it").set()
        assert await waiter == "told"


# --- the ends of a member ---------------------------------------------------------------------------------------


async def test_a_drain_waits_until_the_broker_knows_all_ends(join: Join) -> None:
    async with producer(join) as manager:
        runner = worker(join)
        await runner.start()
        handles = await manager.submit_many("fast", [(add, number, 0) for number in range(20)])
        assert [await handle for handle in handles] == list(range(20))
        await runner.stop()
        stats = await manager.cluster.stats()
        assert stats.ended["succeeded"] == 20
        assert len(stats.members) == 1


async def test_what_runs_at_a_close_goes_back_and_runs_elsewhere(join: Join) -> None:
    async with producer(join) as manager:
        first = worker(join)
        await first.start()
        handle = await manager.submit("fast", hold, "it")
        await begun("it").wait()
        await first.close()
        found = await manager.cluster.find(handle.id)
        assert found is not None
        assert found.state == "ready"
        gate("it").set()
        async with worker(join):
            assert await handle == "it"
        assert commands.runs["it"] == 2


async def test_a_member_that_shuts_down_claims_nothing_more(join: Join) -> None:
    lanes = {"one": LaneConfig(1, 1)}
    async with producer(join, lanes) as manager:
        first = worker(join, lanes)
        await first.start()
        running = await manager.submit("one", hold, "it")
        waiting = await manager.submit("one", add, 1, 1)
        await begun("it").wait()
        await first.shutdown()
        gate("it").set()
        await first.stop()
        assert await running == "it"
        found = await manager.cluster.find(waiting.id)
        assert found is not None
        assert found.state == "ready"


@asynccontextmanager
async def shut_while_idle(join: Join, manager: Any) -> AsyncIterator[None]:
    """A worker that shuts down while it runs one command and is idle otherwise; that one ends at the end."""
    first = worker(join)
    await first.start()
    running = await manager.submit("fast", hold, "it")
    await begun("it").wait()
    await asyncio.sleep(0.05)  # it has asked for more, and is idle
    await first.shutdown()
    yield
    gate("it").set()
    assert await running == "it"
    await first.stop()


async def test_what_comes_to_a_member_that_shuts_down_runs_elsewhere(join: Join) -> None:
    """Also where it was idle, and is given it: it gives it back, its attempt not counted."""
    async with producer(join) as manager, shut_while_idle(join, manager):
        other = await manager.submit("fast", hold, "other")
        async with worker(join):
            await begun("other").wait()
            gate("other").set()
            assert (await other, other.attempt) == ("other", 1)


async def test_what_is_left_for_a_member_that_shuts_down_runs_elsewhere(join: Join) -> None:
    """It is not told of it with the message, as it is too large for that, and does not ask for work any more."""
    async with producer(join) as manager, shut_while_idle(join, manager):
        other = await manager.submit("fast", note, "x" * 200_000)
        async with worker(join):
            assert await other is None


async def test_lanes_come_change_and_go_while_it_works(join: Join) -> None:
    async with producer(join) as manager, worker(join) as runner:
        manager.add_lane("new", LaneConfig(1, 3, priority=7))
        runner.add_lane("new", LaneConfig(1, 3, priority=7))
        assert await (await manager.submit("new", add, 1, 2)) == 3
        manager.set_lane("new", max_concurrency=2)
        assert manager.lanes["new"].max_concurrency == 2
        await manager.cluster.stats()
        await manager.remove_lane("new")
        assert "new" not in manager.lanes


# --- wrong use --------------------------------------------------------------------------------------------------


def test_wrong_configuration_fails_when_it_is_built(join: Join) -> None:
    from lane_obs.storage import MemoryStorage

    with pytest.raises(ConfigError, match="work"):
        QueueManager(LANES, work=False)
    with pytest.raises(ConfigError, match="broker"):
        QueueManager(LANES, broker="redis://127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="storage"):
        QueueManager(LANES, broker=join(), storage=MemoryStorage())
    with pytest.raises(ConfigError, match="durable"):
        QueueManager({"a": LaneConfig(durable=False)}, broker=join())


async def test_without_a_broker_there_is_no_cluster() -> None:
    manager = QueueManager(LANES)
    assert manager.broker is None
    with pytest.raises(ConfigError, match="broker"):
        _ = manager.cluster
