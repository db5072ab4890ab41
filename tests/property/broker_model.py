"""A plain model of a broker's queue, at the level of the port: lists that are searched, and no time.

It knows nothing of how brokers do it. What it does not decide (whose turn it is among equal lanes) it allows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from lane_obs.config import LaneConfig, Partitions, RateLimit

SLOW = 1e-4  # tokens a second: none comes while a walk lasts, and half a token is a lot

LANES = {
    "high": LaneConfig(1, 3, priority=0, max_crashes=2),
    "left": LaneConfig(0, 4, priority=2, max_pending=6, overflow="reject"),
    "right": LaneConfig(0, 4, priority=2, max_pending=4, overflow="drop_oldest", on_crash="dead_letter"),
    "parts": LaneConfig(2, 5, priority=3, partitions=Partitions.per_key(), max_crashes=9),
    "slow": LaneConfig(0, 4, priority=1, rate_limit=RateLimit.per_second(SLOW, burst=6), max_pending=8),
}
MAX = 8
BURST = {"slow": 6.0}
FINAL = ("succeeded", "failed", "timed_out", "cancelled", "expired")


@dataclasses.dataclass(eq=False)
class Plain:
    """One command."""

    id: str
    seq: int
    lane: str
    giver: int
    state: str
    key: str | None
    part: str | None
    cost: float
    attempt: int = 0
    deaths: int = 0
    holder: int | None = None
    token: int = 0
    is_cancelled: bool = False


class Model:
    """All commands of a queue, and what became of those that ended."""

    def __init__(self) -> None:
        self.live: dict[str, Plain] = {}
        self.dead: dict[str, tuple[Plain, str, str]] = {}
        self.results: dict[str, str] = {}
        self.facts: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[str] = Counter()
        self.submitted = self.returned = self.seq = self.token = 0
        self.paused: set[str] = set()
        self.tokens = dict(BURST)

    def of(self, lane: str, *states: str) -> list[Plain]:
        """The commands of a lane in these states, in submit order."""
        found = [one for one in self.live.values() if one.lane == lane and one.state in states]
        return sorted(found, key=lambda one: one.seq)

    # --- in -----------------------------------------------------------------------------------------------------

    def submit(self, id: str, lane: str, giver: int, *, key: str | None, part: str | None, cost: float, later: bool):
        """What is answered, and of which id."""
        known = self.live.get(id)
        if known is not None and known.giver == giver:
            return "accepted", id
        same = next((one for one in self.live.values() if key is not None and one.key == key), None)
        if same is not None:
            return "known", same.id
        if known is not None:
            return "duplicate", id
        if not self._has_room(lane):
            return "full", id
        self._take(id, lane, giver, key, part, cost, "delayed" if later else "ready")
        return "accepted", id

    def _take(self, id: str, lane: str, giver: int, key: str | None, part: str | None, cost: float, state: str) -> None:
        self.seq += 1
        self.submitted += 1
        self.live[id] = Plain(id, self.seq, lane, giver, state, key, part, cost)
        self.results.pop(id, None)

    def _has_room(self, lane: str) -> bool:
        config = LANES[lane]
        while config.max_pending is not None:
            if len(self.of(lane, "ready", "delayed", "backoff")) < config.max_pending:
                return True
            oldest = self.of(lane, "ready")
            if config.overflow != "drop_oldest" or not oldest:
                return False
            self.end_alone(oldest[0], "failed", "dropped")
        return True

    def requeue(self, id: str, giver: int) -> bool:
        """Whether the dead letter is a command again."""
        if id not in self.dead or id in self.live:
            return False
        dead, _, _ = self.dead.pop(id)
        used = any(one.key == dead.key for one in self.live.values())
        self._take(id, dead.lane, giver, None if used else dead.key, dead.part, dead.cost, "ready")
        return True

    # --- through ------------------------------------------------------------------------------------------------

    def head(self, lane: str) -> Plain | None:
        """What goes next in a lane, whatever its limits say."""
        ready = self.of(lane, "ready")
        if LANES[lane].partitions is None:
            return ready[0] if ready else None
        owners = {one.part for one in self.live.values() if one.lane == lane and one.state in {"running", "backoff"}}
        began = {one.part: one for one in ready if one.attempt and one.part not in owners}
        for one in ready:
            if one.part is None or (one.part not in owners and began.get(one.part, one) is one):
                return one
        return None

    def startable(self) -> dict[str, Plain]:
        """What may start now, of the lanes with the best priority."""
        runs = {lane: len(self.of(lane, "running")) for lane in LANES}
        held = sum(max(runs[lane], LANES[lane].min_concurrency) for lane in LANES)
        found: dict[str, Plain] = {}
        for lane, config in LANES.items():
            own = runs[lane] < config.min_concurrency
            slot = sum(runs.values()) < MAX and (own or held < MAX)
            head = self.head(lane)
            if head is None or lane in self.paused or runs[lane] >= config.max_concurrency or not slot:
                continue
            if not head.cost or head.cost <= self.tokens.get(lane, head.cost) + 0.25:
                found[lane] = head
        best = min((LANES[lane].priority for lane in found), default=0)
        return {lane: head for lane, head in found.items() if LANES[lane].priority == best}

    def start(self, id: str, holder: int, token: int) -> Plain:
        """A broker gave this one."""
        head = next((one for one in self.startable().values() if one.id == id), None)
        assert head is not None, f"{id} was claimed, where {[one.id for one in self.startable().values()]} may start"
        assert token > self.token, f"token {token} after {self.token}"
        self.token = head.token = token
        head.state, head.holder = "running", holder
        head.attempt += 1
        if head.lane in self.tokens:
            self.tokens[head.lane] -= head.cost
        return head

    # --- out ----------------------------------------------------------------------------------------------------

    def holds(self, holder: int) -> list[Plain]:
        """What a member runs, in the order of claims."""
        return sorted((one for one in self.live.values() if one.holder == holder), key=lambda one: one.token)

    def end(self, one: Plain, state: str, *, letter: bool, cost: float | None, later: bool = False) -> None:
        """A member has ended an attempt. `later`: it gives the command back for a while."""
        if cost is not None and one.lane in self.tokens:
            self.tokens[one.lane] = min(self.tokens[one.lane] + one.cost - cost, BURST[one.lane])
        if state in FINAL:
            self._forget(one, state, "" if letter else None)
        elif self._let_go(one, "ready" if state == "ready" and not later else "backoff") and state == "ready":
            one.attempt -= 1

    def _let_go(self, one: Plain, state: str) -> bool:
        one.holder = None
        if one.is_cancelled:
            self.end_alone(one, "cancelled", "cancelled")
            return False
        one.state = state
        return True

    def give_back(self, one: Plain) -> None:
        """Its member has left."""
        self._let_go(one, "ready")

    def lose(self, one: Plain) -> None:
        """Its member was lost."""
        one.deaths += 1
        config = LANES[one.lane]
        if one.is_cancelled:
            self.end_alone(one, "cancelled", "cancelled")
        elif config.on_crash == "dead_letter" or one.deaths >= config.max_crashes:
            self.end_alone(one, "failed", "poisoned")
        else:
            self._let_go(one, "backoff")
            self.returned += 1
            self.facts["returned", one.id] += 1

    def cancel(self, id: str) -> str:
        """What is answered."""
        one = self.live.get(id)
        if one is None:
            return "unknown"
        if one.state == "running":
            one.is_cancelled = True
            return "running"
        self.end_alone(one, "cancelled", "cancelled")
        return "cancelled"

    def end_alone(self, one: Plain, state: str, cause: str) -> None:
        """The broker has ended it itself."""
        self.facts[cause, one.id] += 1
        self._forget(one, state, None if state == "cancelled" else cause)

    def _forget(self, one: Plain, state: str, cause: str | None) -> None:
        del self.live[one.id]
        one.holder = None
        self.results[one.id] = state
        self.ended[state] += 1
        if cause is not None:
            self.dead.pop(one.id, None)
            self.dead[one.id] = one, state, cause
