"""What a member tells its broker of the commands it runs: their ends, retries and progress, many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.core.leave import leave
from lane_obs.core.state import State
from lane_obs.distributed.record import End, Progress
from lane_obs.errors import InvalidCommand, error_text
from lane_obs.runtime.brokered.body import encode_error, encode_value
from lane_obs.runtime.codec import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import Claimed
    from lane_obs.runtime.brokered.handle import ClaimedHandle
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle

_DEAD = frozenset({State.FAILED, State.TIMED_OUT, State.EXPIRED})
"""Ends that leave a dead letter."""


class BrokerJournal:
    """Gathers what is to be told; the pump takes it.

    Args:
        broker: where it goes.
        dispatcher: runs the commands.

    Attributes:
        on_news: called when something is there to be told.
        running: the commands that are run here, by id.
        overtaken: commands that are still at work here though their leases are lost and this very member has claimed
            them anew, by number.
    """

    def __init__(self, broker: Broker, dispatcher: Dispatcher) -> None:
        self._broker = broker
        self._dispatcher = dispatcher
        self._ends: list[End] = []
        self._told: list[CommandHandle[Any]] = []
        """The commands that the ends are of, in the same order."""
        self._given: list[End] = []
        """Ends of claims that were never started here."""
        self._progress: dict[str, Progress] = {}
        self._cancelled: set[int] = set()
        self.closing = False
        self.on_news: Callable[[], None] = lambda: None
        self.running: dict[str, ClaimedHandle[Any]] = {}
        self.overtaken: dict[int, ClaimedHandle[Any]] = {}

    # --- what the dispatcher calls ------------------------------------------------------------------------------

    @staticmethod
    def started(_handle: CommandHandle[Any]) -> None:
        """Nothing: the broker counted the attempt when it was claimed."""

    def ended(self, handle: ClaimedHandle[Any], error: BaseException | None, _rerun: Any, *, ran: bool) -> bool:
        """A command has ended; `ran`: while it ran.

        Returns:
            True: who waits for the drain waits until the broker knows.
        """
        state = handle.state
        wait, run, attempt = handle.fold_wait(), handle.ran, handle.attempt  # worked out once, for sinks too
        if error is None:
            result = encode_value(handle._value, attempt, wait, run, self._broker.max_result)
            self._tell(handle, End(handle._id or "", handle.token, "succeeded", result, cost=_true_cost(handle)))
        elif state is State.CANCELLED and self.closing and handle.seq not in self._cancelled:
            self._tell(handle, End(handle.id, handle.token, "ready"))  # it is to run again, elsewhere
        else:
            outcome = encode_error(error, attempt, wait, run)
            letter = outcome if state in _DEAD else None
            self._tell(handle, End(handle.id, handle.token, str(state), outcome, letter, cost=_true_cost(handle)))
        return True

    def backs_off(self, handle: ClaimedHandle[Any], delay: float, _error: BaseException) -> bool:
        """An attempt has failed and is tried again, by whoever claims it then.

        Returns:
            True: the command leaves this process.
        """
        self._tell(handle, End(handle.id, handle.token, "backoff", delay=delay, cost=_true_cost(handle)))
        return True

    def leave(self, handle: ClaimedHandle[Any]) -> None:
        """A command that backs off leaves this process; a drain still waits until the broker knows."""
        dispatcher = self._dispatcher
        leave(dispatcher.engine, handle)
        dispatcher.directory.remove(handle)
        if handle.deadline_timer is not None:
            dispatcher.timers.cancel(handle.deadline_timer)
        handle._ending = True
        dispatcher.idle.unsettled += 1

    def _tell(self, handle: ClaimedHandle[Any], end: End) -> None:
        if self.running.get(end.id) is handle:
            del self.running[end.id]
        else:
            del self.overtaken[handle.seq]
        if not self._ends:
            self.on_news()
        self._ends.append(end)
        self._told.append(handle)

    @staticmethod
    def written(progress: Any) -> bytes:
        """Progress as it is sent.

        Raises:
            InvalidCommand: it is no JSON.
        """
        try:
            return to_json(progress)
        except Exception as error:  # encoding a value may run the user's code
            raise InvalidCommand(f"progress {type(progress).__name__} cannot be sent: {error_text(error)}") from error

    def report(self, handle: ClaimedHandle[Any], data: bytes) -> None:
        """A running command tells how far it is; what it told before and did not go out yet is replaced."""
        self._progress[handle.id] = Progress(handle.id, handle.token, data)
        self.on_news()

    # --- what the membership calls ------------------------------------------------------------------------------

    def begin(self, handle: ClaimedHandle[Any]) -> None:
        """A claimed command is run here from now on."""
        earlier = self.running.get(handle.id)
        if earlier is not None:
            self.overtaken[earlier.seq] = earlier
        self.running[handle.id] = handle

    @property
    def active(self) -> int:
        """How many commands are run here."""
        return len(self.running) + len(self.overtaken)

    def lose(self, command_id: str) -> ClaimedHandle[Any] | None:
        """The lease on a command is lost; returns the one that it was for, `None` where that is known or over."""
        same = [handle for handle in self.overtaken.values() if handle.id == command_id]
        if command_id in self.running:
            same.append(self.running[command_id])
        for handle in same:
            if not handle.lost:
                handle.lost = True
                return handle
        return None

    # --- what the pump calls ------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether something is there to be told."""
        return bool(self._ends or self._progress or self._given)

    def take(self) -> tuple[list[End], list[CommandHandle[Any]], list[Progress]]:
        """What is to be told: ends, the commands that the first of them are of, and progress."""
        taken = self._ends + self._given, self._told, list(self._progress.values()) if self._progress else []
        self._ends, self._told, self._given = [], [], []
        self._progress.clear()
        return taken

    def put_back(self, ends: list[End], told: list[CommandHandle[Any]]) -> None:
        """The broker could not be told these: they come first the next time."""
        self._given = ends[len(told) :] + self._given
        self._ends[:0] = ends[: len(told)]
        self._told[:0] = told

    def give_back(self, claimed: Iterable[Claimed]) -> None:
        """Commands were claimed and are not started: others are to run them."""
        self._given += [End(claim.id, claim.token, "ready") for claim in claimed]

    def pass_on(self, claim: Claimed, wait: float) -> None:
        """A command was claimed that cannot run here: others are to run it. It costs nothing."""
        self._given.append(End(claim.id, claim.token, "ready", delay=wait, cost=0.0))

    def close(self, cancelled: Iterable[CommandHandle[Any]]) -> None:
        """From now on what is cancelled goes back to the broker, but for those that were cancelled before."""
        self.closing = True
        self._cancelled = {handle.seq for handle in cancelled}


def _true_cost(handle: CommandHandle[Any]) -> float | None:
    return None if handle.cost == handle._options.cost else handle.cost
