"""What users do that they should not, and what happens to a member that should not; over every broker."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    BrokerUnavailable,
    ConfigError,
    InvalidCommand,
    LaneConfig,
    MemorySink,
    QueueManager,
    ShutdownInProgress,
    UnknownCommand,
    UnknownLane,
)
from lane_obs.distributed import LocalBroker
from lane_obs.errors import CommandExpired, RemoteError, ResultLost
from tests.integration.shared import commands
from tests.integration.shared.commands import add, begun, boom, gate, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import NewCommand, Receipt

    Join = Callable[..., Broker]

LANES = {"fast": LaneConfig(1, 4), "slow": LaneConfig(1, 2)}


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    commands.reset()


def stop_beat(broker: Any) -> None:
    if isinstance(broker, LocalBroker):
        broker.stop_beat()
    else:
        broker._inbox._heartbeat._beat = lambda: 0.05


def start_beat(broker: Any) -> None:
    if isinstance(broker, LocalBroker):
        broker.start_beat()
    else:
        del broker._inbox._heartbeat._beat


# --- a command that its own member claims again ------------------------------------------------------------------


async def test_a_member_may_claim_what_it_still_runs_and_has_lost(join: Join) -> None:
    sink = MemorySink()
    broker: Any = join(lease=0.5, concurrency=2)
    other = QueueManager(LANES, broker=join(lease=0.5), work=False)  # sees that the lease is over
    async with other, QueueManager(LANES, broker=broker, sinks=[sink], drain_timeout=1) as manager:
        handle = await other.submit("fast", hold, "it")
        waiting = asyncio.ensure_future(other.result(handle.id))
        await begun("it").wait()
        stop_beat(broker)
        while (found := await other.cluster.find(handle.id)) and (found.state, found.attempt) == ("running", 1):
            await asyncio.sleep(0.01)
        start_beat(broker)
        while commands.active["all"] < 2:
            await asyncio.sleep(0.01)
        assert manager.stats().lanes["fast"].running == 2  # and so it claims no third
        gate("it").set()
        await asyncio.wait_for(waiting, 20)
        for number in range(5):  # both slots are free again
            assert await (await manager.submit("fast", add, number, 0)) == number
        await manager.drain(timeout=20)
        stats = await manager.cluster.stats()
        assert (stats.ended["succeeded"], stats.lanes["fast"].running) == (6, 0)
        assert broker.health().stale == 1
    keys = [event.key for event in sink.events]
    assert (keys.count("queue.command.lease_lost"), keys.count("queue.command.stale")) == (1, 1)


# --- submits ----------------------------------------------------------------------------------------------------


async def test_a_lane_that_is_gone_at_the_broker_spoils_only_its_own_submits(join: Join) -> None:
    async with QueueManager(LANES, broker=join()) as manager, QueueManager(LANES, broker=join(), work=False) as other:
        await other.remove_lane("slow")
        while "slow" in (await other.cluster.stats()).lanes:
            await asyncio.sleep(0.01)
        lanes = ["fast", "slow", "fast"]
        calls = [manager.submit(lane, add, number, 0) for number, lane in enumerate(lanes)]
        first, refused, last = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(refused, UnknownLane)
        assert [await first, await last] == [0, 2]  # type: ignore[misc]


async def test_what_is_submitted_before_the_start_goes_to_the_broker_then(join: Join) -> None:
    manager = QueueManager(LANES, broker=join())
    early = [asyncio.ensure_future(manager.submit("fast", add, number, 0)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailable):
        await manager.cluster.stats()
    async with manager:
        assert [await (await one) for one in early] == [0, 1, 2]


async def test_what_waits_for_a_start_hears_of_the_shutdown(join: Join) -> None:
    manager = QueueManager(LANES, broker=join())
    early = asyncio.ensure_future(manager.submit("fast", add, 1, 0))
    await asyncio.sleep(0)
    await manager.close()
    with pytest.raises(ShutdownInProgress):
        await early


class Away(LocalBroker):
    """A broker that cannot be reached by submits."""

    calls = 0

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        self.calls += 1
        await asyncio.sleep(0.01)
        raise BrokerUnavailable(f"away for {len(commands)}")


async def test_those_behind_a_submit_that_waited_in_vain_do_not_wait_as_long_again() -> None:
    broker = Away()
    async with QueueManager(LANES, broker=broker) as manager:
        many = [asyncio.ensure_future(manager.submit("fast", add, number, 0)) for number in range(2000)]
        assert all(isinstance(one, BrokerUnavailable) for one in await asyncio.gather(*many, return_exceptions=True))
        assert broker.calls == 1
        with pytest.raises(BrokerUnavailable):  # what comes later is tried anew
            await manager.submit("fast", add, 1, 1)
        assert broker.calls == 2


async def test_what_is_not_registered_is_refused_with_what_helps(join: Join) -> None:
    async with QueueManager(LANES, broker=join()) as manager:
        with pytest.raises(InvalidCommand, match="put @lane_obs"):
            await manager.submit("fast", lambda: 1)


# --- brokers of queues ------------------------------------------------------------------------------------------


async def test_two_queues_cannot_have_one_broker_but_one_after_the_other(join: Join) -> None:
    broker = join()
    async with QueueManager(LANES, broker=broker) as manager:
        other = QueueManager(LANES, broker=broker)
        with pytest.raises(ConfigError, match=r"broker: .* give each queue a broker of its own"):
            await other.start()
        await other.close()
        assert await (await manager.submit("fast", add, 1, 1)) == 2
    async with QueueManager(LANES, broker=broker) as manager:
        assert await (await manager.submit("fast", add, 2, 1)) == 3


# --- questions --------------------------------------------------------------------------------------------------


async def test_questions_with_values_that_are_none_are_refused_by_name(join: Join) -> None:
    async with QueueManager(LANES, broker=join()) as manager:
        ask: Any = manager.cluster
        for call in (ask.find, ask.cancel, ask.result, manager.result):
            with pytest.raises(ConfigError, match="command_id: 5 is not allowed; give the id of a command"):
                await call(5)
        for call in (ask.requeue, ask.remove_letters):
            with pytest.raises(ConfigError, match="ids: 'a-1' is not allowed; give a list of ids"):
                await call("a-1")
            with pytest.raises(ConfigError, match="ids: None is not allowed; give the id of a command"):
                await call([None])
        with pytest.raises(ConfigError, match="limit: 0 is not allowed"):
            await ask.letters(limit=0)


async def test_get_and_explain_know_what_runs_here_and_say_so_of_the_rest(join: Join) -> None:
    async with QueueManager(LANES, broker=join()) as manager:
        handle = await manager.submit("fast", hold, "it")
        await begun("it").wait()
        assert manager.get(handle.id) is not None
        assert manager.explain(handle.id).state == "running"
        gate("it").set()
        await handle
        later = await manager.submit("fast", add, 1, 1, delay=60)
        assert manager.get(later.id) is None
        with pytest.raises(UnknownCommand, match=re.escape(f"{later.id!r} runs in this process; use cluster.find")):
            manager.explain(later.id)
        assert await manager.cluster.cancel(later.id) == "cancelled"


async def test_dead_letters_of_this_process_say_who_has_them(join: Join) -> None:
    async with QueueManager(LANES, broker=join()) as manager:
        handle = await manager.submit("fast", boom, "no")
        with pytest.raises(RemoteError):
            await handle
        with pytest.raises(UnknownCommand, match="in this process; the broker keeps them: use cluster"):
            manager.dead_letters.requeue(handle.id)


async def test_a_letter_of_what_the_broker_ended_says_why(join: Join) -> None:
    async with QueueManager(LANES, broker=join(lease=0.5), work=False) as manager:
        handle = await manager.submit("fast", add, 1, 1, deadline=0.01)
        with pytest.raises(CommandExpired):
            await handle
        (letter,) = await manager.cluster.letters()
        assert (letter.reason, letter.error_type) == ("expired", "CommandExpired")
        assert letter.error == "its deadline passed while it waited"


async def test_who_waits_for_a_result_after_the_close_is_told_at_once(join: Join) -> None:
    async with QueueManager(LANES, broker=join(), work=False) as manager:
        handle = await manager.submit("fast", add, 1, 1)
    for waits in (handle, manager.result(handle.id)):
        with pytest.raises(ResultLost, match="this process has left its broker"):
            await waits
