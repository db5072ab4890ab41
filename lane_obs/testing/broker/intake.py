"""What is taken in: receipts, keys, ids, full lanes, bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig
from lane_obs.distributed.record import Answer, FactKind, NewCommand, Receipt
from lane_obs.errors import UnknownLane
from lane_obs.testing.broker.trial import MOMENT, Trial, done, equal, new, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def bytes_come_back(trial: Trial) -> None:
    """Bodies, results and letters are bytes that come back as they were: each value of a byte, none, and many."""
    member, other = await trial.member(), await trial.member()
    every, large = bytes(range(256)), bytes(range(256)) * 3900
    assert len(large) <= member.broker.max_body, f"max_body is {member.broker.max_body}: the checks need 1,000,000"
    bodies = {"every": every, "none": b"", "large": large, "text": "\N{SNOWMAN}\x00{}\r\n$-1\r\n".encode()}
    await member.submit(*(NewCommand(name, "a", body) for name, body in bodies.items()))
    claimed = await other.claim_all(4)
    equal([(one.id, one.body == bodies[one.id]) for one in claimed], [(name, True) for name in bodies], "bodies")
    found = await member.broker.find("large")
    assert found is not None and found.body == large, "find() gives another body"  # noqa: PT018 - one question
    await other.claim(0, *(done(one, "failed", result=one.body, letter=one.body) for one in claimed))
    results = {result.id: result.data for result in await member.broker.watch(list(bodies))}
    equal({name: data == bodies[name] for name, data in results.items()}, dict.fromkeys(bodies, True), "results")
    for letter in await member.broker.letters():
        equal((letter.body == bodies[letter.id], letter.letter == bodies[letter.id]), (True, True), "a letter's bytes")


async def ids_and_lanes_are_text(trial: Trial) -> None:
    """Ids, keys, partitions and names of lanes are any printable text, of up to 200 characters."""
    names = ["x" * 200, "\N{SNOWMAN}" * 200, "with space", "{a}:b*?[c]", "'\"\\;--", "00:\u00e9", "\U0001f600", "%s|n"]
    lanes = {name: LaneConfig(1, 9) for name in names}
    member = await trial.member(lanes)
    for name in names:
        await member.submit(NewCommand(name, name, b"", key=name, part=name))
        equal(
            await member.broker.submit([NewCommand("other", name, b"", key=name)]), [Receipt(Answer.KNOWN, name)], "key"
        )
    claimed = await member.claim_all(len(names))
    equal(sorted((one.id, one.lane) for one in claimed), sorted(zip(names, names, strict=True)), "ids and lanes")
    await member.succeed(*claimed)
    equal(sorted((await member.broker.stats()).lanes), sorted(names), "names of lanes")
    equal({one.state for one in await member.broker.watch(names)}, {"succeeded"}, "states")


async def many_are_taken_in_order(trial: Trial) -> None:
    """A large submit is taken in whole and in order."""
    member = await trial.member({"a": LaneConfig(1, 5000)})
    ids = [f"c{number}" for number in range(1500)]
    await member.put("a", *ids)
    claimed = await member.claim_all(1500, each=400)
    equal([one.id for one in claimed], ids, "claims")
    equal(len({one.token for one in claimed}), 1500, "tokens")


async def keys_are_of_live_commands(trial: Trial) -> None:
    """A live command with the key is known, waiting or running; once it has ended the key is free."""
    lanes = {"a": LaneConfig(1, 9), "b": LaneConfig(1, 9)}
    member, other = await trial.member(lanes), await trial.member(lanes)
    await member.submit(new("c1", key="k"))
    known = [Receipt(Answer.KNOWN, "c1")]
    equal(await other.broker.submit([new("c2", key="k")]), known, "a key of a command that waits")
    equal(await other.broker.submit([new("c2", "b", key="k")]), known, "a key of a command that waits in another lane")
    (first,) = await other.claim(9)
    equal(await member.broker.submit([new("c3", key="k")]), known, "a key of a command that runs")
    await other.claim(0, done(first, "backoff", delay=50.0))
    equal(await member.broker.submit([new("c4", key="k")]), known, "a key of a command that backs off")
    equal(await member.broker.cancel("c1"), "cancelled", "cancel()")
    receipts = await other.broker.submit([new("c5", key="k"), new("c6", key="k"), new("c7", key="l")])
    wanted = [Receipt(Answer.ACCEPTED, "c5"), Receipt(Answer.KNOWN, "c5"), Receipt(Answer.ACCEPTED, "c7")]
    equal(receipts, wanted, "a key that is free again, twice in one submit")
    equal(await other.claim_ids(9), ["c5", "c7"], "claims")


async def ids_are_of_live_commands(trial: Trial) -> None:
    """A live command of another member has the id: a duplicate. One of the same member: the first answer was lost."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1")
    await member.put("a", "c1")
    duplicate = [Receipt(Answer.DUPLICATE, "c1")]
    equal(await other.broker.submit([new("c1")]), duplicate, "an id of a command that waits")
    (first,) = await other.claim(9)
    equal(await other.claim_ids(9), [], "claims of a command that was submitted twice")
    equal(await other.broker.submit([new("c1")]), duplicate, "an id of a command that runs")
    await other.succeed(first)
    await other.put("a", "c1")
    claimed = [*await member.claim_ids(9), *await other.claim_ids(9)]  # either may have been given it
    equal(claimed, ["c1"], "an id that is free again")
    equal((await member.broker.stats()).submitted, 2, "commands taken in")


async def an_unknown_lane_keeps_nothing(trial: Trial) -> None:
    """A submit with a lane that no member has named keeps nothing; a lane that another member has named is fine."""
    member = await trial.member({"a": LaneConfig()})
    other = await trial.member({"b": LaneConfig()}, work=False)
    asked = member.broker.submit([new("c1", "a"), new("c2", "unknown")])
    await refused(asked, UnknownLane, "submit() to a lane that is not there")
    equal(await member.broker.find("c1"), None, "what was submitted with a command of an unknown lane")
    await member.put("b", "c3")
    await other.put("a", "c4")
    equal(sorted(await member.claim_ids(9)), ["c3", "c4"], "claims of lanes that any member has named")


async def a_full_lane_rejects(trial: Trial) -> None:
    """`max_pending` counts what waits: ready, delayed and backing off, not what runs."""
    lanes = {"a": LaneConfig(1, 9, max_pending=3, overflow="reject"), "b": LaneConfig()}
    member = await trial.member(lanes)
    receipts = await member.broker.submit([new("c1"), new("c2", delay=50.0), new("c3"), new("c4"), new("b1", "b")])
    answers = [Answer.ACCEPTED, Answer.ACCEPTED, Answer.ACCEPTED, Answer.FULL, Answer.ACCEPTED]
    equal([receipt.answer for receipt in receipts], answers, "answers of a lane in which 3 may wait")
    claimed = [one for one in await member.claim(3) if one.lane == "a"]
    equal([one.id for one in claimed], ["c1", "c3"], "claims")
    await member.claim(0, done(claimed[0], "backoff", delay=50.0))
    await member.put("a", "c5")
    full = [Receipt(Answer.FULL, "c6")]
    equal(await member.broker.submit([new("c6")]), full, "a lane with one ready, one delayed and one backing off")
    await trial.pass_time(MOMENT)
    equal(member.ear.room, [], "rooms told of a lane that rejects")


async def a_full_lane_tells_of_room(trial: Trial) -> None:
    """Where a full lane lets submitters wait, each member that found it full is told once there is room."""
    lanes = {"a": LaneConfig(1, 9, max_pending=2)}
    members = [await trial.member(lanes) for _ in range(3)]
    await members[0].put("a", "c1", "c2")
    for number, member in enumerate(members[:2]):
        receipts = await member.broker.submit([new(f"d{number}")])
        equal(receipts, [Receipt(Answer.FULL, f"d{number}")], "the answer of a full lane")
    await trial.pass_time(MOMENT)
    equal([member.ear.room for member in members], [[], [], []], "rooms told of a lane that is full")
    await members[2].claim_all(1)
    await trial.until(lambda: all(member.ear.room for member in members[:2]), "members are told of room")
    await members[0].put("a", "d0")
    equal(await members[1].broker.submit([new("d1")]), [Receipt(Answer.FULL, "d1")], "the answer of a full lane")
    told = len(members[1].ear.room)
    await members[1].broker.cancel("c2")
    await trial.until(lambda: len(members[1].ear.room) > told, "a member is told of room after a cancel")
    equal(members[2].ear.room, [], "rooms told to a member that did not ask")


async def a_full_lane_drops_its_oldest(trial: Trial) -> None:
    """It takes the new one, and the oldest ready command is a dead letter; without a ready one it is full."""
    lanes = {"a": LaneConfig(1, 9, max_pending=2, overflow="drop_oldest")}
    member, other = await trial.member(lanes), await trial.member(lanes)
    await member.put("a", "c0", delay=50.0)
    await member.put("a", "c1")
    equal(await other.broker.watch(["c1"]), [], "results of a command that waits")
    await member.put("a", "c2")
    (fact,) = await trial.fact(FactKind.DROPPED, "c1")
    equal((fact.lane, fact.body, fact.attempt), ("a", b"c1", 0), "the fact of a command that was dropped")
    (letter,) = await member.broker.letters()
    found = (letter.id, letter.body, letter.state, letter.cause, letter.letter)
    equal(found, ("c1", b"c1", "failed", "dropped", b""), "the letter of a command that was dropped")
    await trial.until(lambda: other.ear.results, "a member is told of the end of what was dropped")
    equal([(one.id, one.state, one.data) for one in other.ear.results], [("c1", "failed", b"")], "its result")
    equal(await member.claim_ids(9), ["c2"], "claims")
    await member.put("a", "c3", delay=50.0)
    equal(await member.broker.submit([new("c4")]), [Receipt(Answer.FULL, "c4")], "a full lane without ready commands")


async def a_delay_holds(trial: Trial) -> None:
    """A delayed command is claimed once its delay is over, not before; then a member that waits is told."""
    member, other = await trial.member(), await trial.member(work=False)
    before = trial.clock.now()
    await other.put("a", "c1", delay=0.2)
    turn = await member.turn(9)
    equal(turn.claimed, [], "claims of a delayed command")
    assert turn.next_due is not None, "next_due is None while a command is delayed"
    assert 0 <= turn.next_due <= 0.2, f"next_due is {turn.next_due} with a delay of 0.2 s"
    await trial.until(lambda: member.ear.work, "a member that waits is told that a delay is over")
    claimed = await member.claim_one()
    assert trial.clock.now() - before >= 0.199, "a command was claimed before its delay was over"
    assert 0.19 <= claimed.delayed <= claimed.age, f"delayed is {claimed.delayed} with a delay of 0.2 s"
    equal((await member.turn(9)).next_due, None, "next_due when nothing waits")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    bytes_come_back, ids_and_lanes_are_text, many_are_taken_in_order, keys_are_of_live_commands,
    ids_are_of_live_commands, an_unknown_lane_keeps_nothing, a_full_lane_rejects, a_full_lane_tells_of_room,
    a_full_lane_drops_its_oldest, a_delay_holds,
)  # fmt: skip
