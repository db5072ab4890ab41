"""What is submitted when, how long it takes and how it ends: drawn from a seed before anything runs.

So the story does not depend on how it is scheduled, and the same seed tells the same one.
"""

from __future__ import annotations

import random
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.demo.chapter import CHAPTERS, ROUND_SECONDS, chapter_at, told_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lane_obs.demo.chapter import Chapter

ALWAYS: Final = 1_000
"""So many failing attempts are all that a command has."""

HUNG: Final = "hung sessions"
STOPPED: Final = "agent 7"

_AGENTS: Final = 4
_COSTS: Final = {"summarize_history": 8.0}
_BLOCK_SECONDS: Final = 0.5
_FIRST: Final = 2.0
"""When traffic begins: whoever scrapes has seen zeros by then, so that no rate misses the first command."""
_LAST: Final = 1.0
"""So long before the end nothing new comes, so that the story ends when it should."""
_TURN: Final = 0.001
"""How far apart are submits that follow one another at once."""


class Does(StrEnum):
    """How a command spends its time."""

    WORK = "work"
    HANG = "hang"
    """Until it is cancelled."""
    BLOCK = "block"
    """On the event loop, which cannot turn meanwhile; in real time."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of the story.

    Attributes:
        at: when it is submitted, seconds from the start of its round.
        id: its id.
        chapter: name of the chapter in which it is submitted.
        seconds: how long an attempt takes.
        does: how it spends them.
        fails: so many attempts fail at their end.
        error: with what, as `TypeOfError: message`.
        deadline: seconds until it expires; `None` for never.
        cost: what it takes of its lane's rate limit.
        agent: for whom it is, its partition key; `None` for nobody.
        group: what it belongs to, for one that cancels the group.
        cancels: the group that it cancels at its end.
    """

    at: float
    lane: str
    command_type: str
    seconds: float
    does: Does = Does.WORK
    fails: int = 0
    error: str = ""
    deadline: float | None = None
    cost: float = 1.0
    agent: str | None = None
    group: str = ""
    cancels: str = ""
    id: str = ""
    chapter: str = ""


class Round(msgspec.Struct, frozen=True):
    """The story, told once.

    Attributes:
        number: 1, 2, 3, ...
        seconds: how long it takes.
        chapters: those that it has time for.
        steps: its commands, in the order in which they are submitted.
    """

    number: int
    seconds: float
    chapters: tuple[Chapter, ...]
    steps: tuple[Step, ...]


def rounds(seconds: float, seed: int) -> Iterator[Round]:
    """Plans a story of so many seconds: as many whole rounds as fit, with longer calms to fill the time.

    A story that is too short for a whole round leaves out the chapters that it has no time for.
    """
    count = max(1, int(seconds // ROUND_SECONDS))
    number_of_steps = 0
    for number in range(1, count + 1):
        planned = _plan(number, seconds / count, random.Random(f"{seed}/{number}"), number_of_steps)  # noqa: S311
        number_of_steps += len(planned.steps)
        yield planned


def _plan(number: int, seconds: float, rng: random.Random, first: int) -> Round:
    chapters = told_in(seconds)
    names = {chapter.name for chapter in chapters}
    # Each has a random generator of its own: a chapter that is left out must not change the others.
    parts: list[Iterable[Step]] = [_steady(random.Random(rng.random()), names, seconds)]  # noqa: S311
    for chapter in CHAPTERS:
        own = random.Random(rng.random())  # noqa: S311
        if chapter.name in names and chapter.name in _TELLERS:
            parts.append(_TELLERS[chapter.name](own, chapter.at))
    drafts = sorted(chain.from_iterable(parts), key=lambda step: step.at)
    steps = tuple(
        msgspec.structs.replace(
            step,
            at=round(step.at, 6),
            seconds=round(step.seconds, 6),
            id=f"{step.command_type}-{first + index}",
            chapter=chapter_at(chapters, step.at).name,
        )
        for index, step in enumerate(drafts, 1)
    )
    return Round(number, seconds, chapters, steps)


# --- steady traffic ---------------------------------------------------------------------------------------------


class _Stream(msgspec.Struct, frozen=True):
    """Steady traffic of a lane: one command every `gap` seconds, of one of these types, for so long."""

    lane: str
    gap: float
    types: tuple[str, ...]
    seconds: tuple[float, float]
    flaky: tuple[int, int] = (0, 0)
    """The first of these in so many fails once, the second for good; 0 for none."""
    error: str = ""
    quiet: tuple[tuple[str, float, float], ...] = ()
    """Chapters that bring traffic of their own, and from when to when, seconds from their start."""
    for_agents: bool = False
    """Each is for one of the agents, who take turns."""


_STREAMS: Final = (
    _Stream("system", 1.0, ("heartbeat", "save_checkpoint"), (0.003, 0.012)),
    _Stream("control", 2.0, ("reload_settings", "resume_agent"), (0.005, 0.015)),
    _Stream(
        "query", 1 / 6, ("search_docs", "read_file", "look_up_vectors"), (0.03, 0.08), (25, 60),
        "ConnectionError: the index closed the connection",
    ),
    _Stream("session", 0.5, ("load_session", "save_turn", "summarize_history"), (0.05, 0.15)),
    _Stream(
        "skill", 0.5, ("run_python", "browse_page", "send_mail"), (0.15, 0.35), quiet=(("tools", 0.0, 10.0),),
        for_agents=True,
    ),
    _Stream(
        "prompt", 1.0, ("plan_next_step", "answer_user", "reflect"), (0.4, 0.9), (11, 0),
        "RetryAfter: 429 from the model: too many requests",
        quiet=(("burst", 0.0, 8.0), ("starvation", 0.0, 7.0)),
    ),
)  # fmt: skip


def _steady(rng: random.Random, chapters: set[str], seconds: float) -> list[Step]:
    return [step for stream in _STREAMS for step in _flow(stream, rng, chapters, seconds)]


def _flow(stream: _Stream, rng: random.Random, chapters: set[str], seconds: float) -> Iterator[Step]:
    starts = {chapter.name: chapter.at for chapter in CHAPTERS if chapter.name in chapters}
    quiet = [(starts[name] + since, starts[name] + until) for name, since, until in stream.quiet if name in starts]
    at, count = _FIRST + rng.random() * stream.gap, 0
    while at < seconds - _LAST:
        if not any(since <= at < until for since, until in quiet):
            count += 1
            once, ever = (bool(every) and count % every == 0 for every in stream.flaky)
            yield Step(
                at=at,
                lane=stream.lane,
                command_type=(command_type := rng.choice(stream.types)),
                seconds=rng.uniform(*stream.seconds),
                cost=_COSTS.get(command_type, 1.0),
                agent=_agent(count) if stream.for_agents else None,
                fails=ALWAYS if ever else int(once),
                error=stream.error if once or ever else "",
            )
        at += stream.gap * rng.uniform(0.6, 1.4)


def _agent(number: int) -> str:
    return f"agent {number % _AGENTS + 1}"


# --- what the chapters add --------------------------------------------------------------------------------------


def _burst(rng: random.Random, at: float) -> Iterator[Step]:
    for number in range(64):
        yield Step(
            at=at + number * 0.008,
            lane="prompt",
            command_type=rng.choice(("draft_reply", "answer_user")),
            seconds=rng.uniform(0.3, 0.4),
            group=STOPPED if number in {45, 50, 55} else "",
            deadline=4.0 if number == 60 else None,
        )


def _control(_: random.Random, at: float) -> Iterator[Step]:
    yield Step(at=at, lane="control", command_type="stop_agent", seconds=0.02, cancels=STOPPED)


_TOOL_ERROR: Final = (
    "ConnectionError: 503 from the search service",
    "ValueError: the page is no HTML",
    "PermissionError: the sandbox refuses to write",
)


def _tools(rng: random.Random, at: float) -> Iterator[Step]:
    for four in range(5):
        ends = [ALWAYS, ALWAYS, 0, 1]  # two fail for good, one hangs, one fails once
        rng.shuffle(ends)
        for place, fails in enumerate(ends):
            yield Step(
                at=at + four * 2 + place * 0.5 + rng.uniform(0.0, 0.2),
                lane="skill",
                agent=_agent(four * 4 + place),
                command_type=rng.choice(("search_web", "browse_page")) if fails else "call_slow_api",
                seconds=rng.uniform(0.1, 0.2) if fails else 60.0,
                fails=fails,
                error=rng.choice(_TOOL_ERROR) if fails else "",
            )


def _stall(rng: random.Random, at: float) -> Iterator[Step]:
    for number in range(5):
        yield Step(
            at=at + number * _TURN, lane="session", command_type="open_store", seconds=60.0, does=Does.HANG, group=HUNG
        )
    for number in range(2):  # so that work is ready from the start
        yield Step(
            at=at + 0.1 + number * 0.1, lane="session", command_type="save_turn", seconds=rng.uniform(0.05, 0.15)
        )
    yield Step(at=at + 10.5, lane="control", command_type="cancel_sessions", seconds=0.02, cancels=HUNG)


def _block(_: random.Random, at: float) -> Iterator[Step]:
    for number in range(3):
        yield Step(
            at=at + number * 0.7, lane="query", command_type="parse_huge_page", seconds=_BLOCK_SECONDS, does=Does.BLOCK
        )


def _starvation(rng: random.Random, at: float) -> Iterator[Step]:
    for number in range(20 + 20 * 7):  # twenty at once, then twenty a second for seven seconds
        yield Step(
            at=at + (number * _TURN if number < 20 else (number - 19) / 20),
            lane="query",
            command_type=rng.choice(("crawl_site", "read_file")),
            seconds=rng.uniform(0.32, 0.38),
        )
    for number in range(3 + 3 * 7):
        yield Step(
            at=at + 0.05 + (number * _TURN if number < 3 else (number - 2) / 3),
            lane="prompt",
            command_type=rng.choice(("plan_next_step", "answer_user")),
            seconds=rng.uniform(0.35, 0.45),
        )


_TELLERS: Final[dict[str, Callable[[random.Random, float], Iterator[Step]]]] = {
    "burst": _burst,
    "control": _control,
    "tools": _tools,
    "stall": _stall,
    "block": _block,
    "starvation": _starvation,
}
