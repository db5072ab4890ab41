"""Commands that a `RedisBroker` is given while it is idle: each once, whatever becomes of the message."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, Partitions
from lane_obs.distributed.record import End, FactKind
from lane_obs.testing.broker.trial import Ear
from tests.integration.servers.proxy import Proxy
from tests.integration.test_redis_broker import OnTrial
from tests.integration.test_redis_broker_faults import LANES, member, names, new, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from lane_obs.distributed.record import Claimed
    from tests.integration.servers.server import Server

LEASE = 1.0


class Slow(OnTrial):
    """A member that what it is told reaches when the test lets it; what was still on its way is lost with the link."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.waiting: list[bytes] = []
        self.is_held = False
        self.subscribed = 0
        self._pass_on = self._inbox._take
        self._inbox._take = self._hold  # type: ignore[method-assign]
        self._listens_anew = self._inbox.holding.listens_anew
        self._inbox.holding.listens_anew = self._lose  # type: ignore[method-assign]

    def _lose(self) -> None:
        self.subscribed += 1
        self.waiting.clear()
        self._listens_anew()

    def _hold(self, payload: bytes) -> None:
        if self.is_held:
            self.waiting.append(payload)
        else:
            self._pass_on(payload)

    def release(self) -> None:
        """Passes on what has come."""
        self.is_held = False
        for payload in self.waiting:
            self._pass_on(payload)
        self.waiting.clear()


@asynccontextmanager
async def idle(
    url: str, want: int = 9, lanes: Mapping[str, LaneConfig] = LANES, **options: Any
) -> AsyncIterator[tuple[Slow, Ear]]:
    """A member that has asked for so many, and got none."""
    ear, broker = Ear(), Slow(url, **options)
    await broker.open(lanes, None, (), letters=10, work=True, listener=ear)
    try:
        assert (await broker.turn((), want)).claimed == []
        await until(lambda: broker.beats)
        ear.work = 0
        yield broker, ear
    finally:
        await broker.close()


def ids(claimed: list[Claimed]) -> list[str]:
    return [claim.id for claim in claimed]


def ends(claimed: list[Claimed]) -> list[End]:
    return [End(claim.id, claim.token, "succeeded", b"r") for claim in claimed]


def before_turn(broker: OnTrial, do: Callable[[], Any]) -> None:
    """Has something done once, after the next turn was packed and before it is sent."""
    send = broker._session.send

    async def hold(program: Any, *args: Any, **options: Any) -> Any:
        if program.script.name == "turn":
            broker._session.send = send  # type: ignore[method-assign]
            await do()
        return await send(program, *args, **options)

    broker._session.send = hold  # type: ignore[method-assign]


async def running(broker: OnTrial) -> int:
    return (await broker.stats()).lanes["a"].running


async def test_an_idle_member_is_given_what_was_submitted(server: Server) -> None:
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        await web.submit(new("c1", "c2"))
        await until(lambda: ear.claimed)
        assert [(c.id, c.lane, c.body, c.attempt, c.deaths) for c in ear.claimed] == [
            ("c1", "a", b"c1", 1, 0), ("c2", "a", b"c2", 1, 0)
        ]  # fmt: skip
        assert [one.running for one in (await web.stats()).members if one.works] == [2]
        found = await web.find("c1")
        assert found is not None
        assert (found.state, found.member) == ("running", worker.member)
        # It is not idle any more: what comes now waits for its turn.
        await web.submit(new("c3"))
        turn = await worker.turn(ends(ear.claimed), 9)
        assert (turn.stale, ids(turn.claimed), ids(ear.claimed)) == ([], ["c3"], ["c1", "c2"])
        await web.submit(new("c4", deadline=60.0, cost=2.0, part="x"))
        await until(lambda: len(ear.claimed) == 3)
        (claim,) = ear.claimed[2:]
        assert claim.deadline is not None
        assert 50 < claim.deadline <= 60
        assert (await worker.turn(ends([*turn.claimed, claim]), 9)).stale == []
        assert await running(web) == 0
        assert b"pushed" not in names(server)


async def test_what_is_not_plain_keeps_what_it_has(server: Server) -> None:
    """A deadline, a key, a part: all are let go of once the command that was pushed has ended."""
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        for fields in ({"key": "k"}, {"part": "p"}, {"cost": 2.0}, {"deadline": 0.2}):  # its time is for a turn
            await web.submit(new("c1", **fields))
            await until(lambda: ear.claimed)
            assert (await worker.turn(ends(ear.claimed), 9)).stale == []
            ear.claimed.clear()
        await asyncio.sleep(0.3)
        assert (await worker.turn((), 9)).claimed == []
        assert not names(server) & {b"deadlines", b"keys", b"parts", b"ready", b"heads", b"bodies"}


async def test_no_more_than_it_asked_for_and_the_rest_to_others(server: Server) -> None:
    async with (
        idle(server.url, want=2) as (first, ear), idle(server.url, want=1) as (second, other),
        member(server.url, work=False) as (web, _),
    ):  # fmt: skip
        await web.submit(new("c1", "c2", "c3", "c4"))
        await until(lambda: ear.claimed and other.work)
        assert ids(ear.claimed) == ["c1", "c2"]
        assert ids((await second.turn((), 1)).claimed) == ["c3"]
        assert ids((await first.turn((), 0)).claimed) == []
        assert ids((await first.turn((), 1)).claimed) == ["c4"]


async def test_a_large_batch_and_large_bodies_are_left_to_turns(server: Server) -> None:
    async with idle(server.url, want=99) as (worker, ear), member(server.url, work=False) as (web, _):
        await web.submit(new(*(f"c{n}" for n in range(9))))
        await until(lambda: ear.work)
        assert ear.claimed == []
        assert len((await worker.turn((), 99)).claimed) == 9
        ear.work = 0
        (big,) = new("big")
        await web.submit([type(big)("big", "a", b"x" * 200_000)])
        await until(lambda: ear.work)
        (claim,) = (await worker.turn((), 0)).claimed
        assert (claim.id, len(claim.body), ear.claimed) == ("big", 200_000, [])
        assert (await worker.turn(ends([claim]), 0)).stale == []


async def test_a_member_that_takes_no_pushes_is_woken(server: Server) -> None:
    async with member(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        worker.pushes = False
        await worker.turn((), 9)
        ear.work = 0
        await web.submit(new("c1"))
        await until(lambda: ear.work)
        assert ear.claimed == []
        assert ids((await worker.turn((), 9)).claimed) == ["c1"]


async def test_a_member_that_nobody_hears_is_passed_over(server: Server) -> None:
    with Proxy(server.port) as proxy:
        async with (
            idle(proxy.url, want=9) as (_, gone), idle(server.url, want=5) as (_, ear),
            member(server.url, work=False) as (web, _),
        ):  # fmt: skip
            proxy.refuse()
            proxy.cut()
            await until(lambda: len(server.ask("PUBSUB", "CHANNELS")) == 2)
            await web.submit(new("c1"))
            await until(lambda: ear.claimed)
            assert (ids(ear.claimed), gone.claimed) == (["c1"], [])
            proxy.accept()


async def test_a_lost_message_is_made_up_for_by_the_next_turn(server: Server) -> None:
    """The network swallows it; then the connection breaks, and whoever listens again asks."""
    with Proxy(server.port) as proxy:
        async with idle(proxy.url) as (worker, ear), member(server.url, work=False) as (web, _):
            proxy.silence()
            await web.submit(new("c1"))
            await asyncio.sleep(0.05)
            assert await running(web) == 1
            proxy.silence(silent=False)
            proxy.cut()
            await until(lambda: ear.work)
            (claim,) = (await worker.turn((), 9)).claimed
            assert (claim.id, claim.attempt, ear.claimed) == ("c1", 1, [])
            assert (await worker.turn(ends([claim]), 9)).stale == []
            stats = await web.stats()
            assert (stats.returned, stats.ended) == (0, {"succeeded": 1})


async def test_a_message_that_was_swallowed_is_noticed_by_a_beat(server: Server) -> None:
    with Proxy(server.port) as proxy:
        async with idle(proxy.url, lease=LEASE) as (worker, ear), member(server.url, work=False) as (web, _):
            proxy.silence()
            await web.submit(new("c1"))
            await asyncio.sleep(0.05)
            proxy.silence(silent=False)
            await until(lambda: ear.work)
            assert ids((await worker.turn((), 9)).claimed) == ["c1"]
            assert ear.claimed == []


async def test_a_message_that_outruns_the_answer_counts_once(server: Server) -> None:
    """The turn was packed before; its answer has the same, and less of other work by as much."""
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):

        async def meanwhile() -> None:
            await web.submit(new("c1", "c2"))
            await web.submit(new("d1", "d2"))
            await until(lambda: ear.claimed)

        before_turn(worker, meanwhile)
        turn = await worker.turn((), 3)
        assert (ids(ear.claimed), ids(turn.claimed)) == (["c1", "c2"], ["d1"])
        turn = await worker.turn(ends([*ear.claimed, *turn.claimed]), 3)
        assert (turn.stale, ids(turn.claimed)) == ([], ["d2"])


async def test_a_message_that_comes_after_the_answer_counts_once(server: Server) -> None:
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        worker.is_held = True

        async def meanwhile() -> None:
            await web.submit(new("c1", "c2"))
            await web.submit(new("d1", "d2"))
            await until(lambda: worker.waiting)

        before_turn(worker, meanwhile)
        turn = await worker.turn((), 3)
        assert (ids(turn.claimed), ear.claimed) == (["c1", "c2", "d1"], [])
        turn = await worker.turn(ends(turn.claimed), 3)
        assert (turn.stale, ids(turn.claimed)) == ([], ["d2"])
        worker.release()
        assert ear.claimed == []
        await web.submit(new("e1"))
        await until(lambda: ids(ear.claimed) == ["e1"])


@pytest.mark.parametrize("again", [False, True], ids=["once", "and-again"])
async def test_a_turn_whose_answer_is_lost_has_the_push_again(server: Server, again: bool) -> None:
    """The link breaks as a whole: its message comes before the member listens anew, or never."""
    with Proxy(server.port) as proxy:
        async with idle(proxy.url) as (worker, ear), member(server.url, work=False) as (web, _):
            worker.is_held = True
            await web.submit(new("c1"))
            await web.submit(new("d1", "d2"))
            await until(lambda: worker.waiting)
            proxy.cut_reply_after(1)
            turn = await worker.turn((), 2)
            assert [(c.id, c.body) for c in turn.claimed] == [("c1", b"c1"), ("d1", b"d1")]
            assert await running(web) == 2
            if again:  # whichever was first before, now it listens after the answer
                before = worker.subscribed
                proxy.cut()
                await until(lambda: worker.subscribed > before)
            worker.release()
            assert ear.claimed == []


async def test_a_turn_that_was_cancelled_has_the_push_again(server: Server) -> None:
    """Also where the message has come meanwhile."""
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        worker.is_held = True
        await web.submit(new("c1"))
        await until(lambda: worker.waiting)
        turn = asyncio.ensure_future(worker.turn((), 9))
        await asyncio.sleep(0)  # it is sent
        turn.cancel()
        await asyncio.wait([turn])
        assert turn.cancelled()
        worker.release()
        assert ids(ear.claimed) == ["c1"]
        assert (await worker.turn((), 9)).claimed == []
        assert (await worker.turn(ends(ear.claimed), 9)).stale == []


async def test_a_broken_link_takes_nothing_back(server: Server) -> None:
    """What was pushed and has come is known; what has not comes with the answer."""
    with Proxy(server.port) as proxy:
        async with idle(proxy.url) as (worker, ear), member(server.url, work=False) as (web, _):
            await web.submit(new("c1"))
            await until(lambda: ear.claimed)
            proxy.cut()
            await until(lambda: worker._inbox.is_unsure and worker.health().ready)
            assert (await worker.turn((), 9)).claimed == []
            worker.is_held = True
            await web.submit(new("c2"))
            await until(lambda: worker.waiting)
            proxy.cut()
            await until(lambda: worker._inbox.is_unsure and worker.health().ready)
            turn = await worker.turn((), 9)
            assert ids(turn.claimed) == ["c2"]
            assert (await worker.turn(ends([*ear.claimed, *turn.claimed]), 0)).stale == []
            assert (await web.stats()).returned == 0


async def test_a_push_whose_end_went_with_a_master_is_given_back(server: Server) -> None:
    """A replica may know of the push, and neither of the turn after it nor of the end."""
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        await web.submit(new("c1"))
        await until(lambda: ear.claimed)
        worker._inbox.holding.lose()  # it has told a master that is gone
        worker._inbox.is_unsure = True
        turn = await worker.turn((), 9)
        assert [(c.id, c.attempt) for c in turn.claimed] == [("c1", 2)]
        assert [(fact.kind, fact.id) for fact in ear.facts] == [(FactKind.RETURNED, "c1")]


async def test_what_a_lost_member_was_given_runs_elsewhere(server: Server) -> None:
    """The message comes when it has joined again: too late."""
    async with idle(server.url, lease=LEASE) as (worker, ear):
        worker.is_held = True
        await until(lambda: worker.beats > 1)
        worker.stop_beat()
        async with member(server.url, lease=LEASE) as (other, _):
            await other.submit(new("c1"))
            await until(lambda: worker.waiting)
            claimed: list[Claimed] = []
            while not claimed:
                await asyncio.sleep(0.05)
                claimed = (await other.turn((), 1)).claimed
            assert [(c.id, c.attempt, c.deaths) for c in claimed] == [("c1", 2, 1)]
            worker.start_beat()
            assert (await worker.turn((), 1)).claimed == []
            worker.release()
            assert (ear.claimed, ear.lost) == ([], [])
            assert (await other.turn(ends(claimed), 0)).stale == []
            assert b"pushed" not in names(server)


async def test_what_comes_when_the_lease_may_be_over_waits_for_a_turn(server: Server) -> None:
    """As to a process that wakes up: nothing is begun that another one may have by now."""
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        worker.stop_beat()
        heartbeat = worker._inbox._heartbeat
        assert heartbeat is not None
        heartbeat.renewed_at -= 30.0
        await web.submit(new("c1"))
        await until(lambda: ear.work)
        assert ear.claimed == []
        assert [(c.id, c.attempt) for c in (await worker.turn((), 9)).claimed] == [("c1", 1)]


async def test_what_was_pushed_can_be_cancelled_at_once(server: Server) -> None:
    async with idle(server.url) as (worker, ear), member(server.url, work=False) as (web, _):
        await web.submit(new("c1"))
        assert await web.cancel("c1") == "running"
        await until(lambda: ear.cancelled)
        assert (ids(ear.claimed), ear.cancelled) == (["c1"], ["c1"])
        assert (await worker.turn([End("c1", ear.claimed[0].token, "cancelled")], 9)).stale == []
        # The same where the cancel is known first.
        ear.claimed.clear()
        worker.is_held = True
        await web.submit(new("c2"))
        await until(lambda: worker.waiting)
        worker._inbox._tell_cancel(["c2"])
        assert ear.cancelled == ["c1"]
        worker.release()
        assert (ids(ear.claimed), ear.cancelled) == (["c2"], ["c1", "c2"])


@pytest.mark.parametrize(("came", "attempt"), [(False, 1), (True, 2)])
async def test_a_member_that_closes_gives_back_what_was_pushed(server: Server, came: bool, attempt: int) -> None:
    """Its attempt counts where it may have begun."""
    async with idle(server.url) as (worker, ear), member(server.url) as (other, _):
        worker.is_held = not came
        await other.submit(new("c1", "c2"))
        await until(lambda: worker.waiting or ear.claimed)
        await worker.close()
        back = [(c.id, c.attempt, c.deaths) for c in (await other.turn((), 9)).claimed]
        assert back == [("c1", attempt, 0), ("c2", attempt, 0)]
        assert b"pushed" not in names(server)


async def test_a_push_that_never_came_frees_its_part(server: Server) -> None:
    """And the rest of what a member held counts, however it is given back."""
    lanes = {**LANES, "p": LaneConfig(0, 9, partitions=Partitions.per_key())}
    async with member(server.url, lanes=lanes, work=False) as (web, _), idle(server.url, lanes=lanes) as (worker, ear):
        await web.submit(new("c1"))
        await until(lambda: ear.claimed)
        assert (await worker.turn((), 9)).claimed == []
        worker.is_held = True
        await web.submit(new("c2", lane="p", part="k"))
        await until(lambda: worker.waiting)
        await worker.close()
        async with member(server.url, lanes=lanes) as (other, _):
            back = {c.id: c.attempt for c in (await other.turn((), 9)).claimed}
            assert back == {"c1": 2, "c2": 1}


async def test_a_push_in_a_lane_that_is_new_comes_with_the_turn(server: Server) -> None:
    async with (
        idle(server.url) as (worker, ear),
        member(server.url, lanes={**LANES, "z": LaneConfig(0, 9)}, work=False) as (web, _),
    ):
        await worker.turn((), 9)
        ear.work = 0
        await web.submit(new("c1", lane="z"))
        await until(lambda: ear.work)
        assert ear.claimed == []
        assert [(c.id, c.lane) for c in (await worker.turn((), 9)).claimed] == [("c1", "z")]
        await web.submit(new("c2", lane="z"))
        await until(lambda: [(c.id, c.lane) for c in ear.claimed] == [("c2", "z")])
