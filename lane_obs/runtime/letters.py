"""The way back of dead letters: into the queue's memory from a storage, and into their lane."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.core.state import FINAL, State
from lane_obs.errors import DuplicateId, LaneObsError
from lane_obs.runtime.codec import decode
from lane_obs.runtime.dead_letters import DeadLetter, Rerun
from lane_obs.runtime.draft import Draft
from lane_obs.runtime.options import Options, stored_options
from lane_obs.runtime.work import resolve

if TYPE_CHECKING:
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.thread_calls import ThreadCalls
    from lane_obs.storage.record import StoredDeadLetter


_REASONS: Final = {str(state): state for state in FINAL}
_LATEST: Final = datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp()


def restored(letter: StoredDeadLetter, threads: ThreadCalls) -> DeadLetter:
    """A stored letter as one that can be requeued, unless what it would run is not to be had here."""
    try:
        work, args = decode(letter.command_type, letter.payload)
        named, call, args = resolve(work, args, threads)
        again: Rerun | None = Rerun(letter.seq, named, call, args, options_of(letter), letter.trace)
    except LaneObsError:  # the letter itself is kept and shown all the same
        again = None
    return DeadLetter(
        letter.id,
        letter.lane,
        letter.command_type,
        _REASONS.get(letter.reason, State.FAILED),  # a later version may have more of them
        letter.error_type,
        letter.error,
        letter.attempts,
        datetime.fromtimestamp(min(max(letter.failed_at, 0.0), _LATEST), UTC),
        None,
        again,
    )


def options_of(letter: StoredDeadLetter) -> Options:
    """The options a letter's command was submitted with; its deadline starts anew.

    Raises:
        ConfigError: they were written by another version and are not allowed in this one.
    """
    return Options(**stored_options(letter.options), id=letter.id, key=letter.key)


def requeue(letter: DeadLetter, intake: Intake, dispatcher: Dispatcher) -> CommandHandle[Any]:
    """Takes a dead letter back in; see `DeadLetterQueue.requeue`.

    Raises:
        DuplicateId: a live command has its id or key.
        StorageError: it could not be stored.
        LaneObsError: the queue shuts down, or the lane is full or gone.
    """
    rerun = letter.rerun
    assert rerun is not None
    intake.bind()
    intake.check_open(letter.lane, rerun.work)
    home, directory = intake.find_lane(letter.lane, rerun.work), dispatcher.directory
    options = msgspec.structs.replace(rerun.options, delay=0.0) if rerun.options.delay else rerun.options
    part = home.assign(letter.command_type, options.partition_key)
    if directory.find(letter.id) is not None or options.key in directory.by_key:
        raise DuplicateId(f"a live command has the id or key of dead letter {letter.id!r}")
    draft = Draft(home, rerun.work, rerun.call, rerun.args, options, rerun.seq, part, letter.id, rerun.trace)
    if intake.room.is_taken(home):
        raise intake.full(draft)
    if home.is_durable:
        intake.durable.check_ready(draft)
    dispatcher.bus.emit(events.DeadLetterRequeued, letter.id, letter.lane, letter.command_type)
    if not home.is_durable:
        return intake.enqueue(draft, requeued=True)
    requeued: CommandHandle[Any] = intake.durable.requeue(draft)
    return requeued
