"""How waiting commands become more important as their deadline comes near or as they age."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, TypeAlias

from lane_obs.config.check import Duration, to_count, to_seconds
from lane_obs.errors import ConfigError

Steps: TypeAlias = tuple[tuple[float, int], ...]
"""`(share of the deadline that is left, by how much the priority falls)`, the largest share first."""

_STANDARD: Final[Steps] = ((0.75, 1), (0.5, 2), (0.25, 3), (0.1, 4))
_AGGRESSIVE: Final[Steps] = ((0.8, 2), (0.6, 4), (0.4, 6), (0.2, 8))
# An age is a difference of two clock readings: after years of uptime it is off by some tenths of a microsecond. A
# timer set for the next change must find it made, so a change counts as reached this much before.
_SLACK: Final = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PriorityBoost:
    """How much a waiting command's priority falls, and when. Made by one of its class methods.

    A command's effective priority is its lane's priority less the boost, but never less than `floor`, or than the
    lane's priority where that is lower. Changes are made to a microsecond.

    Args:
        steps: pairs of (share of the deadline that is left, by how much); shares from 0 to 1, each smaller than the
            one before; boosts whole numbers of 1 or more, each larger than the one before.
        deadline: deadline of the lane's commands that have none of their own, in seconds from submit; `None`
            (default): such commands are not boosted.
        every: with ageing, seconds of age for each further boost, a microsecond or more.
        by: with ageing, by how much each time, a whole number of 1 or more; default 1.
        floor: no boost takes a command below it; any whole number, default 0.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    steps: Steps = ()
    deadline: Duration | None = None
    every: Duration | None = None
    by: int = 1
    floor: int = 0

    def __post_init__(self) -> None:
        to_count("boost.by", self.by, minimum=1)
        if self.every is None:
            object.__setattr__(self, "steps", _to_steps(self.steps))
            if self.deadline is not None:
                object.__setattr__(self, "deadline", to_seconds("boost.deadline", self.deadline))
            if self.by != 1:
                raise ConfigError("boost.by", self.by, "leave it out: without every, the steps decide")
        else:
            object.__setattr__(self, "every", _to_interval(self.every))
            for field, none in (("steps", ()), ("deadline", None)):
                if (given := getattr(self, field)) != none:
                    raise ConfigError(f"boost.{field}", given, "leave it out: with every, the age alone decides")
        if isinstance(self.floor, bool) or not isinstance(self.floor, int):
            raise ConfigError("boost.floor", self.floor, "give a whole number; lower runs first")

    @classmethod
    def standard(cls, deadline: Duration | None = None, *, floor: int = 0) -> PriorityBoost:
        """Less 1, 2, 3 and 4 when 75, 50, 25 and 10 % of the deadline are left."""
        return cls(steps=_STANDARD, deadline=deadline, floor=floor)

    @classmethod
    def aggressive(cls, deadline: Duration | None = None, *, floor: int = 0) -> PriorityBoost:
        """Less 2, 4, 6 and 8 when 80, 60, 40 and 20 % of the deadline are left."""
        return cls(steps=_AGGRESSIVE, deadline=deadline, floor=floor)

    @classmethod
    def custom(cls, steps: Steps, deadline: Duration | None = None, *, floor: int = 0) -> PriorityBoost:
        """Steps of one's own: pairs of (share of the deadline that is left, by how much)."""
        return cls(steps=steps, deadline=deadline, floor=floor)

    @classmethod
    def ageing(cls, every: Duration, by: int = 1, *, floor: int = 0) -> PriorityBoost:
        """Less `by` for each `every` seconds since submit, deadline or not."""
        return cls(every=_to_interval(every), by=by, floor=floor)

    @property
    def is_ageing(self) -> bool:
        """Whether the age alone decides: commands of one lane keep their order then."""
        return self.every is not None

    def at(self, age: float, deadline: float | None = None) -> tuple[int, float]:
        """The boost at an age, before `floor`, and the age at which it changes next.

        Args:
            age: seconds since submit.
            deadline: the command's own deadline in seconds from submit; `None` for that of the boost.

        Returns:
            The boost, 0 or more, and the age of its next change; infinity for never.
        """
        reached = age + _SLACK
        if self.every is not None:
            every: float = self.every  # type: ignore[assignment]
            times = max(0, math.floor(reached / every))
            return times * self.by, (times + 1) * every
        whole: float | None = self.deadline if deadline is None else deadline  # type: ignore[assignment]
        boost = 0
        if whole is not None:
            for share, less in self.steps:
                due = whole * (1 - share)
                if reached < due:
                    return boost, due
                boost = less
        return boost, math.inf

    def level(self, priority: int, age: float, deadline: float | None = None) -> tuple[int, float]:
        """The effective priority at an age, and the age at which it changes next.

        Args:
            priority: of the command's lane.
            age: seconds since submit.
            deadline: as for `at`.

        Returns:
            The effective priority, and the age of its next change; infinity once it has fallen as far as it may.
        """
        if self.every is None:  # nearly always asked for at a submit
            whole: float | None = self.deadline if deadline is None else deadline  # type: ignore[assignment]
            if whole is None or self.floor >= priority:
                return priority, math.inf
            due = whole * (1 - self.steps[0][0])
            if age + _SLACK < due:
                return priority, due
        boost, change = self.at(age, deadline)
        level = priority - boost
        lowest = self.floor if self.floor < priority else priority  # `min` takes longer
        return (level, change) if level > lowest else (lowest, math.inf)

    def bound(self, priority: int, other: int, deadline: float | None = None) -> float:
        """The age from which a command of `priority` is at least as important as one of priority `other`.

        With ageing it is `every * ceil((priority - other) / by)`: whatever is submitted to a lane of priority
        `other` after that, aged alike or not at all, never gets a lower effective priority than this command.

        Args:
            priority: of the command's lane.
            other: the priority to reach.
            deadline: as for `at`.

        Returns:
            Seconds since submit; infinity when it never gets there, because of `floor` for example.
        """
        if other >= priority:
            return 0.0
        if min(self.floor, priority) > other:
            return math.inf
        if self.every is not None:
            return float(self.every) * -((other - priority) // self.by)  # type: ignore[arg-type]
        whole: float | None = self.deadline if deadline is None else deadline  # type: ignore[assignment]
        shares = [share for share, less in self.steps if less >= priority - other]
        return whole * (1 - shares[0]) if shares and whole is not None else math.inf


def _to_interval(value: object) -> float:
    seconds = to_seconds("boost.every", value)
    if seconds < _SLACK:
        raise ConfigError("boost.every", value, "give a microsecond or more")
    return seconds


def _to_steps(value: object) -> Steps:
    wanted = "give one or more pairs of (share of the deadline that is left, by how much)"
    if not isinstance(value, tuple | list) or not value:
        raise ConfigError("boost.steps", value, wanted)
    steps: list[tuple[float, int]] = []
    for item in value:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError("boost.steps", item, wanted)
        share, less = item
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigError("boost.steps", share, "give a share of the deadline from 0 to 1")
        to_count("boost.steps", less, minimum=1)
        if steps and share >= steps[-1][0]:
            raise ConfigError("boost.steps", share, f"give a share below the one before, which is {steps[-1][0]}")
        if steps and less <= steps[-1][1]:
            raise ConfigError("boost.steps", less, f"give a boost above the one before, which is {steps[-1][1]}")
        steps.append((float(share), less))
    return tuple(steps)
