"""Why a command waits, in figures and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.core.state import State
from lane_obs.events import CAUSES
from lane_obs.runtime.stats import Explanation

if TYPE_CHECKING:
    from lane_obs.core.engine import Engine
    from lane_obs.runtime.handle import CommandHandle

_NOT_STARTED = "the queue is not started"
_WORDS = {
    "slots": "every slot it could take is in use",
    "priority": "the queue's slots are in use and more important lanes go first",
    "pause": "its lane is paused",
    "scheduler": "nothing blocks it; it starts in the next turn of the loop",
    "backoff": "an attempt failed and the retry is not due yet",
    "delay": "its delay is not over",
    "rate_limit": "a rate limit of its lane lets the next command through later",
    "partition": "another command of its partition is ahead or runs",
}


def explain(handle: CommandHandle[Any], engine: Engine, now: float) -> Explanation:
    """Explains a live command. Counts the ready commands ahead of it one by one."""
    state, lane = handle.state, handle.home
    cause, in_lane, elsewhere = _cause(handle), 0, 0
    if state is State.READY:
        in_lane = lane.ready.ahead_of(handle.seq)
        others = (other for other in engine.lanes.values() if other.priority < lane.priority)
        elsewhere = sum(other.counts[State.READY] for other in others)
    due = _due(handle, cause, engine, now)
    text = _words(handle, cause)
    if state is State.READY:
        text += f"; {in_lane} ahead in its lane, {elsewhere} ready in more important lanes"
        text += _boosted(handle, now)
    wait = engine.wait_so_far(handle, now)
    return Explanation(handle.id, lane.name, state, handle.attempt, cause, wait, in_lane, elsewhere, due, text)


def _boosted(handle: CommandHandle[Any], now: float) -> str:
    config = handle.home.config
    if config.boost is None:
        return ""
    level, _ = config.boost.level(config.priority, now - handle.submitted_at, handle.deadline)
    return f"; boosted from priority {config.priority} to {level}" if level < config.priority else ""


def _words(handle: CommandHandle[Any], cause: str | None) -> str:
    if cause is None:
        return f"attempt {handle.attempt} is running"
    words = _WORDS[cause]
    if not handle._owner.is_open:  # that alone holds up a ready command, and a delayed one once its delay is over
        words = _NOT_STARTED if handle.state is State.READY else f"{words}, and {_NOT_STARTED}"
    return f"waits in lane {handle.lane!r}: {words}"


def _due(handle: CommandHandle[Any], cause: str | None, engine: Engine, now: float) -> float | None:
    """Seconds until its delay or back-off is over, or until its lane's rate limit lets the next command through."""
    if handle.state in {State.DELAYED, State.BACKOFF} and handle.timer is not None:
        when: float = handle.timer[0]
        return when - now
    return engine.gates.due(handle.home, now) - now if cause == "rate_limit" else None


def _cause(handle: CommandHandle[Any]) -> str | None:
    if handle.state is State.READY:
        if handle.home.is_held(handle):
            return "partition"
        return CAUSES[handle.home.meter.cause]
    return {State.DELAYED: "delay", State.BACKOFF: "backoff"}.get(handle.state)
