"""The ledger of a test, put in order: what became of each command and of each of its attempts."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.integration.faults.ledger import Line

_SLACK = 0.01
"""Seconds by which two clocks of one machine may drift apart."""


@dataclasses.dataclass
class Attempt:
    """One attempt that a worker was given.

    Attributes:
        asked, claimed_at: when the worker asked for it, and when it had it: the broker gave it in between.
        started_at, ended_at: its first and last step; `None` where it had none.
        told_at: when the worker was about to tell the broker of its end; `None` for never.
        state: what it told.
        refused: whether that came too late.
    """

    id: str
    lane: str
    who: str
    number: int
    token: int
    asked: float
    claimed_at: float
    age: float
    started_at: float | None = None
    ended_at: float | None = None
    error: str = ""
    told_at: float | None = None
    state: str = ""
    refused: bool = False


@dataclasses.dataclass
class Fault:
    """Something that was done to somebody (`whom`; empty for all)."""

    kind: str
    whom: str
    at: float
    until: float = math.inf


@dataclasses.dataclass
class Life:
    """One command.

    Attributes:
        name: what its producer calls it; another one than its id where its key was in use.
        asked: when it was first submitted.
        acked: when that was acknowledged.
        results: (time, attempt number) of each result that somebody saw.
        attempts: by their tokens.
    """

    id: str
    who: str = ""
    lane: str = ""
    key: str | None = None
    part: str | None = None
    delay: float = 0.0
    asked: float = math.inf
    acked: float = math.inf
    refusals: int = 0
    results: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    attempts: list[Attempt] = dataclasses.field(default_factory=list)


class History:
    """What the lines of a ledger say.

    Attributes:
        lives: the commands by id.
        faults: what the driver did.
        shared: acknowledgements that gave another command, whose key was in use: (asked, acknowledged, key, id).
        returns: what members were told of leases that brought their command back.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lives: dict[str, Life] = {}
        self.faults: list[Fault] = []
        self.shared: list[tuple[float, float, str, str]] = []
        self.returns: list[Line] = []
        self.ended: set[str] = set()
        """Processes that came to their own end."""
        self._by_number: dict[tuple[str, int, str], Attempt] = {}
        self._refused: list[Line] = []
        self._mentions: list[tuple[float, str]] = []
        for line in lines:
            self._mentions += [(line["at"], key) for key in [line.get("id"), *line.get("ids", ())] if key]
            getattr(self, f"_on_{line['what']}", lambda _: None)(line)
        for line in self._refused:
            attempt = self._by_number.get((line["command_id"], line["attempt"], line["who"]))
            if attempt is not None:
                attempt.refused = True
        for life in self.lives.values():
            life.attempts.sort(key=lambda attempt: attempt.token)

    def life(self, key: str) -> Life:
        return self.lives.setdefault(key, Life(key))

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, in the order in which the broker gave them out."""
        found = [attempt for life in self.lives.values() for attempt in life.attempts]
        return sorted(found, key=lambda attempt: attempt.token)

    def forget_around(self, kind: str, before: float, after: float) -> int:
        """Forgets the commands of which something was noted around a fault; returns how many attempts those had."""
        moments = [(fault.at - before, fault.at + after) for fault in self.faults if fault.kind == kind]
        gone = {
            key for at, key in self._mentions if any(begin <= at <= end for begin, end in moments) and key in self.lives
        }
        attempts = sum(len(self.lives.pop(key).attempts) for key in gone)
        self.shared = [each for each in self.shared if each[3] not in gone]
        self.returns = [line for line in self.returns if line["command_id"] not in gone]
        return attempts

    def _on_ask(self, line: Line) -> None:
        life = self.life(line["id"])
        life.asked = min(life.asked, line["at"])
        life.who, life.lane, life.key, life.part = line["who"], line["lane"], line["key"], line["part"]
        life.delay = line["delay"]

    def _on_refused(self, line: Line) -> None:
        self.life(line["id"]).refusals += 1

    def _on_ack(self, line: Line) -> None:
        if line["id"] == line["name"]:
            life = self.life(line["id"])
            life.acked = min(life.acked, line["at"])
        else:
            asked = self.lives.pop(line["name"]).asked
            self.shared.append((asked, line["at"], line["key"], line["id"]))

    def _on_result(self, line: Line) -> None:
        life = self.life(line["id"])
        if line["error"]:
            life.errors.append(line["error"])
        else:
            life.results.append((line["at"], line["value"][0]))

    def _on_claim(self, line: Line) -> None:
        life = self.life(line["id"])
        # A message tells its age as it was when it was claimed, a closer bound. An answer may repeat an older claim.
        given = life.asked + line["age"] - _SLACK if line["pushed"] and life.asked < math.inf else 0.0
        asked = min(max(line["asked"], given), line["at"])
        attempt = Attempt(
            line["id"], line["lane"], line["who"], line["attempt"], line["token"], asked, line["at"], line["age"]
        )
        life.attempts.append(attempt)
        self._by_number[line["id"], line["attempt"], line["who"]] = attempt

    def _on_start(self, line: Line) -> None:
        attempt = self._by_number[line["id"], line["attempt"], line["who"]]
        assert attempt.started_at is None, f"one attempt started twice: {line}"
        attempt.started_at = line["at"]

    def _on_end(self, line: Line) -> None:
        attempt = self._by_number[line["id"], line["attempt"], line["who"]]
        attempt.ended_at, attempt.error = line["at"], line["error"]

    def _on_told(self, line: Line) -> None:
        for key, state in zip(line["ids"], line["states"], strict=True):
            mine = [attempt for attempt in self.life(key).attempts if attempt.who == line["who"]]
            if mine and mine[-1].told_at is None:
                mine[-1].told_at, mine[-1].state = line["at"], state

    def _on_stale(self, line: Line) -> None:
        self._refused.append(line)

    def _on_returned(self, line: Line) -> None:
        self.returns.append(line)

    def _on_done(self, line: Line) -> None:
        self.ended.add(line["who"])

    def _on_fault(self, line: Line) -> None:
        self.faults.append(Fault(line["kind"], line["whom"], line["at"]))

    def _on_mend(self, line: Line) -> None:
        for fault in reversed(self.faults):
            if fault.kind == line["kind"] and fault.whom == line["whom"]:
                fault.until = line["at"]
                return
        raise AssertionError(f"mended, never done: {line}")
