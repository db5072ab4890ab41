"""What scripts tell of a queue, as the port has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.redis.frame import decode
from lane_obs.distributed.view import BrokerStats, Found, LaneDepth, Letter, Member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STATES: Final = ("ready", "delayed", "backoff", "running")


def to_stats(answer: Sequence[bytes]) -> BrokerStats:
    """The answer of `stats.lua`."""
    lanes, members, limit, submitted, ended, returned, letters, evicted, version = decode(answer[0])
    return BrokerStats(
        lanes={name: _to_depth(*rest) for name, *rest in sorted(lanes)},
        members=[_to_member(*row) for row in members],
        max_concurrency=None if limit < 0 else limit,
        submitted=submitted,
        ended=dict(zip(ended[::2], ended[1::2], strict=True)),
        returned=returned,
        letters=letters,
        evicted=evicted,
        version=version,
    )


def no_stats() -> BrokerStats:
    """Of a queue that is not there."""
    return BrokerStats(
        lanes={}, members=[], max_concurrency=None, submitted=0, ended={}, returned=0, letters=0, evicted=0
    )


def _to_depth(*row: Any) -> LaneDepth:
    ready, delayed, backoff, running, dead, oldest, paused, priority, least, most, pending = row
    return LaneDepth(
        ready=ready,
        delayed=delayed,
        backoff=backoff,
        running=running,
        dead=dead,
        oldest_ready_age=None if oldest is False else float(oldest),
        paused=paused,
        priority=priority,
        min_concurrency=least,
        max_concurrency=most,
        max_pending=None if pending < 0 else pending,
    )


def _to_member(name: str, works: bool, concurrency: int, running: int, lease_left: float) -> Member:  # noqa: FBT001 - a row
    return Member(id=name, works=works, concurrency=concurrency, running=running, lease_left=float(lease_left))


def to_found(name: str, row: Sequence[Any], body: bytes, lanes: Mapping[int, str]) -> Found:
    """The answer of `find.lua`, where there is such a command."""
    lane, state, attempt, age, due, member, ahead = row
    return Found(
        id=name,
        lane=lanes[lane],
        body=body,
        state=_STATES[state],
        attempt=attempt,
        age=float(age),
        due=None if due is False else max(float(due), 0.0),
        member=member,
        ahead=ahead,
    )


def to_letter(name: str, record: bytes, lanes: Mapping[int, str]) -> Letter:
    """A dead letter as `final.lua` keeps it."""
    at = 4 + int.from_bytes(record[:4])
    lane, state, cause, attempt, failed_at, *_ = decode(record[4:at])
    body_at = at + 4
    letter_at = body_at + int.from_bytes(record[at:body_at])
    return Letter(
        id=name,
        lane=lanes[lane],
        body=record[body_at:letter_at],
        state=state,
        letter=record[letter_at:],
        cause=cause,
        attempt=attempt,
        failed_at=failed_at / 1_000_000,
    )
