"""Runs a real queue under virtual time through a list of operations, and checks it at every step and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import math
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    Command,
    CommandCancelled,
    CommandDropped,
    CommandExpired,
    CommandTimeout,
    DrainReport,
    DrainTimeout,
    DuplicateId,
    InvalidCommand,
    LaneConfig,
    LaneFullError,
    LaneObsError,
    MemorySink,
    QueueManager,
    RetryAfter,
    RetryPolicy,
    ShutdownInProgress,
    State,
    UnknownCommand,
    VirtualClock,
    current,
)
from lane_obs.core.state import FINAL
from lane_obs.testing import sleep
from tests.property.scenario import Broken
from tests.property.walk import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lane_obs import CommandHandle, LaneEvent
    from tests.property.scenario import Scenario, Work

LIVE = (State.READY, State.DELAYED, State.BACKOFF, State.RUNNING)
STUCK_AFTER = 2.0
DEAF = {"swallow", "swallow_and_fail", "stubborn"}
REFUSALS = (LaneFullError, ShutdownInProgress)
whose: ContextVar[int | None] = ContextVar("whose", default=None)


class Worse(BaseException):
    """What commands here fail with when they are nasty."""


@dataclasses.dataclass(eq=False)
class Submission:
    """One submit and what came of it."""

    token: int
    work: Work
    lane: str
    form: str
    options: dict[str, Any]
    timeout: float | None = None
    policy: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    handle: CommandHandle[Any] | None = None
    error: BaseException | None = None
    asked: int = 0
    """Its place among all calls of `submit` and its kin from outside; 0 from within a command."""
    alias: bool = False
    cancelled: bool = False


class BenchCommand(Command[int]):
    command_type = "bench"

    def __init__(self, bench: Bench, token: int, work: Work) -> None:
        self._parts = bench, token, work

    async def execute(self) -> int:
        bench, token, work = self._parts
        return await bench.body(token, work)


@contextlib.asynccontextmanager
async def running(clock: VirtualClock, lanes: dict[str, LaneConfig], **options: Any) -> AsyncIterator[QueueManager]:
    """A started queue, closed at the end in virtual time: where work is left, a test fails and does not hang."""
    manager = QueueManager(lanes, clock=clock, **options)
    await manager.start()
    try:
        yield manager
    finally:
        await clock.run(manager.close())


class Bench:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = VirtualClock()
        self.sink = MemorySink()
        self.manager = QueueManager(
            scenario.lanes,
            max_concurrency=scenario.limit,
            sinks=[self.sink],
            dead_letters=scenario.letters,
            clock=self.clock,
            seed=scenario.seed,
            stuck_after=STUCK_AFTER,
            drain_timeout=6.0,
            close_timeout=scenario.close_timeout,
        )
        self.tokens = 0
        self.parents: dict[int, int | None] = {}
        self.calls = itertools.count(1)
        self.submissions: list[Submission] = []
        self.by_handle: dict[int, Submission] = {}
        self.attempts: dict[int, list[int]] = {}
        self.raised: dict[int, list[BaseException]] = {}
        self.faults: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.submitters: list[tuple[asyncio.Task[None], Submission]] = []
        self.waiters: list[tuple[asyncio.Task[Any], Submission]] = []
        self.refused = 0
        self.closing_at = math.inf
        self.released = asyncio.Event()

    # --- the run ------------------------------------------------------------------------------------------------

    async def run(self) -> list[LaneEvent]:
        for number, (name, arguments) in enumerate(self.scenario.operations):
            if number == self.scenario.start_after and not self.manager.is_shutting_down():
                await self.manager.start()
            await self.do(name, arguments)
            self.check_now()
        await self.end()
        return self.sink.events

    async def do(self, name: str, arguments: dict[str, Any]) -> None:
        result = getattr(self, f"op_{name}")(**arguments)
        if result is not None:
            await result

    # --- what commands do ---------------------------------------------------------------------------------------

    async def body(self, token: int, work: Work) -> int:
        if whose.get() not in {None, self.parents.get(token)}:
            self.faults.append(f"the context of {whose.get()} leaked to {token}")
        whose.set(token)
        handle = current()._handle
        if current().attempt != handle.attempt or handle.state is not State.RUNNING:
            self.faults.append(f"attempt {current().attempt} runs while its handle is {handle}")
        self.attempts.setdefault(id(handle), []).append(handle.attempt)
        try:
            value: int = await getattr(self, f"do_{work.kind}")(token, work, handle)
        except BaseException as error:
            self.raised.setdefault(id(handle), []).append(error)
            raise
        return value

    async def do_ok(self, token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        await sleep(self.clock, work.seconds)
        return token

    async def do_at_once(self, token: int, _work: Work, _handle: CommandHandle[Any]) -> int:
        return token

    async def do_flaky(self, token: int, work: Work, handle: CommandHandle[Any]) -> int:
        await sleep(self.clock, work.seconds)
        if handle.attempt <= work.count:
            raise Broken(f"{token}, attempt {handle.attempt}")
        return token

    async def do_fail_at_once(self, token: int, work: Work, handle: CommandHandle[Any]) -> int:
        if handle.attempt <= work.count:
            raise Broken(f"{token}, attempt {handle.attempt}")
        return token

    async def do_retry_after(self, token: int, work: Work, handle: CommandHandle[Any]) -> int:
        await sleep(self.clock, work.seconds)
        if handle.attempt <= work.count:
            raise RetryAfter(work.count * 0.5)
        return token

    async def do_nasty(self, token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        await sleep(self.clock, work.seconds)
        raise [SystemExit, KeyboardInterrupt, Worse, GeneratorExit][work.count](token)

    async def do_raise_cancelled(self, _token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        await sleep(self.clock, work.seconds)
        raise asyncio.CancelledError

    async def do_cancel_its_task(self, token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await sleep(self.clock, work.seconds)
        return token

    async def do_cancel_its_command(self, token: int, work: Work, handle: CommandHandle[Any]) -> int:
        self.by_handle[id(handle)].cancelled = True
        handle.cancel()
        await sleep(self.clock, work.seconds)
        return token

    async def do_hang(self, _token: int, _work: Work, _handle: CommandHandle[Any]) -> int:
        await self.released.wait()
        return -1

    async def do_swallow(self, token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        for _ in range(work.count):
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()
        await sleep(self.clock, work.seconds)
        return token

    async def do_swallow_and_fail(self, token: int, work: Work, _handle: CommandHandle[Any]) -> int:
        with contextlib.suppress(asyncio.CancelledError):
            await self.released.wait()
        await sleep(self.clock, work.seconds)
        raise Broken(token)

    async def do_stubborn(self, token: int, _work: Work, _handle: CommandHandle[Any]) -> int:
        while not self.released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()
        return token

    async def do_spawn(self, token: int, work: Work, handle: CommandHandle[Any]) -> int:
        """Submits one more command into its own lane, from within."""
        child = dataclasses.replace(work, kind="ok")
        self.op_submit(handle.lane, child, "nowait", "function", {})
        await sleep(self.clock, work.seconds)
        return token

    # --- what is done to the queue ------------------------------------------------------------------------------

    def op_submit(self, lane: str, work: Work, mode: str, form: str, options: dict[str, Any]) -> None:
        self.tokens += 1
        options = dict(options)
        if options.pop("own_id", False):
            options["id"] = f"own-{self.tokens}"
        config = self.manager.lanes[lane]
        timeout = options.get("timeout", config.timeout)
        policy = options.get("retry") or config.retry
        made = Submission(self.tokens, work, lane, form, options, timeout, policy)
        self.submissions.append(made)
        if whose.get() is not None:
            self.parents[made.token] = whose.get()
        if mode == "wait":
            task = asyncio.get_running_loop().create_task(self.submit(made))
            self.submitters.append((task, made))
        else:
            self.submit_nowait(made)

    def op_submit_many(self, lane: str, works: list[Work]) -> None:
        config = self.manager.lanes[lane]
        if config.max_pending is not None:
            return  # half of them may be taken and the other half refused, and nobody is told of the first half
        made = []
        for work in works:
            self.tokens += 1
            made.append(Submission(self.tokens, work, lane, "function", {}, config.timeout, config.retry))
        self.submissions += made
        self.tasks.append(asyncio.get_running_loop().create_task(self.submit_many(lane, made)))

    async def submit_many(self, lane: str, made: list[Submission]) -> None:
        try:
            handles = await self.manager.submit_many(lane, [(self.body, one.token, one.work) for one in made])
        except REFUSALS as error:
            self.refused += self.sink_is_open  # the first; the others were not tried
            for one in made:
                one.error = error
        else:
            for one, handle in zip(made, handles, strict=True):
                self.accept(one, handle)

    def call(self, made: Submission) -> tuple[Any, ...]:
        if made.form == "command":
            return (BenchCommand(self, made.token, made.work),)
        if made.form == "coroutine":
            return (self.body(made.token, made.work),)
        return self.body, made.token, made.work

    async def submit(self, made: Submission) -> None:
        made.asked = next(self.calls)
        try:
            self.accept(made, await self.manager.submit(made.lane, *self.call(made), **made.options))
        except (*REFUSALS, InvalidCommand) as error:
            self.refuse(made, error)

    def submit_nowait(self, made: Submission) -> None:
        made.asked = 0 if whose.get() is not None else next(self.calls)
        key = made.options.get("key")
        same = [one for one in self.by_handle.values() if key and one.options.get("key") == key and self.lives(one)]
        try:
            handle = self.manager.submit_nowait(made.lane, *self.call(made), **made.options)
        except (*REFUSALS, InvalidCommand) as error:
            self.refuse(made, error)
        else:
            assert [one.handle for one in same] == ([handle] if same else [])
            self.accept(made, handle)

    def accept(self, made: Submission, handle: CommandHandle[Any]) -> None:
        made.handle = handle
        known = self.by_handle.setdefault(id(handle), made)
        made.alias = known is not made
        if made.alias:
            assert known.options["key"] == made.options["key"]

    def refuse(self, made: Submission, error: LaneObsError) -> None:
        made.error = error
        if isinstance(error, InvalidCommand):
            assert made.form == "coroutine"
            assert made.policy.max_retries > 0
        elif self.sink_is_open:
            self.refused += 1

    @property
    def sink_is_open(self) -> bool:
        return self.manager.bus.active

    @staticmethod
    def lives(made: Submission) -> bool:
        return made.handle is not None and not made.handle.done()

    def pick(self, index: int, *, live: bool = True) -> Submission | None:
        found = [one for one in self.by_handle.values() if self.lives(one) or not live]
        return found[index % len(found)] if found else None

    def op_cancel(self, index: int, by_id: bool) -> None:
        made = self.pick(index)
        if made is not None:
            assert made.handle is not None
            made.cancelled = True
            assert (self.manager.cancel(made.handle.id) if by_id else made.handle.cancel()) is True
        ended = next((one for one in self.by_handle.values() if not self.lives(one)), None)
        if ended is not None:
            assert ended.handle is not None
            assert ended.handle.cancel() is False

    def op_cancel_submitter(self, index: int) -> None:
        waiting = [task for task, _ in self.submitters if not task.done()]
        if waiting:
            waiting[index % len(waiting)].cancel()

    def op_await(self, index: int) -> None:
        made = self.pick(index, live=False)
        if made is not None:
            assert made.handle is not None
            task = asyncio.ensure_future(self.outcome(made.handle))
            self.waiters.append((task, made))

    @staticmethod
    async def outcome(handle: CommandHandle[Any]) -> Any:
        try:
            return await handle
        except (Exception, Worse, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            return error

    def op_cancel_waiter(self, index: int) -> None:
        waiting = [task for task, _ in self.waiters if not task.done()]
        if waiting:
            waiting[index % len(waiting)].cancel()

    def op_take_the_id_of_another(self, index: int, lane: str) -> None:
        made = self.pick(index)
        if made is None or self.manager.is_shutting_down():
            return
        assert made.handle is not None
        before = self.manager.stats()
        with pytest.raises(DuplicateId):
            self.manager.submit_nowait(lane, self.body, 0, made.work, id=made.handle.id)
        assert self.manager.stats() == before

    def op_pause(self, lane: str) -> None:
        self.manager.pause(lane)

    def op_resume(self, lane: str) -> None:
        self.manager.resume(lane)

    def op_set_lane(self, lane: str, changes: dict[str, Any]) -> None:
        with contextlib.suppress(ValueError):  # more reservations than slots
            self.manager.set_lane(lane, **changes)

    async def op_advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for name, lane in self.manager.stats().lanes.items():
            if lane.waiting_submitters:
                assert lane.max_pending is not None
                assert lane.pending >= lane.max_pending, f"submitters wait for lane {name}, which has room"

    async def op_turn(self) -> None:
        """One turn of the loop, so that operations meet half-done work."""
        await asyncio.sleep(0)

    def op_requeue(self, index: int) -> None:
        letters = self.manager.dead_letters.list()
        if not letters:
            return
        letter = letters[index % len(letters)]
        old = next(one for one in reversed(self.by_handle.values()) if one.handle and one.handle.id == letter.id)
        try:
            handle = self.manager.dead_letters.requeue(letter.id)
        except (*REFUSALS, DuplicateId, UnknownCommand) as error:
            assert letter.id in self.manager.dead_letters
            if isinstance(error, UnknownCommand):
                assert old.form == "coroutine"
            elif isinstance(error, DuplicateId):
                assert old.options.get("key")
            elif self.sink_is_open:
                self.refused += 1
        else:
            assert letter.id not in self.manager.dead_letters
            assert old.handle is not None
            assert (handle.id, handle.seq, handle.lane) == (letter.id, old.handle.seq, letter.lane)
            policy = old.options.get("retry") or self.manager.lanes[old.lane].retry
            new = dataclasses.replace(old, handle=None, cancelled=False, alias=False, policy=policy)
            self.submissions.append(new)
            self.accept(new, handle)

    def op_explain(self) -> None:
        for made in list(self.by_handle.values()):
            if self.lives(made):
                assert made.handle is not None
                self.check_explanation(made.handle)

    def check_explanation(self, handle: CommandHandle[Any]) -> None:
        told = self.manager.explain(handle.id)
        assert (told.id, told.lane, told.state, told.attempt) == (handle.id, handle.lane, handle.state, handle.attempt)
        now = self.clock.now()
        running = now - handle.started_at if handle.state is State.RUNNING else 0.0
        assert told.wait_by_cause.total + handle.run_seconds + running == pytest.approx(now - handle.submitted_at)
        live = [one.handle for one in self.by_handle.values() if self.lives(one) and one.handle]
        if handle.state is State.READY:
            ready = [other for other in live if other.state is State.READY]
            lanes = self.manager.lanes
            if any(lane.boost for lane in lanes.values()):
                return  # their effective priorities are checked at each start
            mine = lanes[handle.lane].priority
            assert told.ahead_in_lane == sum(o.lane == handle.lane and o.seq < handle.seq for o in ready)
            assert told.ahead_in_other_lanes == sum(lanes[o.lane].priority < mine for o in ready)
        else:
            assert told.cause == {"running": None, "delayed": "delay", "backoff": "backoff"}[handle.state]

    async def op_shutdown(self) -> None:
        await self.manager.shutdown()
        assert self.manager.is_shutting_down()

    def op_drain_aside(self, timeout: float | None) -> None:
        if self.started:
            self.tasks.append(asyncio.ensure_future(self.drain(timeout)))

    async def op_drain(self, timeout: float) -> None:
        if self.started:
            await self.clock.run(self.drain(timeout))

    async def drain(self, timeout: float | None) -> None:
        began = self.clock.now()
        try:
            report = await self.manager.drain(timeout)
        except DrainTimeout as error:
            self.check_drain_timeout(error, began, timeout)
        else:
            assert report.total_left == 0
            assert not any(self.now_in(state) for state in LIVE)
            assert report.seconds == pytest.approx(self.clock.now() - began)

    def check_drain_timeout(self, error: DrainTimeout, began: float, timeout: float | None) -> None:
        assert timeout is not None
        assert self.clock.now() == pytest.approx(began + timeout)
        report = error.report
        assert isinstance(report, DrainReport)
        assert report.total_left == sum(self.now_in(state) for state in LIVE) > 0
        for lane, states in report.left.items():
            for state, count in states.items():
                assert count == getattr(self.manager.stats().lanes[lane], state) > 0

    async def op_start_again(self) -> None:
        if self.started and not self.manager.is_shutting_down():
            await self.manager.start()

    async def op_close(self) -> None:
        await self.clock.run(self.close())

    async def close(self) -> None:
        self.closing_at = min(self.closing_at, self.clock.now())
        await self.manager.close()

    @property
    def started(self) -> bool:
        return bool(self.sink.of("queue.started")) or self.manager._dispatcher.is_open

    # --- checks -------------------------------------------------------------------------------------------------

    def now_in(self, state: State) -> int:
        return sum(one.handle is not None and one.handle.state is state for one in self.by_handle.values())

    def check_now(self) -> None:
        assert not self.faults
        stats = self.manager.stats()
        handles = [one.handle for one in self.by_handle.values() if one.handle is not None]
        if not any(not task.done() for task in self.tasks):  # handles of `submit_many` come late
            assert stats.submitted == len(handles)
            for name, lane in stats.lanes.items():
                states = Counter(handle.state for handle in handles if handle.lane == name)
                assert (lane.ready, lane.delayed, lane.backoff, lane.running) == (
                    states[State.READY], states[State.DELAYED], states[State.BACKOFF], states[State.RUNNING],
                )  # fmt: skip
                assert lane.ended == {str(state): states[state] for state in FINAL}
        alive = stats.total_pending + stats.total_active
        ended = Counter[str]()
        for lane in stats.lanes.values():
            ended.update(lane.ended)
        assert alive + ended.total() == stats.submitted
        for handle in handles:
            if not handle.done():
                assert self.manager.get(handle.id) is handle

    # --- the end ------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        await self.clock.run(self.last())
        await self.clock.advance(0)
        left = self.left_behind()
        closed = self.sink.events[-1]
        assert closed.key == "queue.closed"
        assert len(left) <= closed.payload["abandoned"]  # one that was given up may end at last
        if self.scenario.close_timeout:
            deaf = [one for one in self.by_handle.values() if one.work.kind in DEAF]
            assert closed.payload["abandoned"] <= len(deaf), "commands that listen were given no time to end"
        self.released.set()
        await self.clock.advance(10.0)  # those given up end after all, which must change nothing
        assert not self.left_behind()
        assert self.sink.events[-1] is closed
        assert self.clock.pending == 0
        self.check_now()
        self.check_walk()
        for made in self.by_handle.values():
            await self.check_outcome(made)
        for task, made in self.waiters:
            assert task.done()
            if not task.cancelled():
                assert made.handle is not None
                assert task.result() is await self.outcome(made.handle)
        for task in self.tasks:
            task.result()
        for task, made in self.submitters:
            assert task.cancelled() or task.result() is None
            assert task.cancelled() or (made.handle is None) is not (made.error is None)
        assert not self.faults

    async def last(self) -> None:
        for name, arguments in self.scenario.last:
            await self.do(name, arguments)
        await getattr(self, f"end_by_{self.scenario.ending}")()

    def left_behind(self) -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    async def end_by_close(self) -> None:
        await self.close()

    async def end_by_two_closes(self) -> None:
        await asyncio.gather(self.close(), self.close())

    async def end_by_stop(self) -> None:
        if not self.started:
            await self.close()
            return
        with contextlib.suppress(DrainTimeout):
            self.closing_at = min(self.closing_at, self.clock.now())
            await self.manager.stop()
        await self.close()

    async def end_by_drain(self) -> None:
        await self.manager.shutdown()
        if self.started:
            await self.drain(4.0)
        await self.close()

    def check_walk(self) -> None:
        taken = [one for one in self.by_handle.values() if one.handle is not None and one.asked]
        for lane in self.scenario.lanes:
            mine = sorted((one for one in taken if one.lane == lane), key=lambda one: one.asked)
            numbers = [one.handle.seq for one in mine if one.handle]
            assert numbers == sorted(numbers), "one submitter overtook another"
        handles = [one.handle for one in self.by_handle.values() if one.handle is not None]
        seqs = {handle.id: handle.seq for handle in handles}
        keys = {handle.id: (handle.part, handle._options.cost) for handle in handles}
        walk = Walk(self.scenario.lanes, self.scenario.limit, self.scenario.letters, seqs, keys)
        walk.follow(self.sink.events)
        walk.check_sums()
        assert walk.closed
        assert walk.queue.submitted == len(handles)
        assert walk.queue.starts == sum(handle.attempt for handle in handles)
        assert walk.letters == [letter.id for letter in self.manager.dead_letters]
        assert walk.evicted == self.manager.dead_letters.evicted
        assert walk.counts["queue.command.rejected"] == self.refused
        for state in FINAL:
            assert walk.total(state) == self.now_in(state)

    async def check_outcome(self, made: Submission) -> None:
        """The handle gives the value or the error that belongs to its state, and the state is one it may have."""
        handle = made.handle
        assert handle is not None
        assert handle.done()
        outcome = await self.outcome(handle)
        raised = self.raised.get(id(handle), [])
        ran = self.attempts.get(id(handle), [])
        assert ran == sorted(set(ran)), "an attempt ran twice"
        assert len(ran) <= handle.attempt
        if handle.state is State.SUCCEEDED:
            assert outcome == made.token
            assert ran[-1] == handle.attempt
        elif handle.state is State.FAILED:
            assert isinstance(outcome, CommandDropped) or outcome is raised[-1]
        elif handle.state is State.TIMED_OUT:
            assert type(outcome) is CommandTimeout
            assert made.timeout is not None
        elif handle.state is State.EXPIRED:
            assert type(outcome) is CommandExpired
            assert handle.end_to_end_seconds is not None
            assert handle.end_to_end_seconds >= handle.deadline - 1e-6
        else:
            assert type(outcome) is CommandCancelled
        if not isinstance(outcome, CommandDropped):
            self.check_undisturbed(made, ran)

    def check_undisturbed(self, made: Submission, ran: list[int]) -> None:
        """Where nobody interfered the outcome is certain."""
        handle, work = made.handle, made.work
        assert handle is not None
        if made.cancelled or handle.deadline or made.timeout or handle.finished_at >= self.closing_at:
            return
        assert ran == list(range(1, handle.attempt + 1))
        if work.kind in {"ok", "at_once", "spawn"}:
            assert (handle.state, handle.attempt) == (State.SUCCEEDED, 1)
        elif work.kind in {"raise_cancelled", "cancel_its_task"}:
            assert (handle.state, handle.attempt) == (State.CANCELLED, 1)
        elif work.kind in {"flaky", "fail_at_once", "retry_after"}:
            wanted = Broken in made.policy.retry_on or Exception in made.policy.retry_on
            wanted = wanted or BaseException in made.policy.retry_on or work.kind == "retry_after"
            allowed = made.policy.max_retries if wanted and Broken not in made.policy.give_up_on else 0
            if work.kind == "retry_after":
                allowed = made.policy.max_retries
            succeeds = work.count <= allowed
            assert handle.state is (State.SUCCEEDED if succeeds else State.FAILED)
            assert handle.attempt == (work.count + 1 if succeeds else allowed + 1)
