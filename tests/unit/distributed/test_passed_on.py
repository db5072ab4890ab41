"""Commands that a worker does not know are left to those that do, and are dead letters where nobody does."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

import lane_obs
from lane_obs import LaneConfig, MemorySink, QueueManager, RateLimit, VirtualClock
from lane_obs.command import registry
from lane_obs.distributed import LocalBroker
from lane_obs.distributed.record import NewCommand
from lane_obs.runtime.brokered.body import Body, encode_body
from lane_obs.runtime.brokered.unserved import PATIENCE
from lane_obs.sinks.prometheus import PrometheusSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from lane_obs.distributed.record import End, Progress, Turn

OLD = {"a": LaneConfig(0, 4)}
NEW = {"a": LaneConfig(0, 4), "b": LaneConfig(0, 4)}


@lane_obs.command("passed.note")
async def note(number: int) -> int:
    return number


@dataclasses.dataclass
class Odd:
    number: int

    def __post_init__(self) -> None:
        raise RuntimeError("odd")


@lane_obs.command("passed.odd")
async def odd(it: Odd) -> int:
    return it.number


class Counting(LocalBroker):
    """Counts its turns."""

    turns = 0

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        self.turns += 1
        return await super().turn(ends, want, progress)


class Worker:
    """A process of an application's old or new version."""

    def __init__(self, broker: LocalBroker, clock: VirtualClock, lanes: dict[str, LaneConfig], **options: Any) -> None:
        self.sink, self.registry = MemorySink(), CollectorRegistry()
        sinks: list[Any] = [self.sink, PrometheusSink(self.registry)]
        self.manager = QueueManager(lanes, broker=broker, clock=clock, sinks=sinks, **options)

    def passed(self) -> list[dict[str, Any]]:
        """What was told of commands that it passed on."""
        return [event.payload for event in self.sink.events if event.key == "queue.command.passed_on"]

    def ran(self) -> list[str]:
        """The commands that succeeded here."""
        return [event.payload["command_id"] for event in self.sink.events if event.key == "queue.command.completed"]

    def counted(self) -> dict[str, float]:
        """The metric, by reason."""
        name = "lane_commands_passed_on_total"
        samples = [sample for family in self.registry.collect() for sample in family.samples if sample.name == name]
        return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


@contextlib.asynccontextmanager
async def working(clock: VirtualClock, *workers: Worker) -> AsyncIterator[None]:
    for worker in workers:
        await worker.manager.start()
    try:
        yield
    finally:
        for worker in reversed(workers):
            await clock.run(worker.manager.close())
    assert clock.pending == 0


def a_command(command_id: str, lane: str = "a", **fields: Any) -> NewCommand:
    """One as another version of the application submits it; `body` is that of the command."""
    body = {"command_type": "passed.note", "payload": b"[7]", **fields}
    return NewCommand(command_id, lane, encode_body(Body(**body)))


KNOWN_ELSEWHERE = {
    "command_type": a_command("c1", command_type="passed.nowhere"),
    "arguments": a_command("c1", payload=b"[7, 8]"),
    "options": a_command("c1", options={"newer": 1}),
    "lane": a_command("c1", "b"),
}


async def test_a_lane_that_one_worker_lacks_is_served_by_the_other(clock: VirtualClock) -> None:
    """Whoever of them comes first, however many do not know it, and also where those work on other things."""
    broker = LocalBroker(clock=clock)
    old = [Worker(broker, clock, OLD), *(Worker(broker.join(), clock, OLD) for _ in range(3))]
    new = Worker(broker.join(), clock, NEW)
    async with working(clock, *old, new):
        ids = [f"c{number}" for number in range(20)]
        for command_id in ids:
            handle = await clock.run(new.manager.submit("b", note, 7, id=command_id))
            await clock.run(new.manager.submit("a", note, 8))
            assert await clock.run(handle) == 7
        assert set(ids) <= set(new.ran())
        assert await clock.run(new.manager.cluster.letters()) == []
        passed = [fact for worker in old for fact in worker.passed()]
        assert passed, "the workers that do not know the lane have met none of its commands"
        told = {(fact["reason"], fact["lane"], fact["attempt"], fact["seconds"]) for fact in passed}
        assert told == {("lane", "b", 0, 1)}
        assert "unknown lane 'b'" in passed[0]["error"]
        assert sum(worker.counted()["lane"] for worker in old if worker.counted()) == len(passed)
        (attempts,) = {event.payload["attempt"] for event in new.sink.events if event.key == "queue.command.started"}
        assert attempts == 1
        waits = [event.payload for event in new.sink.events if event.key == "queue.command.completed"]
        assert all(wait["wait_by_cause"]["backoff"] == wait["wait_by_cause"]["delay"] == 0 for wait in waits)
        assert max(wait["wait_by_cause"]["broker"] for wait in waits) <= 4.1, "each of them takes it once at most"


@pytest.mark.parametrize("reason", KNOWN_ELSEWHERE)
async def test_what_nobody_knows_is_a_dead_letter_after_a_while(
    clock: VirtualClock, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Counting(clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.declare(NEW)
        with caplog.at_level(logging.WARNING):
            await broker.submit([KNOWN_ELSEWHERE[reason]])
            turns = broker.turns
            await clock.advance(60)
            found = await clock.run(old.manager.cluster.find("c1"))
            assert found is not None
            assert (found.state, found.attempt) == ("backoff", 0)
            assert await clock.run(old.manager.cluster.letters()) == []
            assert broker.turns - turns < 40
            await clock.advance(PATIENCE - 60 + 11)
        (letter,) = await clock.run(old.manager.cluster.letters())
        kinds = {"command_type": "UnknownCommand", "arguments": "InvalidCommand", "options": "ConfigError"}
        assert (letter.id, letter.attempts, letter.error_type) == ("c1", 1, kinds.get(reason, "UnknownLane"))
        assert letter.error.startswith("passed on for 300 s, and no worker has run it: ")
        passed = old.passed()
        assert [fact["seconds"] for fact in passed[:6]] == [1, 2, 4, 8, 10, 10]
        assert 30 < len(passed) < 40
        assert {fact["reason"] for fact in passed} == {reason}
        assert old.counted() == {reason: len(passed)}
        (line,) = [record for record in caplog.records if "passed on" in record.getMessage()]
        assert (line.name, line.levelname) == ("lane_obs.broker", "WARNING")
        assert "c1" in line.getMessage()
        before = broker.turns
        await clock.advance(100)
        assert broker.turns == before


@pytest.mark.parametrize(
    "new",
    [
        NewCommand("c1", "a", b"\xc1"),
        NewCommand("c1", "b", b"\xc1"),
        NewCommand("c1", "a", msgspec.msgpack.encode([1, b"[7]"])),
        a_command("c1", payload=b"[7"),
        a_command("c1", payload=b"\xff"),
    ],
)
async def test_what_cannot_be_read_by_anyone_is_a_dead_letter_at_once(clock: VirtualClock, new: NewCommand) -> None:
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.declare(NEW)
        await broker.submit([new])
        await clock.advance(0.1)
        (letter,) = await clock.run(old.manager.cluster.letters())
        assert (letter.id, letter.error_type) == ("c1", "InvalidCommand")
        assert old.passed() == []
        assert await clock.run(await clock.run(old.manager.submit("a", note, 1))) == 1


async def test_arguments_that_raise_what_they_like_do_not_end_the_worker(clock: VirtualClock) -> None:
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.submit([a_command("c1", command_type="passed.odd", payload=b'[{"number":1}]')])
        await clock.advance(0.1)
        assert [fact["reason"] for fact in old.passed()] == ["arguments"]
        assert await clock.run(await clock.run(old.manager.submit("a", note, 1))) == 1


async def test_a_type_that_is_registered_later_runs_then(clock: VirtualClock) -> None:
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.submit([a_command("c1", command_type="passed.late")])
        await clock.advance(20)
        assert len(old.passed()) == 5

        @lane_obs.command("passed.late")
        async def late(number: int) -> int:
            return number

        try:
            await clock.advance(10)
            assert old.ran() == ["c1"]
        finally:
            registry.remove("passed.late")


async def test_what_is_passed_on_gives_back_its_slot_and_its_tokens(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 1, rate_limit=RateLimit.per_second(0.01, burst=2))}
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, lanes)
    async with working(clock, old):
        await broker.submit([a_command("c1", command_type="passed.nowhere")])
        await clock.advance(5)
        assert len(old.passed()) == 3
        handles = [await clock.run(old.manager.submit("a", note, number)) for number in range(2)]
        assert [await clock.run(handle) for handle in handles] == [0, 1]
        assert clock.now() < 1_000_000 + 5 + 12


async def test_a_partition_is_not_passed_by_what_comes_after_it(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 4, partitions=lane_obs.Partitions.per_key())}
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, lanes)
    async with working(clock, old):
        body = encode_body(Body("passed.nowhere", b"[7]"))
        await broker.submit([NewCommand("c1", "a", body, part="p")])
        await clock.advance(0.1)
        second = await clock.run(old.manager.submit("a", note, 2, partition_key="p"))
        other = await clock.run(old.manager.submit("a", note, 3, partition_key="q"))
        assert await clock.run(other) == 3
        await clock.advance(PATIENCE + 11)
        assert await clock.run(second) == 2
        assert [letter.id for letter in await clock.run(old.manager.cluster.letters())] == ["c1"]


async def test_a_flood_of_the_unknown_leaves_room_for_the_known(clock: VirtualClock) -> None:
    broker = LocalBroker(concurrency=4, clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.submit([a_command(f"c{number}", command_type="passed.nowhere") for number in range(500)])
        handle = await clock.run(old.manager.submit("a", note, 1))
        began = clock.now()
        assert await clock.run(handle) == 1
        assert clock.now() - began < 1
        await clock.advance(3.5)
        assert len(old.passed()) == 1500


async def test_a_cancelled_command_is_passed_on_no_more(clock: VirtualClock) -> None:
    broker = LocalBroker(clock=clock)
    old = Worker(broker, clock, OLD)
    async with working(clock, old):
        await broker.submit([a_command("c1", command_type="passed.nowhere")])
        await clock.advance(0.1)
        assert await clock.run(old.manager.cluster.cancel("c1")) == "cancelled"
        await clock.advance(100)
        assert len(old.passed()) == 1
