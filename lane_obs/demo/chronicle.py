"""Keeps what happened, by chapter, read from the events of the queue."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.demo.chapter import chapter_at
from lane_obs.demo.plan import STOPPED
from lane_obs.events import NO_WAIT, WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lane_obs.demo.plan import Round, Step
    from lane_obs.events import LaneEvent

_FAILURES: Final = 50
_BLOCKS: Final = 20
_EPISODES: Final = 200

ENDINGS: Final[dict[type[LaneEvent], str]] = {
    events.CommandCompleted: "succeeded",
    events.CommandFailed: "failed",
    events.CommandTimedOut: "timed out",
    events.CommandExpired: "expired",
    events.CommandCancelled: "cancelled",
}
"""How commands end, in the words of the summary."""


class LaneTally(msgspec.Struct):
    """What became of the commands of one lane; `Chronicle` keeps one a chapter.

    Attributes:
        submitted: commands that the lane took.
        rejected: those that it refused.
        outcomes: commands that ended, by how.
        retries: attempts that another one follows, by reason.
        dead: dead letters.
        errors: what those that failed for good failed with, by type of command.
        peak_waiting: the most that waited at one time.
        waited: all waiting of those that ended, by cause.
        longest_wait: of one of them, back-offs left out.
    """

    submitted: int = 0
    rejected: int = 0
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    retries: Counter[str] = msgspec.field(default_factory=Counter)
    dead: int = 0
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    peak_waiting: int = 0
    waited: WaitByCause = NO_WAIT
    longest_wait: float = 0.0

    @property
    def ended(self) -> int:
        """How many ended."""
        return sum(self.outcomes.values())

    def add(self, other: LaneTally) -> None:
        """Takes in what another one counted."""
        self.submitted += other.submitted
        self.rejected += other.rejected
        self.outcomes += other.outcomes
        self.retries += other.retries
        self.dead += other.dead
        self.errors += other.errors
        self.peak_waiting = max(self.peak_waiting, other.peak_waiting)
        self.waited += other.waited
        self.longest_wait = max(self.longest_wait, other.longest_wait)


class Failure(msgspec.Struct, frozen=True):
    """An attempt or a command that went wrong. `at` is seconds from the start of the story."""

    at: float
    lane: str
    command_type: str
    attempt: int
    text: str
    final: bool


class Episode(msgspec.Struct):
    """An alert from its firing to its end; `resolved_at` is `None` while it fires."""

    alert: str
    severity: str
    lane: str
    fired_at: float
    resolved_at: float | None = None


class Jump(msgspec.Struct, frozen=True):
    """What a control command met that had to be quick.

    Attributes:
        wait_seconds: how long it waited itself.
        waiting: prompts that waited when it was submitted.
        oldest_seconds: for how long the first of them had.
    """

    wait_seconds: float
    waiting: int
    oldest_seconds: float


class Chronicle:
    """A sink that keeps what the summary and the live view tell.

    Attributes:
        round: the round that is told; `None` before the first.
        chapters: the tallies of this round, by chapter and lane.
        earlier: those of all rounds before, by lane.
        failures: the latest ones.
        episodes: the alerts of this round.
        blocks: what blocked the event loop in this round.
        jump: what the control command of this round met.
        events: how many events it took.
    """

    def __init__(self, lanes: Iterable[str]) -> None:
        self._lanes = tuple(lanes)
        self._start = 0.0
        self._steps: dict[str, Step] = {}
        self._waiting: dict[str, dict[str, float]] = {lane: {} for lane in self._lanes}
        self._met: tuple[int, float] = (0, 0.0)
        self.round: Round | None = None
        self.round_start = 0.0
        self.chapters: dict[str, dict[str, LaneTally]] = {}
        self.earlier = {lane: LaneTally() for lane in self._lanes}
        self.failures: deque[Failure] = deque(maxlen=_FAILURES)
        self.episodes: deque[Episode] = deque(maxlen=_EPISODES)
        self.blocks: deque[events.LoopBlocked] = deque(maxlen=_BLOCKS)
        self.jump: Jump | None = None
        self.events = 0
        self._takers: dict[type[LaneEvent], Callable[[Any], None]] = {
            events.CommandSubmitted: self._submitted,
            events.CommandStarted: self._started,
            events.CommandRetry: self._retried,
            events.CommandRejected: self._rejected,
            events.CommandDeadLettered: self._died,
            events.LoopBlocked: self.blocks.append,
            events.AlertFiring: self._fired,
            events.AlertResolved: self._resolved,
            **dict.fromkeys(ENDINGS, self._ended),
        }
        self.wants: Collection[type[LaneEvent]] = tuple(self._takers)

    def begin(self, told: Round, start: float, round_start: float) -> None:
        """Begins a round; `start` of the story and of the round are readings of the queue's clock."""
        for lanes in self.chapters.values():
            for lane, tally in lanes.items():
                self.earlier[lane].add(tally)
        self._start, self.round_start, self.round = start, round_start, told
        self.chapters = {chapter.name: {lane: LaneTally() for lane in self._lanes} for chapter in told.chapters}
        self.episodes.clear()
        self.blocks.clear()
        self.jump = None

    def expect(self, step: Step) -> None:
        """Learns of a command that is about to be submitted."""
        self._steps[step.id] = step

    def forget(self, step: Step) -> None:
        """Learns that it was refused."""
        self._steps.pop(step.id, None)

    def handle(self, batch: Sequence[LaneEvent]) -> None:
        """Takes what happened."""
        self.events += len(batch)
        for event in batch:
            take = self._takers.get(type(event))
            if take is not None and self.round is not None:
                take(event)

    def close(self) -> None:
        """Keeps what it has."""

    def since_start(self, at: float) -> float:
        """A reading of the queue's clock as seconds from the start of the story."""
        return at - self._start

    def in_round(self, at: float) -> float:
        """A reading of the queue's clock as seconds from the start of the round."""
        return at - self.round_start

    def lanes(self) -> dict[str, LaneTally]:
        """What became of the commands of each lane, all rounds together."""
        whole = {lane: LaneTally() for lane in self._lanes}
        for lanes in (self.earlier, *self.chapters.values()):
            for lane, tally in lanes.items():
                whole[lane].add(tally)
        return whole

    # --- what it takes ------------------------------------------------------------------------------------------

    def _tally(self, event: Any) -> LaneTally:
        """Of the chapter in which the command was submitted."""
        step = self._steps.get(event.command_id)
        name = step.chapter if step is not None and step.chapter in self.chapters else self._chapter(event.at)
        return self.chapters[name][event.lane]

    def _chapter(self, at: float) -> str:
        assert self.round is not None
        return chapter_at(self.round.chapters, max(0.0, self.in_round(at))).name

    def _wait(self, lane: str, command_id: str, at: float) -> None:
        waiting = self._waiting[lane]
        waiting[command_id] = at
        tally = self.chapters[self._chapter(at)][lane]
        tally.peak_waiting = max(tally.peak_waiting, len(waiting))

    def _submitted(self, event: events.CommandSubmitted) -> None:
        self._tally(event).submitted += 1
        self._wait(event.lane, event.command_id, event.at)
        if self._is_jump(event.command_id):
            prompts = self._waiting["prompt"].values()
            self._met = len(prompts), event.at - min(prompts, default=event.at)

    def _is_jump(self, command_id: str) -> bool:
        step = self._steps.get(command_id)
        return step is not None and step.cancels == STOPPED

    def _started(self, event: events.CommandStarted) -> None:
        self._waiting[event.lane].pop(event.command_id, None)
        if self._is_jump(event.command_id):
            self.jump = Jump(event.wait_seconds, *self._met)

    def _retried(self, event: events.CommandRetry) -> None:
        self._tally(event).retries[event.reason] += 1
        self._wait(event.lane, event.command_id, event.at)
        self._fail(event, "timed out" if event.reason == "timeout" else event.error, final=False)

    def _rejected(self, event: events.CommandRejected) -> None:
        self.chapters[self._chapter(event.at)][event.lane].rejected += 1
        self.failures.append(
            Failure(
                self.since_start(event.at), event.lane, event.command_type, 0, f"rejected: {event.reason}", final=True
            )
        )

    def _died(self, event: events.CommandDeadLettered) -> None:
        self._tally(event).dead += 1
        self._steps.pop(event.command_id, None)  # the last event about a command that failed

    def _ended(self, event: events.CommandEnded) -> None:
        ending = ENDINGS[type(event)]
        tally = self._tally(event)
        tally.outcomes[ending] += 1
        tally.waited += event.wait_by_cause
        tally.longest_wait = max(tally.longest_wait, event.wait_seconds - event.wait_by_cause.backoff)
        self._waiting[event.lane].pop(event.command_id, None)
        if isinstance(event, events.CommandCompleted | events.CommandCancelled):
            self._steps.pop(event.command_id, None)
        elif isinstance(event, events.CommandUnsuccessful):
            text = event.error if ending == "failed" else ending
            tally.errors[f"{event.command_type}: {text}"] += 1
            self._fail(event, text, final=True)

    def _fail(self, event: events.CommandRetry | events.CommandUnsuccessful, text: str, *, final: bool) -> None:
        self.failures.append(
            Failure(self.since_start(event.at), event.lane, event.command_type, event.attempt, text, final)
        )

    def _fired(self, event: events.AlertFiring) -> None:
        self.episodes.append(Episode(event.alert, event.severity, event.lane or "", self.in_round(event.at)))

    def _resolved(self, event: events.AlertResolved) -> None:
        mine = (event.alert, event.severity, event.lane or "")
        for episode in reversed(self.episodes):
            if (episode.alert, episode.severity, episode.lane) == mine and episode.resolved_at is None:
                episode.resolved_at = self.in_round(event.at)
                return
