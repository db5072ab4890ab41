"""Explains what happened, chapter by chapter, in figures of what did happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.demo.chronicle import Episode, LaneTally
from lane_obs.events import CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lane_obs.demo.chapter import Chapter, StoryAlert
    from lane_obs.demo.chronicle import Chronicle
    from lane_obs.demo.play import Demo

_ENDINGS: Final = ("succeeded", "failed", "timed out", "expired", "cancelled")


class Tale(msgspec.Struct, frozen=True):
    """What happened in one chapter.

    Attributes:
        chapter: which.
        lines: sentences.
        alerts: those of the chapter that fired.
        missing: those that were meant to and did not.
    """

    chapter: Chapter
    lines: tuple[str, ...]
    alerts: tuple[Episode, ...]
    missing: tuple[StoryAlert, ...]


class Summary(msgspec.Struct, frozen=True):
    """What happened in the last round of a story, and what all its commands came to.

    Attributes:
        rounds: how many were told, the last one included.
        tales: the chapters that were told.
        untold: titles of those for which there was no time.
        others: alerts that fired and are no part of the story.
        lanes: all commands of all rounds, by lane.
        seed: what the story was drawn from.
        events: how many there were.
        sinks: how many took them.
        lost: how many those lost.
    """

    rounds: int
    tales: tuple[Tale, ...]
    untold: tuple[str, ...]
    others: tuple[Episode, ...]
    lanes: Mapping[str, LaneTally]
    seed: int
    events: int
    sinks: int
    lost: int

    @property
    def fired(self) -> tuple[Episode, ...]:
        """The alerts of the story that fired."""
        return tuple(alert for tale in self.tales for alert in tale.alerts)

    @property
    def missing(self) -> tuple[StoryAlert, ...]:
        """Those that were meant to and did not."""
        return tuple(alert for tale in self.tales for alert in tale.missing)

    @property
    def open(self) -> tuple[Episode, ...]:
        """Alerts that fire still."""
        return tuple(alert for alert in (*self.fired, *self.others) if alert.resolved_at is None)


def summarize(demo: Demo) -> Summary:
    """Explains what happened so far; what a stopped story did not come to is left out."""
    chronicle, told, stats = demo.chronicle, demo.chronicle.round, demo.sink_stats()
    left = list(chronicle.episodes)
    tales: list[Tale] = []
    untold: list[str] = []
    for chapter in () if told is None else told.chapters:
        if chapter.at <= demo.elapsed_seconds - chronicle.since_start(chronicle.round_start):
            tales.append(_tell(chronicle, chapter, left, stopped=demo.stopped))
        else:
            untold.append(chapter.title)
    return Summary(
        rounds=0 if told is None else told.number,
        tales=tuple(tales),
        untold=tuple(untold),
        others=tuple(left),
        lanes=chronicle.lanes(),
        seed=demo.seed,
        events=chronicle.events,
        sinks=len(stats),
        lost=sum(sum(sink.dropped.values()) for sink in stats),
    )


def _tell(chronicle: Chronicle, chapter: Chapter, left: list[Episode], *, stopped: bool) -> Tale:
    """Tells one chapter, and takes its alerts out of those that are left."""
    wanted = {(alert.alert, alert.severity, alert.lane): alert for alert in chapter.alerts}
    mine = [episode for episode in left if (episode.alert, episode.severity, episode.lane) in wanted]
    for episode in mine:
        left.remove(episode)
        wanted.pop((episode.alert, episode.severity, episode.lane), None)
    lines = _TELLERS[chapter.name](chronicle, chronicle.chapters[chapter.name])
    return Tale(chapter, tuple(lines), tuple(mine), () if stopped else tuple(wanted.values()))


# --- the chapters -----------------------------------------------------------------------------------------------


def _all(lanes: Mapping[str, LaneTally]) -> LaneTally:
    whole = LaneTally()
    for tally in lanes.values():
        whole.add(tally)
    return whole


def _warm_up(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    whole = _all(lanes)
    return [
        f"{count(whole.submitted, 'command')} of {len(lanes)} lanes: {endings(whole)}. None waited longer than "
        f"{seconds(whole.longest_wait)}."
    ]


def _burst(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    prompt = lanes["prompt"]
    return [
        f"{count(prompt.submitted, 'prompt')} came at once, and the lane runs two at a time: {prompt.peak_waiting} "
        f"waited at the worst, one of them for {seconds(prompt.longest_wait)}; the cause was {causes(prompt)}.",
        f"In the end: {endings(prompt)}.",
    ]


def _control(chronicle: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    jump = chronicle.jump
    if jump is None:
        return ["No control command had to hurry."]
    cancelled = chronicle.chapters["burst"]["prompt"].outcomes["cancelled"]
    return [
        f"stop_agent waited {seconds(jump.wait_seconds)}, while {count(jump.waiting, 'prompt')} had been waiting for "
        f"up to {seconds(jump.oldest_seconds)}: its lane goes before theirs and has a slot reserved.",
        f"It cancelled {count(cancelled, 'prompt')} of its agent in the queue.",
    ]


def _tools(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    skill = lanes["skill"]
    retries = skill.retries["error"] + skill.retries["timeout"]
    worst = skill.errors.most_common(1)
    return [
        f"{count(skill.submitted, 'call')} of tools: {endings(skill)}. Of the attempts that went wrong "
        f"{retries} were tried again ({skill.retries['error']} after an error, {skill.retries['timeout']} after a "
        f"time-out), in vain for the {count(skill.dead, 'dead letter')}.",
        *(f"Most often: {text} ({count(times, 'time')})." for text, times in worst),
    ]


def _stall(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    session = lanes["session"]
    return [
        f"Five times open_store hung, and had all slots of the lane. {session.peak_waiting} commands waited behind, as "
        f"many as it takes in, for up to {seconds(session.longest_wait)}; {count(session.rejected, 'submit')} more "
        "found it full and were refused.",
        f"cancel_sessions, in lane control, cancelled {session.outcomes['cancelled']} and the lane went on.",
    ]


def _block(chronicle: Chronicle, _: Mapping[str, LaneTally]) -> list[str]:
    blocks = list(chronicle.blocks)
    if not blocks:
        return ["parse_huge_page blocked the event loop for too short a time for the watchdog to see it."]
    worst = max(blocks, key=lambda block: block.seconds)
    where = f", at {worst.stack[-1].rpartition('/')[2]}" if worst.stack else ""
    return [
        f"{worst.command_type or 'Something'} (lane {worst.lane or 'unknown'}) blocked the event loop "
        f"{count(len(blocks), 'time')}, for {seconds(worst.seconds)} at the worst{where}.",
        f"Nothing else could run meanwhile, in no lane, for {seconds(sum(block.seconds for block in blocks))} in all; "
        "only what has a thread of its own did, as the server of the metrics.",
    ]


def _starvation(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    prompt, query = lanes["prompt"], lanes["query"]
    average = prompt.waited.total / max(1, prompt.ended)
    return [
        f"{count(query.submitted, 'query', 'queries')} took every shared slot. {count(prompt.submitted, 'prompt')} had "
        f"the one slot reserved for them, and waited {seconds(average)} on average; the cause was {causes(prompt)}.",
    ]


def _calm(_: Chronicle, lanes: Mapping[str, LaneTally]) -> list[str]:
    whole = _all(lanes)
    return [
        f"{count(whole.submitted, 'command')}: {endings(whole)}. None waited longer than {seconds(whole.longest_wait)}."
    ]


_TELLERS: Final[dict[str, Callable[[Chronicle, Mapping[str, LaneTally]], list[str]]]] = {
    "warm_up": _warm_up,
    "burst": _burst,
    "control": _control,
    "tools": _tools,
    "stall": _stall,
    "block": _block,
    "starvation": _starvation,
    "calm": _calm,
}


# --- in words ---------------------------------------------------------------------------------------------------


def count(number: int, one: str, many: str = "") -> str:
    """So many of something."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def seconds(value: float) -> str:
    """A time, in milliseconds where it is short."""
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.1f} s"


def endings(tally: LaneTally) -> str:
    """How commands ended."""
    left = tally.submitted - tally.ended
    parts = [f"{tally.outcomes[ending]} {ending}" for ending in _ENDINGS if tally.outcomes[ending]]
    return ", ".join([*parts, *([f"{left} not ended"] if left > 0 else [])]) or "none"


def causes(tally: LaneTally) -> str:
    """What commands waited for, the most frequent first."""
    total = tally.waited.total
    shares = sorted(((getattr(tally.waited, cause) / total, cause) for cause in CAUSES), reverse=True) if total else []
    return " and ".join(f"{cause} ({share:.0%})" for share, cause in shares if share >= 0.01) or "none"
