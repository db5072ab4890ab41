"""What a sink is: whatever takes the events of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.core.fact import Fact
    from lane_obs.events import LaneEvent


@runtime_checkable
class Sink(Protocol):
    """Whatever takes events: two methods.

    `handle` runs on the event loop and must be quick; wrap what may block in a `BackgroundSink`. A sink that
    drops events says so in a mapping `dropped` of counts by reason, which statistics then show.

    A sink may have more, looked up once, when its queue is built:

    - `wants`: the kinds of events it gets, a collection of their classes; none of the others is built for it.
    - `attach(queue)`: called when the queue is complete; what it raises goes to whoever builds the queue.
    - `start()`: called when the queue starts, on its event loop, before the first command; what it raises fails
      the start.
    - `at_submit(command)`: called with each `CommandHandle` at its submit, in the submitter's context.
    - `at_reject(refusal)`: called with `(lane, command_type, reason)` for each submit that is refused, likewise.
    - `traceparent()`: the W3C traceparent of the span that is current, or `None`: it is stored with a durable command.
    - `at_recover(recovered)`: called with `(command, traceparent)` for each stored command that is back in its lane.
    - `at_claim(claimed)`: called with `(command, traceparent)` for each command that a broker gives this process to run
      or to tell of, with the traceparent of its submit span in whatever process submitted it.
    - `at_start(command)`: called before each attempt's task is made.
    - `in_attempt(command)`: called in each attempt's own task and context, before its work: what it sets there
      (log context, current span) is seen by the command and by nobody else.
    """

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Takes a batch in order of `seq`; the batch is not changed afterwards and may be kept."""

    def close(self) -> None:
        """Lets go of everything; called once, after the last batch."""


@runtime_checkable
class FactSink(Protocol):
    """A sink that reads facts (see `core.fact`) as they are, in place of events."""

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        """Takes a batch, in the order in which things happened."""

    def close(self) -> None:
        """Lets go of everything; called once, after the last batch."""


AnySink: TypeAlias = "Sink | FactSink"


class Observer(Protocol):
    """What has sinks for one queue: an `Observability`."""

    @property
    def sinks(self) -> Sequence[AnySink]:
        """The sinks."""


@runtime_checkable
class ThreadedSink(Protocol):
    """A sink that works in a thread: its `close` waits for it, and its failures show later.

    It may have attributes `pending`, `flush` and `lag`, which statistics then show in place of the bus's own.

    Attributes:
        failures_in_a_row: batches failed since the last that did not.
    """

    failures_in_a_row: int

    def take_failure(self) -> Exception | None:
        """What a batch failed with, if one did since this was last asked."""

    def close(self) -> None:
        """Lets go of everything; called in a thread, so it may block."""
