"""What must hold of every history, whatever was done to the processes and their server.

All checks are on the safe side: they take an attempt to have begun when its worker had it, and to be over when its
worker was about to tell of its end, both of which lie within the time for which the broker counts it as running.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tests.integration.faults.rules import MOST, RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from tests.integration.faults.history import Attempt, Fault, History, Life

SHOWN = 4
GRACE = 2.0
"""A lease that could not be renewed for nearly its length may be lost soon after that is mended."""


class Lost(NamedTuple):
    """What the ledger says of leases that were lost."""

    sure: int
    """So many brought their command back for certain."""
    unsure: int
    """So many more may have: the worker was killed while it told of the end."""


def check(history: History, returned: int, *, may_lose: Collection[str] = (), spared: int = 0) -> Lost:
    """Checks everything.

    Args:
        history: what the ledger says.
        returned: how many leases that brought their command back the broker has counted.
        may_lose: kinds of faults that may cost leases.
        spared: how many attempts of other commands there were, of which nothing is asked.
    """
    _all_ran(history)
    _ends_agree(history)
    faults = [fault for fault in history.faults if fault.kind in may_lose]
    lost = _losses(history, faults, returned, spared)
    _concurrency(history, faults)
    _rates(history)
    _order(history)
    _parts(history)
    _keys(history)
    _delays(history)
    return lost


def _some(found: Iterable[object]) -> str:
    found = list(found)
    return f"{len(found)}: " + "\n".join(map(str, found[:SHOWN]))


def _all_ran(history: History) -> None:
    """What was acknowledged ran, and came to its end."""
    acked = [life for life in history.lives.values() if life.acked < math.inf]
    assert acked
    never = [life for life in acked if not any(attempt.started_at for attempt in life.attempts)]
    assert not never, f"acknowledged and never run: {_some(never)}"
    unended = [life for life in acked if life.attempts[-1].ended_at is None or life.attempts[-1].error]
    assert not unended, f"acknowledged and never ended well: {_some(unended)}"
    waiting = [life for life in acked if life.who in history.ended and not life.results]
    assert not waiting, f"whoever waited got nothing: {_some(waiting)}"
    wrong = [life for life in history.lives.values() if life.errors]
    assert not wrong, f"ended with errors: {_some(wrong)}"


def _ends_agree(history: History) -> None:
    """The one end that counts is that of the last attempt; nothing runs after it."""
    for life in history.lives.values():
        last = life.attempts[-1].number if life.attempts else 0
        numbers = [attempt.number for attempt in life.attempts]
        assert numbers == sorted(set(numbers)), f"attempts out of order: {life}"
        for at, number in life.results:
            assert number == last, f"the result is that of attempt {number}: {life}"
            after = [attempt for attempt in life.attempts if attempt.asked > at]
            assert not after, f"it ran after its result: {life}"


def is_retried(attempt: Attempt) -> bool:
    """Whether it ended in a retry that the broker took, as far as its worker knows."""
    return attempt.state == "backoff" and not attempt.refused


def _losses(history: History, faults: Sequence[Fault], returned: int, spared: int) -> Lost:
    """Each attempt after the first follows a retry, or a lease that a fault has cost; the broker counts the latter."""
    killed = {fault.whom: fault.at for fault in history.faults if fault.kind == "kill"}
    sure, unsure = 0, spared
    for life in history.lives.values():
        before = 0
        for attempt, successor in zip([None, *life.attempts], life.attempts, strict=False):
            sure += successor.number - before - 1  # a worker was given it, and wrote nothing down
            before = successor.number
            if attempt is None:
                continue
            if is_retried(attempt):
                unsure += killed.get(attempt.who, math.inf) - (attempt.told_at or 0.0) < 5.0
                continue
            causes = _causes(attempt, successor.claimed_at, faults)
            assert causes, f"its lease was lost for no reason: {life}"
            # A retry whose answer got lost, and its lease with it, is refused when it is told again.
            retried = attempt.state == "backoff" and any(_may_hide(cause, attempt) for cause in causes)
            sure, unsure = sure + (not retried), unsure + retried
    assert sure <= returned <= sure + unsure, f"{sure} to {sure + unsure} leases were lost, the broker says {returned}"
    assert len(history.returns) <= returned
    twice = [
        key for key, count in Counter((r["command_id"], r["attempt"]) for r in history.returns).items() if count > 1
    ]
    assert not twice, f"told twice of one lost lease: {_some(twice)}"
    return Lost(sure, unsure)


def _may_hide(fault: Fault, attempt: Attempt) -> bool:
    """Whether a fault may have kept from a worker that the end it told was taken: the network's, or its own sleep.

    Whoever wakes up finds that the answer is overdue before it finds the answer, and breaks the connection.
    """
    return not fault.whom or (fault.kind == "freeze" and (attempt.told_at or math.inf) < fault.until)


def _causes(attempt: Attempt, until: float, faults: Iterable[Fault]) -> list[Fault]:
    """The faults that may have cost an attempt its lease before a time."""
    return [
        fault
        for fault in faults
        if fault.whom in {"", attempt.who} and fault.at < until and fault.until + GRACE > attempt.asked
    ]


def spans(history: History, faults: Sequence[Fault]) -> list[tuple[float, float, Attempt]]:
    """From when to when the broker counts attempts as running for sure; of a lost lease only until what cost it."""
    found = []
    for life in history.lives.values():
        for attempt, successor in itertools.zip_longest(life.attempts, life.attempts[1:]):
            until = math.inf if attempt.told_at is None else attempt.told_at
            if successor is not None and not is_retried(attempt):
                causes = _causes(attempt, successor.claimed_at, faults)
                until = min(until, *(cause.at for cause in causes)) if causes else until
            if until > attempt.claimed_at:
                found.append((attempt.claimed_at, until, attempt))
    return found


def _concurrency(history: History, faults: Sequence[Fault]) -> None:
    """Lanes and the whole queue never run more than they may."""
    edges = []
    for begin, end, attempt in spans(history, faults):
        edges.append((begin, 1, attempt.lane))
        edges.append((end, -1, attempt.lane))
    running: Counter[str] = Counter()
    for at, change, lane in sorted(edges):
        running[lane] += change
        running[""] += change
        assert running[lane] <= RULES[lane].most, f"{running[lane]} of lane {lane!r} ran at once at {at}"
        assert running[""] <= MOST, f"{running['']} ran at once at {at}: {running}"


def _rates(history: History) -> None:
    """No window sees more starts than its rate limit allows."""
    by_lane: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        if RULES[attempt.lane].rate is not None:
            by_lane[attempt.lane].append(attempt)
    for lane, attempts in by_lane.items():
        amount, seconds, burst = RULES[lane].rate or (0.0, 0.0, None)
        most = amount if burst is None else burst
        for number, first in enumerate(attempts):
            for count, last in enumerate(attempts[number:], start=1):
                span = last.claimed_at - first.asked
                if burst is None and span >= seconds:
                    break
                allowed = most if burst is None else most + amount * max(span, 0.0) / seconds
                assert count <= allowed + 1e-6, (
                    f"{count} starts of lane {lane!r} within {span:.4f} s: {first} to {last}"
                )


def _follows(lives: Iterable[Life], first: dict[str, int], last: dict[str, int], what: str) -> None:
    """Whoever was acknowledged before another one was submitted has its tokens before that one's."""
    lives = list(lives)
    acked = sorted((life for life in lives if life.acked < math.inf), key=lambda life: life.acked)
    at, highest = 0, 0
    before: Life | None = None
    for life in sorted(lives, key=lambda life: life.asked):
        while at < len(acked) and acked[at].acked < life.asked:
            if last[acked[at].id] > highest:
                highest, before = last[acked[at].id], acked[at]
            at += 1
        assert highest < first[life.id], f"{what}: {life} started before {before}"


def _order(history: History) -> None:
    """In a lane, first come, first served."""
    for lane, rule in RULES.items():
        if rule.delayed or rule.parted:
            continue
        tokens = {
            life.id: life.attempts[0].token
            for life in history.lives.values()
            if life.lane == lane and life.attempts and life.attempts[0].number == 1
        }
        _follows([history.lives[key] for key in tokens], tokens, tokens, f"lane {lane!r}")


def _parts(history: History) -> None:
    """Commands of a partition run one at a time, from the first attempt to the end of the last, and in their order."""
    by_part: dict[str, list[Life]] = defaultdict(list)
    for life in history.lives.values():
        if life.part is not None and life.attempts:
            by_part[life.part].append(life)
    for part, lives in by_part.items():
        lives.sort(key=lambda life: life.attempts[0].token)
        for one, other in itertools.pairwise(lives):
            told_at = one.attempts[-1].told_at
            assert told_at is not None, one
            assert other.attempts[0].claimed_at >= told_at, f"two at once of {part}: {one} and {other}"
        first = {life.id: life.attempts[0].token for life in lives}
        last = {life.id: life.attempts[-1].token for life in lives}
        _follows(lives, first, last, part)


def _keys(history: History) -> None:
    """Of one key, one command lives at a time; whoever gives it again gets that one."""
    by_key: dict[str, list[Life]] = defaultdict(list)
    for life in history.lives.values():
        if life.key is not None and life.attempts and life.acked < math.inf:
            by_key[life.key].append(life)
    for key, lives in by_key.items():
        lives.sort(key=lambda life: life.attempts[0].token)
        for one, other in itertools.pairwise(lives):
            lived_until = one.attempts[-1].claimed_at
            assert not (one.acked < other.asked and other.acked < lived_until), f"{key}: {one} and {other}"
    for asked, _, key, given in history.shared:
        life = history.lives[given]
        assert life.key == key, f"key {key} gave {life}"
        gone = [at for at, _ in life.results if at < asked and life.who in history.ended]
        assert not gone, f"a command that had ended was given for {key}: {life}"


def _delays(history: History) -> None:
    """Nothing starts before its delay is over."""
    for life in history.lives.values():
        for attempt in life.attempts[:1]:
            assert attempt.claimed_at >= life.asked + life.delay, f"too early: {life}"
