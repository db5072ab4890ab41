"""The attributes of spans: the OpenTelemetry conventions for messaging, and our own under `lane.`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.events import CAUSES

if TYPE_CHECKING:
    from lane_obs.events import WaitByCause

_OPERATION_TYPES: Final = {"submit": "send", "process": "process", "settle": "settle"}
_WAITS: Final = tuple((cause, f"lane.queue.wait.{cause}") for cause in CAUSES)
_MAX_BASES: Final = 1_000


class Attributes:
    """Makes the attributes of spans.

    Args:
        process: value of `lane.worker` while there is no member.

    Attributes:
        member: the process's id at its broker, `None` without one: `messaging.client.id`, and `lane.worker`, too.
    """

    def __init__(self, process: str) -> None:
        self._process = process
        self.member: str | None = None
        self._base: dict[tuple[str, str], dict[str, Any]] = {}

    def common(self, lane: str, kind: str, operation: str) -> dict[str, Any]:
        """Attributes that all spans of one lane, type and operation have; a copy of one's own."""
        key = (lane, kind)
        base = self._base.get(key)
        if base is None:
            if len(self._base) >= _MAX_BASES:  # names of types are the users': a closure each, say
                self._base.clear()
            base = self._base[key] = {
                "messaging.system": "lane",
                "messaging.destination.name": lane,
                "lane.command.type": kind,
            }
        made = base.copy()
        made["messaging.operation.name"] = operation
        made["messaging.operation.type"] = _OPERATION_TYPES[operation]
        if self.member is not None:
            made["messaging.client.id"] = self.member
        return made

    def of(self, command: Any, operation: str) -> dict[str, Any]:
        """Attributes that are a command's own, too: its priority in force, its cost unless 1, and its partition."""
        lane = command.home
        made = self.common(lane.name, command.command_type, operation)
        made["messaging.message.id"] = command.id
        made["lane.priority"] = lane.priority if lane.config.boost is None else command.level
        if command.cost != 1.0:
            made["lane.cost"] = command.cost
        if command.part is not None:
            made["messaging.destination.partition.id"] = str(command.part)
        return made

    def attempt(self, command: Any, attempt: int, outcome: str, wait: WaitByCause) -> dict[str, Any]:
        """Attributes of the span of an attempt."""
        attributes = self.of(command, "process")
        policy = command._options.retry or command.home.config.retry  # noqa: SLF001 - the queue's own record
        attributes["lane.attempt"] = attempt
        attributes["lane.max_attempts"] = policy.max_retries + 1
        attributes["lane.worker"] = self.member or self._process
        attributes["lane.outcome"] = outcome
        add_wait(attributes, wait)
        return attributes


def add_wait(attributes: dict[str, Any], wait: WaitByCause) -> None:
    """Adds the wait in seconds, and its causes where they are not zero."""
    attributes["lane.queue.wait"] = wait.total
    for cause, name in _WAITS:
        seconds = getattr(wait, cause)
        if seconds:
            attributes[name] = seconds
