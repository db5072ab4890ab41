"""What a log line says of an event: its level, its keys and their values. Knows no vendor and writes nothing."""

from __future__ import annotations

import functools
import operator
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lane_obs import events as kinds
from lane_obs.errors import ConfigError
from lane_obs.events import LaneEvent, WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""The levels and their ranks."""
_LEVEL_OF: Final[dict[type[LaneEvent], str]] = {
    kinds.CommandCompleted: "info",
    kinds.CommandCancelled: "info",
    kinds.LaneThrottled: "info",
    kinds.LaneAdded: "info",
    kinds.LaneRemoved: "info",
    kinds.AlertPending: "info",
    kinds.AlertResolved: "info",
    kinds.AlertCleared: "info",
    kinds.CommandRetry: "warning",
    kinds.CommandRejected: "warning",
    kinds.CommandStuck: "warning",
    kinds.DeadLetterEvicted: "warning",
    kinds.LanePressure: "warning",
    kinds.LoopBlocked: "warning",
    kinds.SinkFailed: "warning",
    kinds.AlertFiring: "warning",
    kinds.AlertNotificationFailed: "warning",
    kinds.AlertNotificationDropped: "warning",
    kinds.RecoveryComplete: "info",
    kinds.StorageBack: "info",
    kinds.BrokerUp: "info",
    kinds.BrokerLead: "info",
    kinds.CommandReturned: "warning",
    kinds.CommandLeaseLost: "warning",
    kinds.CommandStale: "warning",
    kinds.BrokerDown: "error",
    kinds.CommandKept: "warning",
    kinds.StorageFailed: "error",
    kinds.RecoveryFailed: "error",
    kinds.CommandFailed: "error",
    kinds.CommandTimedOut: "error",
    kinds.CommandExpired: "error",
    kinds.SinkDisabled: "error",
}
# The ends of commands, one for each, and nothing else: lines can be counted by it.
_OUTCOMES: Final[dict[type[LaneEvent], str]] = {
    kinds.CommandCompleted: "ok",
    kinds.CommandFailed: "error",
    kinds.CommandTimedOut: "timeout",
    kinds.CommandCancelled: "cancelled",
    kinds.CommandExpired: "expired",
}
_KEYS: Final = {
    "wall": "timestamp",
    "wait_seconds": "queue_wait_s",
    "run_seconds": "duration_s",
    "seconds": "duration_s",
    "delay_seconds": "delay_s",
    "deadline_seconds": "deadline_s",
    "after_seconds": "after_s",
}
_FIRST: Final = ("wall", "lane", "command_id", "command_type", "attempt")
_NOT_OWN: Final = frozenset({"seq", "at", "exception", "trace", *_FIRST})
_NOT_OF_ENDS: Final = frozenset({"end_to_end_seconds", "wait_by_cause", "attempt_seconds"})
_MAX_TRACEBACK: Final = 8_000
_MAX_FRAMES: Final = 30


class Form(NamedTuple):
    """How one kind of event becomes a line.

    Attributes:
        event: its name.
        level: its level.
        head: what is the same in all, after the name.
        keys: names of the rest.
        read: gives the values of the rest.
        make: makes a line, ready to be encoded, of `head` and the values.
        is_traced: whether it may belong to a trace.
        with_error: whether the exception's traceback belongs to it.
    """

    event: str
    level: str
    head: tuple[str, ...]
    keys: tuple[str, ...]
    read: Callable[[LaneEvent], tuple[Any, ...]]
    make: Callable[..., Any]
    is_traced: bool
    with_error: bool


@functools.cache
def form_of(kind: type[LaneEvent]) -> Form:
    """The form of this kind of event."""
    level = _LEVEL_OF.get(kind) or str(getattr(kind, "level", "debug"))
    outcome = _OUTCOMES.get(kind)
    names = _names(kind)
    keys = tuple(_KEYS.get(name, name) for name in names)
    head = {"level": level} if outcome is None else {"level": level, "outcome": outcome}
    fields: list[Any] = [(key, Any) for key in (*head, *keys)]
    fields += [(key, Any, msgspec.UNSET) for key in ("trace_id", "span_id", "worker", "exception") if key not in keys]
    make = msgspec.defstruct(kind.__name__, fields, tag_field="event", tag=kind.key, gc=False)
    own = kind.__struct_fields__
    with_error = "exception" in own and LEVELS[level] >= LEVELS["warning"]
    read = operator.attrgetter(*names) if len(names) > 1 else lambda event: (event.wall,)
    return Form(kind.key, level, tuple(head.values()), keys, read, make, "trace" in own, with_error)


def _names(kind: type[LaneEvent]) -> list[str]:
    own = ("wall", *kind.__struct_fields__)
    left_out = _NOT_OWN | _NOT_OF_ENDS if kind in _OUTCOMES else _NOT_OWN
    return [name for name in _FIRST if name in own] + [name for name in kind.__struct_fields__ if name not in left_out]


def kinds_from(level: str) -> Collection[type[LaneEvent]] | None:
    """The kinds of events at or above a level; `None` for all, of which `debug` has those that are not known here.

    Raises:
        ConfigError: no such level.
    """
    if level not in LEVELS:
        raise ConfigError("level", level, f"give one of {', '.join(LEVELS)}")
    least = LEVELS[level]
    if level == "debug":
        return None
    return frozenset(kind for kind, its in _LEVEL_OF.items() if LEVELS[its] >= least)


URGENT: Final = frozenset(kind for kind, level in _LEVEL_OF.items() if LEVELS[level] >= LEVELS["warning"])
"""Kinds whose lines are not kept waiting."""


def line_of(event: LaneEvent, worker: str | None = None) -> Any:
    """A line, ready to be encoded with msgspec: the cheap way, as there is one for each command.

    Args:
        event: the event.
        worker: whose it is; `None` for nobody's.
    """
    form = form_of(type(event))
    if form.is_traced and (trace := event.trace) is not None:  # type: ignore[attr-defined]
        line = form.make(*form.head, *form.read(event), trace.trace_hex, trace.span_hex)
    else:
        line = form.make(*form.head, *form.read(event))
    if worker is not None:
        line.worker = worker
    if form.with_error and (error := event.exception) is not None:  # type: ignore[attr-defined]
        line.exception = render_exception(error)
    return line


def fields_of(event: LaneEvent, worker: str | None = None) -> dict[str, Any]:
    """The same as plain data: without the event's name and level, and without the exception."""
    form = form_of(type(event))
    fields: dict[str, Any] = dict(zip(form.keys, form.read(event), strict=True))
    if len(form.head) > 1:
        fields["outcome"] = form.head[1]
    if "wait_by_cause" in fields:
        fields["wait_by_cause"] = fields["wait_by_cause"].as_dict()
    if (trace := getattr(event, "trace", None)) is not None:
        fields |= {"trace_id": trace.trace_hex, "span_id": trace.span_hex}
    return fields if worker is None else {**fields, "worker": worker}


def error_of(event: LaneEvent) -> BaseException | None:
    """The exception that belongs to the line, if one does."""
    return getattr(event, "exception", None) if form_of(type(event)).with_error else None


def render_exception(error: BaseException) -> str:
    """The traceback's last frames and the exception, with its causes; the end is kept of one that is too long."""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-_MAX_FRAMES)
        return "".join(lines).rstrip()[-_MAX_TRACEBACK:]
    except Exception as fault:  # it shows the user's objects
        return f"{type(error).__name__}: <traceback unavailable: {type(fault).__name__}>"


def clean(value: Any) -> Any:
    """The value with what JSON and OTLP cannot hold made text: halves of surrogate pairs, huge numbers, odd objects."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    return clean(value.as_dict()) if isinstance(value, WaitByCause) else clean(text_of(value))


def text_of(value: object) -> str:
    """What an object shows of itself, whatever happens."""
    try:
        return repr(value)
    except Exception as fault:  # it is the user's
        return f"<{type(value).__name__}: {type(fault).__name__}>"


class Redactor:
    """Applies the user's `redact` to the fields of a line.

    Args:
        redact: gets the fields as a dict and returns what may be shown of them; `None`: all may.

    Attributes:
        failures: how often it raised, or gave what could not be written. Then no field is shown.
    """

    def __init__(self, redact: Callable[[dict[str, Any]], dict[str, Any]] | None) -> None:
        self._redact = redact
        self.failures = 0

    def __bool__(self) -> bool:
        return self._redact is not None

    def fields_of(self, event: LaneEvent, worker: str | None = None) -> dict[str, Any]:
        """The fields that may be shown, the exception's text among them, and always the time."""
        fields = fields_of(event, worker)
        if (error := error_of(event)) is not None:
            fields["exception"] = render_exception(error)
        if self._redact is None:
            return fields
        when = {"timestamp": fields.pop("timestamp")}
        try:
            kept = self._redact(fields)
            return when | {str(key): kept[key] for key in kept if key not in {"event", "level", "timestamp"}}
        except Exception:  # it is the user's code; not one of the fields may be shown now
            self.failures += 1
            return when
