"""What the members of one queue tell of it together: traces across members, lost leases, and the whole queue once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, MemorySink, QueueManager, RetryPolicy, command
from lane_obs.distributed import LocalBroker
from lane_obs.metrics import catalogue
from lane_obs.sinks.prometheus import PrometheusSink
from tests.unit.sinks.otel_support import Spans, context_of, fields, ids, linked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lane_obs import LaneEvent, VirtualClock

LANES = {"a": LaneConfig(0, 4), "b": LaneConfig(0, 4)}
held: list[asyncio.Future[None]] = []


@command("shared.note")
async def note(number: int) -> int:
    return number


@command("shared.fail")
async def fail() -> None:
    raise ValueError("no")


@command("shared.hold")
async def hold() -> None:
    held.append(asyncio.get_running_loop().create_future())
    await held[-1]


class Process:
    """A member with all its telemetry, as if it were a process of its own."""

    def __init__(self, clock: VirtualClock, broker: LocalBroker, *, work: bool, spans: Spans | None = None) -> None:
        self.broker, self.spans = broker, spans or Spans()
        self.registry, self.sink = CollectorRegistry(), MemorySink()
        sinks: list[Any] = [self.spans.sink(), self.sink, PrometheusSink(self.registry)]
        self.manager = QueueManager(LANES, broker=broker, work=work, sinks=sinks, clock=clock)

    def of(self, metric: catalogue.Metric) -> dict[str, float]:
        """Values of a metric by the labels that are not the queue's."""
        return {
            " ".join(value for name, value in sample.labels.items() if name != "queue"): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == metric.name
        }

    def told(self, key: str) -> list[LaneEvent]:
        """Its events of this kind."""
        return [event for event in self.sink.events if event.key == f"queue.{key}"]


@contextlib.asynccontextmanager
async def processes(clock: VirtualClock, *given: Process) -> AsyncIterator[None]:
    held.clear()
    for process in given:
        await process.manager.start()
    yield
    for future in held:
        if not future.done():
            future.set_result(None)
    for process in reversed(given):
        await clock.run(process.manager.close())


def pair(clock: VirtualClock, producer: Spans | None = None, worker: Spans | None = None) -> tuple[Process, Process]:
    broker = LocalBroker(lease=10.0, clock=clock)
    return (
        Process(clock, broker, work=False, spans=producer),
        Process(clock, broker.join(), work=True, spans=worker),
    )


# --- traces -----------------------------------------------------------------------------------------------------


async def test_the_first_attempt_is_a_child_of_the_submit_in_another_process(clock: VirtualClock) -> None:
    producer, worker = pair(clock)
    async with processes(clock, producer, worker):
        with producer.spans.tracer.start_as_current_span("request") as request:
            handle = await clock.run(producer.manager.submit("a", note, 1))
            assert await clock.run(handle) == 1
        members = producer.broker.member, worker.broker.member
    submit, process = producer.spans.one("submit a"), worker.spans.one("process a")
    assert ids(submit.parent) == ids(request.get_span_context())
    assert process.parent is not None
    assert ids(process.parent) == ids(context_of(submit))
    assert process.parent.is_remote
    assert linked(process) == [ids(context_of(submit))]
    assert context_of(process).trace_id == request.get_span_context().trace_id
    assert (fields(submit)["messaging.client.id"], fields(process)["messaging.client.id"]) == members
    assert fields(process)["lane.worker"] == members[1] != members[0]
    (done,) = worker.told("command.completed")
    assert ids(getattr(done, "trace", None)) == ids(context_of(process))


async def test_a_retry_a_delayed_and_an_old_command_have_traces_of_their_own_with_a_link(clock: VirtualClock) -> None:
    producer, worker = pair(clock)
    async with processes(clock, producer, worker):
        await clock.run(producer.manager.submit("a", fail, retry=RetryPolicy(1, 5.0, jitter="none")))
        await clock.run(producer.manager.submit("b", note, 1, delay=5.0))
        await clock.advance(20.0)
        await clock.run(producer.manager.cluster.pause("b"))
        await clock.run(producer.manager.submit("b", note, 2))
        await clock.advance(90.0)
        await clock.run(producer.manager.cluster.resume("b"))
        await clock.advance(1.0)
    (retried,) = producer.spans.named("submit a")
    first, second = worker.spans.named("process a")
    assert ids(first.parent) == ids(context_of(retried))
    assert second.parent is None
    assert linked(second)[0] == ids(context_of(retried))
    submits, attempts = producer.spans.named("submit b"), worker.spans.named("process b")
    assert [span.parent for span in attempts] == [None, None]
    assert [linked(span) for span in attempts] == [[ids(context_of(span))] for span in submits]


async def test_a_command_that_nobody_traced_is_the_root_of_a_trace(clock: VirtualClock) -> None:
    broker = LocalBroker(clock=clock)
    silent = QueueManager(LANES, broker=broker, work=False, clock=clock)
    worker = Process(clock, broker.join(), work=True)
    await silent.start()
    async with processes(clock, worker):
        assert await clock.run(await clock.run(silent.submit("a", note, 1))) == 1
        await clock.run(silent.close())
    process = worker.spans.one("process a")
    assert process.parent is None
    assert linked(process) == []


async def test_what_the_producer_did_not_sample_the_worker_does_not_unless_it_fails(clock: VirtualClock) -> None:
    producer, worker = pair(clock, Spans(ALWAYS_OFF), Spans(ParentBased(ALWAYS_OFF)))
    async with processes(clock, producer, worker):
        await clock.run(await clock.run(producer.manager.submit("a", note, 1)))
        await clock.run(producer.manager.submit("b", fail))
        await clock.advance(1.0)
    assert producer.spans.names == []
    assert fields(worker.spans.one("process b"))["lane.sampling.reason"] == "failed"
    assert worker.spans.names == ["process b"]


# --- lost leases, and what a broker does on its own account -----------------------------------------------------


async def test_a_lost_lease_is_told_by_the_loser_and_by_one_other(clock: VirtualClock) -> None:
    producer, first = pair(clock)
    async with processes(clock, producer, first):
        await clock.run(producer.manager.submit("a", hold, id="c1"))
        await clock.advance(0.0)
        second = Process(clock, first.broker.join(), work=True)
        await second.manager.start()
        loser = first.broker.member
        first.broker.stop_beat()
        await clock.advance(12.0)
        assert [event.payload["state"] for event in first.told("command.stale")] == []
        held[0].set_result(None)
        await clock.advance(1.0)
        held[1].set_result(None)
        await clock.advance(1.0)
        (returned,) = [event for one in (producer, first, second) for event in one.told("command.returned")]
        assert returned.payload["member"] == loser
        assert (returned.payload["command_id"], returned.payload["attempt"]) == ("c1", 1)
        submit = producer.spans.one("submit a")
        assert ids(getattr(returned, "trace", None)) == ids(context_of(submit))
        assert [event.payload["command_id"] for event in first.told("command.lease_lost")] == ["c1"]
        assert [event.payload["state"] for event in first.told("command.stale")] == ["succeeded"]
        assert len(second.told("command.completed")) == 1
        assert first.of(catalogue.LEASES_LOST) == first.of(catalogue.STALE) == {"a": 1, "b": 0}
        assert sum(one.of(catalogue.RETURNED)["a"] for one in (producer, first, second)) == 1
        assert linked(second.spans.one("process a"))[0] == ids(context_of(submit))
        await clock.run(second.manager.close())


async def test_what_the_broker_ends_is_told_counted_and_traced_once(clock: VirtualClock) -> None:
    producer, worker = pair(clock)
    async with processes(clock, producer, worker):
        await clock.run(producer.manager.cluster.pause("a"))
        await clock.run(producer.manager.submit("a", note, 1, deadline=5.0))
        handle = await clock.run(producer.manager.submit("b", note, 1, delay=50.0))
        await clock.run(producer.manager.cluster.cancel(handle.id))
        await clock.advance(6.0)
        await clock.advance(30.0)
        outcomes = [one.of(catalogue.FINISHED) for one in (producer, worker)]
        assert sum(found["a expired"] for found in outcomes) == 1
        assert sum(found["b cancelled"] for found in outcomes) == 1
        assert sum(one.of(catalogue.DEAD_LETTERED)["a"] for one in (producer, worker)) == 1
        (settled,) = [span for one in (producer, worker) for span in one.spans.named("settle a")]
        assert ids(settled.parent) == ids(context_of(producer.spans.one("submit a")))
        assert fields(settled)["lane.outcome"] == "expired"
        assert fields(settled)["lane.queue.wait.broker"] == pytest.approx(5.0, abs=1.0)


# --- the whole queue --------------------------------------------------------------------------------------------


async def test_one_member_at_a_time_exports_the_whole_queue(clock: VirtualClock) -> None:
    producer, worker = pair(clock)
    async with processes(clock, producer):
        await worker.manager.start()
        both = producer, worker
        await clock.run(producer.manager.submit("b", note, 1, delay=5.0))
        await clock.advance(1.0)
        assert sorted(one.of(catalogue.BROKER_LEADS)[""] for one in both) == [0, 1]
        (leader,) = [one for one in both if one.of(catalogue.BROKER_LEADS) == {"": 1}]
        shown = [one for one in both if one.of(catalogue.CLUSTER_DEPTH)]
        assert shown == [leader]
        assert [event.payload for event in leader.told("broker.lead")] == [{"leads": True}]
        assert leader.of(catalogue.CLUSTER_DEPTH)["b delayed"] == 1
        assert leader.of(catalogue.CLUSTER_MEMBERS) == {"worker": 1, "submitter": 1}
        assert leader.of(catalogue.CLUSTER_SLOTS) == {"": 32}
        assert {one.of(catalogue.WORKER_INFO).popitem()[0] for one in both} == {one.broker.member for one in both}
        await clock.run(worker.manager.close())
        await clock.advance(10.0)
        assert producer.of(catalogue.CLUSTER_MEMBERS) == {"worker": 0, "submitter": 1}
        assert worker.of(catalogue.CLUSTER_MEMBERS) == {}


async def test_turns_are_timed_and_waits_at_the_broker_are_waits(clock: VirtualClock) -> None:
    producer, worker = pair(clock)
    async with processes(clock, producer, worker):
        await clock.run(producer.manager.cluster.pause("a"))
        await clock.run(producer.manager.submit("a", note, 1))
        await clock.advance(4.0)
        await clock.run(producer.manager.cluster.resume("a"))
        await clock.advance(1.0)
        (done,) = worker.told("command.completed")
        assert done.payload["wait_by_cause"]["broker"] == pytest.approx(4.0)
        sums = {
            sample.name: sample.value
            for family in worker.registry.collect()
            for sample in family.samples
            if sample.labels.get("lane", "a") == "a" and not sample.name.endswith("_bucket")
        }
        assert sums["lane_command_queue_wait_seconds_sum"] == pytest.approx(4.0)
        assert sums["lane_broker_turn_seconds_count"] > 0
