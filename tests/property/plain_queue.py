"""A queue as simple as can be, on exact fractions: what the real one must start, and when.

At each instant it looks at all there is, over and over, until nothing more may start. It has none of the structures
of the real one: no heaps, no timers, no arrival times worked out ahead.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction


@dataclasses.dataclass(eq=False)
class PlainBucket:
    """A token bucket that is filled up to each instant at which somebody looks."""

    rate: Fraction
    burst: Fraction
    level: Fraction = Fraction(-1)
    at: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        self.level = self.burst

    def fill(self, now: Fraction) -> None:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now

    def wait(self, cost: Fraction, now: Fraction) -> Fraction:
        """How long until `cost` is there."""
        self.fill(now)
        return max(Fraction(0), (cost - self.level) / self.rate)

    def take(self, cost: Fraction, now: Fraction) -> None:
        self.fill(now)
        self.level -= cost

    def largest(self) -> Fraction:
        return self.burst


@dataclasses.dataclass(eq=False)
class PlainWindow:
    """At most `amount` within any `seconds`: it knows all that it let through."""

    amount: Fraction
    seconds: Fraction
    taken: list[tuple[Fraction, Fraction]] = dataclasses.field(default_factory=list)

    def wait(self, cost: Fraction, now: Fraction) -> Fraction:
        inside = [(at, part) for at, part in self.taken if at > now - self.seconds]
        left = self.amount - sum(part for _, part in inside)
        for at, part in inside:
            if left >= cost:
                break
            left += part
            waited = at + self.seconds - now
        return waited if inside and self.amount - sum(p for _, p in inside) < cost else Fraction(0)

    def take(self, cost: Fraction, now: Fraction) -> None:
        self.taken.append((now, cost))

    def largest(self) -> Fraction:
        return self.amount


@dataclasses.dataclass(eq=False)
class PlainCommand:
    number: int
    lane: str
    at: Fraction
    seconds: Fraction
    cost: Fraction = Fraction(1)
    key: str | None = None
    started: Fraction | None = None


@dataclasses.dataclass(eq=False)
class PlainLane:
    priority: int
    slots: int
    limits: list[PlainBucket | PlainWindow]
    keyed: bool = False
    held: tuple[int, PlainBucket | PlainWindow] | None = None
    """The command that has to wait, and the limit at which it does, until that lets it through."""


def play(lanes: dict[str, PlainLane], commands: list[PlainCommand]) -> list[tuple[int, Fraction]]:
    """Runs all commands; gives their numbers with the times of their starts, in the order of the starts."""
    waiting = sorted(commands, key=lambda command: (command.at, command.number))
    running: list[PlainCommand] = []
    ready: list[PlainCommand] = []
    starts: list[tuple[int, Fraction]] = []
    now = Fraction(0)
    while waiting or ready or running:
        running = [command for command in running if _end(command) > now]
        while waiting and waiting[0].at <= now:
            ready.append(waiting.pop(0))
        due: list[Fraction] = []
        while (command := _next(lanes, ready, running, now, due)) is not None:
            command.started = now
            ready.remove(command)
            starts.append((command.number, now))
            for limit in lanes[command.lane].limits:
                limit.take(command.cost, now)
            running.append(command)
        later = [_end(command) for command in running] + [command.at for command in waiting[:1]] + due
        now = min((time for time in later if time > now), default=now)
        if not later:
            break
    return starts


def _end(command: PlainCommand) -> Fraction:
    assert command.started is not None
    return command.started + command.seconds


def _next(
    lanes: dict[str, PlainLane],
    ready: list[PlainCommand],
    running: list[PlainCommand],
    now: Fraction,
    due: list[Fraction],
) -> PlainCommand | None:
    """What starts next; `due` becomes the times at which a limit lets somebody through."""
    due.clear()
    spoken_for: list[PlainBucket | PlainWindow] = []
    for name, lane in sorted(lanes.items(), key=lambda item: item[1].priority):
        busy = {command.key for command in running if command.lane == name}
        if sum(command.lane == name for command in running) >= lane.slots:
            continue
        mine = sorted((command for command in ready if command.lane == name), key=lambda command: command.number)
        heads = [command for command in mine if not lane.keyed or command.key is None or command.key not in busy]
        if not heads:
            continue
        head = heads[0]
        if lane.held is not None and lane.held[0] == head.number and lane.held[1].wait(head.cost, now):
            due.append(now + lane.held[1].wait(head.cost, now))
            spoken_for.append(lane.held[1])
            continue
        lane.held = None
        waits = [limit.wait(head.cost, now) for limit in lane.limits]
        behind = any(wait == 0 and limit in spoken_for for wait, limit in zip(waits, lane.limits, strict=True))
        if not behind and not any(waits):
            return head
        if any(waits):
            longest = max(range(len(waits)), key=lambda index: (waits[index], -index))
            due.append(now + waits[longest])
            spoken_for.append(lane.limits[longest])
            lane.held = head.number, lane.limits[longest]
    return None
