"""The lives of the commands of a queue in memory, by the rules of `core.engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import OnCrash, OnExpiry
from lane_obs.core import timer
from lane_obs.core.engine import Engine
from lane_obs.core.gate import INSTANT
from lane_obs.core.state import State
from lane_obs.core.timer import Timers
from lane_obs.distributed.memory.kept import Kept
from lane_obs.distributed.memory.letters import Buried, Letters
from lane_obs.distributed.memory.results import Results
from lane_obs.distributed.record import Claimed, End, Fact, FactKind, NewCommand, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.core.lane import Lane
    from lane_obs.distributed.memory.ledger import Ledger
    from lane_obs.distributed.memory.seat import Seat
    from lane_obs.storage import StoredCommand

_READY, _RUNNING = State.READY, State.RUNNING
_NOT_FINAL: Final = (_READY, State.BACKOFF)
_FIRST_RETURN: Final = 0.05
"""Seconds before a command whose member died may start again; twice as many after each further death: one that kills
its members must not take them one after the other in no time."""
_LAST_RETURN: Final = 10.0


class Life:
    """All commands of one queue, from submit to end.

    Args:
        clock: all its time.
        result_ttl: for how many seconds results are kept.
        ledger: is told of what is to be stored.

    Attributes:
        live: commands that have not ended, by id.
        facts: what was done on the queue's own account, and nobody was told of yet.
        has_changed: whether something may start now that could not before.
    """

    def __init__(self, clock: Clock, result_ttl: float, ledger: Ledger) -> None:
        self._clock = clock
        self.ledger = ledger
        self.engine = Engine({}, None, clock.now())
        self.live: dict[str, Kept] = {}
        self._keys: dict[str, Kept] = {}
        self._seq = self._token = 0
        self.deadlines = Timers()
        self.results = Results(result_ttl)
        self.letters = Letters()
        self.facts: list[Fact] = []
        self.has_changed = False
        self.returned = 0

    # --- in -----------------------------------------------------------------------------------------------------

    def same_key(self, key: str | None) -> Kept | None:
        """The live command with this idempotency key; `None` for none."""
        return None if key is None else self._keys.get(key)

    def take_in(self, new: NewCommand, home: Lane, giver: str, now: float) -> None:
        """Takes in a new command."""
        self._seq += 1
        record = Kept.made(new, self._seq, home, now, giver)
        self._admit(record, now, new.delay)
        self.ledger.save(record)

    def _admit(self, record: Kept, now: float, delay: float) -> None:
        self.live[record.id] = record
        if record.key is not None:
            self._keys[record.key] = record
        self.engine.submit(record, now, delayed=delay > 0)
        if delay > 0:
            record.timer = self.engine.timers.set(now + delay, timer.DUE, record)
        if record.expires_after is not None and record.home.config.on_expiry is OnExpiry.EXPIRE:
            record.expires = True
            record.deadline_timer = self.deadlines.set(
                record.submitted_at + record.expires_after, timer.DEADLINE, record
            )
        self.has_changed = True

    def requeue(self, letter_id: str, giver: str, now: float) -> bool:
        """Makes a dead letter a command again; not if a live one has its id, or its lane is gone."""
        dead = self.letters.get(letter_id)
        home = None if dead is None else self.engine.lanes.get(dead.letter.lane)
        if dead is None or home is None or letter_id in self.live:
            return False
        self.remove_letters([letter_id])
        key = None if dead.key in self._keys else dead.key
        again = NewCommand(letter_id, home.name, dead.letter.body, cost=dead.cost, key=key, part=dead.part)
        self.take_in(again, home, giver, now)
        return True

    def bring_back(self, stored: StoredCommand, now: float) -> None:
        """Takes in a command of an earlier process, whose lane is there; one that ran then has lost its lease."""
        home = self.engine.lanes[stored.lane]
        submitted = self.ledger.since(stored.submitted_at)
        left = None if stored.deadline is None else stored.deadline - stored.submitted_at
        new = NewCommand(
            stored.id, stored.lane, stored.payload, deadline=left, cost=stored.options.get("cost", 1.0),
            key=stored.key, part=stored.options.get("part"),
        )  # fmt: skip
        record = Kept.made(new, stored.seq, home, submitted, "")
        record.attempt, record.deaths = stored.attempt, stored.deaths
        self._seq = max(self._seq, stored.seq)
        if stored.state != _RUNNING:
            due = 0.0 if stored.not_before is None else self.ledger.since(stored.not_before)
            self._admit(record, now, max(due - now, 0.0))
            return
        record.deaths += 1
        if self._is_deadly(record):
            self._admit(record, now, 0.0)
            self._end_alone(record, State.FAILED, FactKind.POISONED, now)
        else:
            self._admit(record, now, _after(record.deaths))
            self._note_return(record, now, "")

    # --- through ------------------------------------------------------------------------------------------------

    def pass_time(self, now: float) -> None:
        """Does what is due: ends delays and back-offs, and the lives whose deadlines have passed."""
        engine = self.engine
        for kind, about in engine.timers.pop_due(now + INSTANT):
            self.has_changed = True
            if kind in timer.OF_ENGINE:
                engine.order.on_timer(kind, about, now)
            else:
                about.timer = None
                if about.is_aside:
                    about.is_aside = False
                    about.aside += now - about.since
                engine.make_ready(about, now)
        for _, record in self.deadlines.pop_due(now + INSTANT):
            record.deadline_timer = None
            if record.state is not _RUNNING:  # else whoever runs it knows
                self._end_alone(record, State.EXPIRED, FactKind.EXPIRED, now)
        self.results.expire(now)

    def claim(self, seat: Seat, want: int, now: float) -> list[Claimed]:
        """Starts up to `want` commands for a member."""
        claimed: list[Claimed] = []
        while len(claimed) < want and (record := self.engine.start_next(now)) is not None:
            assert isinstance(record, Kept)
            self._token += 1
            record.token = self._token
            record.holder = seat
            seat.held[record.id] = record
            claimed.append(record.claimed(now))
            self.ledger.update(record)
        return claimed

    def held(self, seat: Seat, command_id: str, token: int) -> Kept | None:
        """The command that a member holds by this token; `None` when it holds it no more."""
        record = seat.held.get(command_id)
        return record if record is not None and record.token == token else None

    # --- out ----------------------------------------------------------------------------------------------------

    def end(self, record: Kept, end: End, now: float) -> None:
        """Ends an attempt as whoever ran it says."""
        if end.cost is not None:
            self.engine.gates.settle(record.home, record.cost, end.cost, record.started_at, now)
        if end.state in _NOT_FINAL:
            self._take_back(record, end, now)
        else:
            self._finish(record, State(end.state), now)
            self._forget(record, now, end.result, end.letter)

    def _let_go(self, record: Kept, now: float) -> bool:
        """Takes a command from whoever runs it; ends it if it is to run no more, and tells whether it is not."""
        if record.is_cancelled:
            self._end_alone(record, State.CANCELLED, FactKind.CANCELLED, now)
            return False
        left = record.left(now)
        if record.expires and left is not None and left <= INSTANT:
            self._end_alone(record, State.EXPIRED, FactKind.EXPIRED, now)
            return False
        self.engine.back_off(record, now)
        self._release(record)
        return True

    def _take_back(self, record: Kept, end: End, now: float) -> None:
        """Has a command back off, or makes it what it was before its attempt, at once or after a while."""
        if self._let_go(record, now):
            record.is_aside = end.state == _READY
            record.attempt -= record.is_aside
            record.timer = self.engine.timers.set(now + end.delay, timer.DUE, record)
            self.ledger.update(record)

    def give_back(self, record: Kept, now: float) -> None:
        """Makes a running command ready again, that attempt counted."""
        if self._let_go(record, now):
            self.engine.make_ready(record, now)
            self.ledger.update(record)

    def lose(self, record: Kept, now: float) -> None:
        """The lease on a running command is lost."""
        member = record.holder.id
        record.deaths += 1
        if record.is_cancelled:
            self._end_alone(record, State.CANCELLED, FactKind.CANCELLED, now)
        elif self._is_deadly(record):
            self._end_alone(record, State.FAILED, FactKind.POISONED, now, member)
        elif self._let_go(record, now):
            record.timer = self.engine.timers.set(now + _after(record.deaths), timer.DUE, record)
            self._note_return(record, now, member)

    @staticmethod
    def _is_deadly(record: Kept) -> bool:
        """Whether a command has seen one death too many."""
        config = record.home.config
        return config.on_crash is OnCrash.DEAD_LETTER or record.deaths >= config.max_crashes

    def _note_return(self, record: Kept, now: float, member: str) -> None:
        self.returned += 1
        self._tell(FactKind.RETURNED, record, now, member)
        self.ledger.update(record)

    def cancel(self, record: Kept, now: float) -> bool:
        """Cancels a command; tells whether it has ended. One that runs is left to whoever runs it."""
        if record.state is _RUNNING:
            record.is_cancelled = True
            record.holder.tell_cancelled(record.id)
            return False
        self._end_alone(record, State.CANCELLED, FactKind.CANCELLED, now)
        return True

    def drop(self, record: Kept, now: float) -> None:
        """Ends a ready command that makes room."""
        self._end_alone(record, State.FAILED, FactKind.DROPPED, now)

    def _end_alone(self, record: Kept, state: State, kind: FactKind, now: float, member: str = "") -> None:
        """Ends a command on the queue's own account."""
        self.engine.timers.forget(record)
        self._finish(record, state, now)
        self._tell(kind, record, now, member)
        letter = None if state is State.CANCELLED else b""
        self._forget(record, now, b"", letter, "" if letter is None else str(kind))

    def _finish(self, record: Kept, state: State, now: float) -> None:
        if state is State.SUCCEEDED and record.state is _RUNNING:
            self.engine.succeed(record, now)
        else:
            self.engine.finish(record, state, now)
        self._release(record)

    def _release(self, record: Kept) -> None:
        if record.holder is not None:
            del record.holder.held[record.id]
            record.holder = None
        self.has_changed = True

    def _forget(self, record: Kept, now: float, data: bytes, letter: bytes | None, cause: str = "") -> None:
        """Lets go of a command that has ended, and keeps what it came to."""
        del self.live[record.id]
        if record.key is not None:
            del self._keys[record.key]
        if record.deadline_timer is not None:
            self.deadlines.cancel(record.deadline_timer)
            record.deadline_timer = None
        self.results.put(Result(record.id, str(record.state), data), now)
        self.ledger.forget(record.id)
        if letter is not None:
            buried = Buried.of(record, letter, cause, self._clock.wall())
            self.letters.add(buried)
            self.ledger.bury(buried)
            self.evict(now)

    def remove_letters(self, ids: Sequence[str] | None) -> int:
        """Forgets dead letters; see `Broker.remove_letters`."""
        gone = self.letters.remove(ids)
        self.ledger.dig_up(gone)
        return len(gone)

    def evict(self, now: float) -> None:
        """Lets go of dead letters above the limit."""
        for buried in self.letters.evict():
            letter = buried.letter
            self.ledger.dig_up([letter.id])
            age = now - buried.submitted_at
            self.facts.append(Fact(FactKind.EVICTED, letter.lane, letter.id, letter.body, letter.attempt, age))

    def _tell(self, kind: FactKind, record: Kept, now: float, member: str = "") -> None:
        age = now - record.submitted_at
        self.facts.append(Fact(kind, record.home.name, record.id, record.body, record.attempt, age, member))


def _after(deaths: int) -> float:
    """Seconds before a command whose member died may start again."""
    return min(_FIRST_RETURN * 2.0 ** min(deaths - 1, 20), _LAST_RETURN)
