"""Dead letters as a storage keeps them, made letters of the queue again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lane_obs.config.file import retry_from_table
from lane_obs.core.state import State
from lane_obs.errors import LaneObsError
from lane_obs.runtime.codec import decode
from lane_obs.runtime.dead_letters import DeadLetter, Rerun
from lane_obs.runtime.options import Options
from lane_obs.runtime.work import resolve

if TYPE_CHECKING:
    from lane_obs.runtime.thread_calls import ThreadCalls
    from lane_obs.storage.record import StoredDeadLetter


def restored(letter: StoredDeadLetter, threads: ThreadCalls) -> DeadLetter:
    """A stored letter as one that can be requeued, unless what it would run is not to be had here."""
    try:
        work, args = decode(letter.command_type, letter.payload)
        named, call, args = resolve(work, args, threads)
        again: Rerun | None = Rerun(letter.seq, named, call, args, options_of(letter))
    except LaneObsError:  # the letter itself is kept and shown all the same
        again = None
    return DeadLetter(
        letter.id,
        letter.lane,
        letter.command_type,
        State(letter.reason),
        letter.error_type,
        letter.error,
        letter.attempts,
        datetime.fromtimestamp(letter.failed_at, UTC),
        None,
        again,
    )


def options_of(letter: StoredDeadLetter) -> Options:
    """The options a letter's command was submitted with; its deadline starts anew.

    Raises:
        ConfigError: they were written by another version and are not allowed in this one.
    """
    given: dict[str, Any] = dict(letter.options)
    if "retry" in given:
        given["retry"] = retry_from_table(given["retry"])
    return Options(**given, id=letter.id, key=letter.key)
