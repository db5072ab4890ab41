"""What goes to scripts and comes back: msgpack for what they read, bytes of their own for what they do not."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.distributed.record import Claimed, Fact, FactKind, Progress, Result, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.distributed.record import End

_COLUMNS: Final = 3
_ODD: Final = 8
_KINDS: Final = {str(kind): kind for kind in FactKind}

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


def pack_turn(
    number: int, times: Mapping[str, int], pushed: int, ends: Sequence[End], want: int, progress: Sequence[Progress]
) -> list[bytes]:
    """What `turn.lua` is asked: its header, then bytes."""
    blobs: list[bytes] = [b"", *[end.result for end in ends]]
    delays: dict[int, int] = {}
    costs: dict[int, float] = {}
    letters: dict[int, int] = {}
    for index, end in enumerate(ends, 1):
        if end.delay:
            delays[index] = round(end.delay * 1_000_000)
        if end.cost is not None:
            costs[index] = end.cost
        if end.letter is not None:
            blobs.append(end.letter)
            letters[index] = len(blobs) + 2
    told: list[Any] = []
    for item in progress:
        blobs.append(item.data)
        told += (item.id, item.token, len(blobs) + 2)
    blobs[0] = encode({
        "turn": number,
        "want": want,
        "pushed": pushed,
        **times,
        "ids": [end.id for end in ends],
        "tokens": [end.token for end in ends],
        "states": [end.state for end in ends],
        "delays": delays,
        "costs": costs,
        "letters": letters,
        "progress": told,
    })  # fmt: skip
    return blobs


def to_turn(answer: Sequence[bytes], lanes: Mapping[int, str]) -> tuple[Turn, int]:
    """The answer of `turn.lua`, and how many of the first claims were pushed before."""
    stale, rows, odd, token, facts, due, pushed = decode(answer[0])
    count = len(rows) // _COLUMNS
    claimed = to_claimed(rows, odd, token, answer[1 : count + 1], lanes) if count else []
    told = to_facts(facts, answer[count + 1 :], lanes) if facts else []
    return Turn(stale, claimed, told, None if due is False else max(float(due), 0.0)), pushed


def join_turns(first: Turn, then: Turn) -> Turn:
    """The answers of two turns, as one."""
    return Turn(first.stale + then.stale, first.claimed + then.claimed, first.facts + then.facts, then.next_due)


def to_claimed(
    rows: Sequence[Any], odd: Sequence[Any], token: int, bodies: Sequence[bytes], lanes: Mapping[int, str]
) -> list[Claimed]:
    """What `hand.lua` hands out.

    Raises:
        KeyError: a lane whose name is not known.
    """
    claimed = list(
        map(
            Claimed,
            rows[::_COLUMNS],
            map(lanes.__getitem__, rows[1::_COLUMNS]),
            bodies,
            range(token + 1, token + 1 + len(bodies)),
            repeat(1),
            repeat(0),
            map(float, rows[2::_COLUMNS]),
            repeat(0.0),
            repeat(0.0),
            repeat(None),
        )
    )
    for start in range(0, len(odd), _ODD):
        index = odd[start] - 1
        claimed[index] = _to_odd(claimed[index], *odd[start + 1 : start + _ODD])
    return claimed


def _to_odd(claimed: Claimed, token: int, attempt: int, deaths: int, *spans: Any) -> Claimed:
    """A command that is not new, or has a deadline."""
    delayed, backed_off, left, ran = spans
    return Claimed(
        claimed.id,
        claimed.lane,
        claimed.body,
        token,
        attempt,
        deaths,
        claimed.age,
        float(delayed),
        float(backed_off),
        None if left is False else float(left),
        float(ran),
    )


def to_facts(rows: Sequence[Any], bodies: Sequence[bytes], lanes: Mapping[int, str]) -> list[Fact]:
    """Facts as all scripts tell them."""
    return [
        Fact(_KINDS[kind], lanes[lane], id_, body, attempt, float(age), member)
        for (kind, lane, id_, attempt, age, member), body in zip(rows, bodies, strict=True)
    ]


def unpack_message(payload: bytes) -> tuple[list[Any], list[bytes]]:
    """What a member is told: the header, and the byte strings whose sizes are its last item."""
    at = 4 + int.from_bytes(payload[:4])
    head = decode(payload[4:at])
    blobs = []
    for size in head[-1] if len(head) > 2 else ():
        blobs.append(payload[at : at + size])
        at += size
    return head, blobs


def to_results(ids: Sequence[str], states: Sequence[str], blobs: Sequence[bytes]) -> list[Result]:
    """Results, column by column."""
    return list(map(Result, ids, states, blobs))
