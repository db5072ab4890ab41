"""What an alert looks at, said once: each expression gives its PromQL, and its values from the monitor's own samples.

Both come out the same: an expression never says anything that only one of the two can work out.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.metrics import Metric

Labels: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Label names, each with the values that are added up; a label that is not named is added up whole."""

NONE: Final = -math.inf
"""No value: it is above no level, as a series that Prometheus does not have. NaN would also spoil a `max`."""


Per: TypeAlias = Literal["lane", "queue"]
"""One value for each lane, or one for the whole queue."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One thing to read: a metric of the catalogue, narrowed by its labels.

    Args:
        metric: of the catalogue.
        labels: which values of its labels besides `lane`.
        fold: what makes one value of all lanes'.
    """

    metric: Metric
    labels: Labels = ()
    fold: Literal["sum", "max"] = "sum"

    @property
    def is_of_lanes(self) -> bool:
        """Whether each lane has a value."""
        return "lane" in self.metric.labels

    def selector(self, suffix: str = "", extra: str = "", window: str = "") -> str:
        """The series in PromQL; `extra` is one more matcher."""
        matchers = [f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'
                    for name, values in self.labels]  # fmt: skip
        inner = ", ".join([*matchers, *([extra] if extra else [])])
        braces = f"{{{inner}}}" if inner else ""
        return f"{self.metric.name}{suffix}{braces}{window}"

    def added_up(self, promql: str, per: Per) -> str:
        """`promql`, made one series for each lane or the queue."""
        away = [name for name in (*self.metric.labels, *self.metric.opt_in) if name != "lane"]
        if per == "queue" and self.is_of_lanes:
            away.insert(0, "lane")
        fold = self.fold if per == "queue" else "sum"
        return f"{fold} without ({', '.join(away)}) ({promql})" if away else promql


class Samples(Protocol):
    """What the monitor has read: for each leaf a column, with one value for each lane, or one for the queue."""

    def now(self, leaf: Leaf, per: Per) -> Sequence[Any]:
        """The values of this moment."""
        ...

    def before(self, leaf: Leaf, per: Per, seconds: float) -> tuple[Sequence[Any] | None, float]:
        """The oldest values that are no older than `seconds`, `None` when there are none; and the seconds of a rate."""
        ...


class Expression(abc.ABC):
    """Something that has a value for each lane, or for the queue."""

    @abc.abstractmethod
    def promql(self, per: Per) -> str:
        """It in PromQL, without matchers for lanes."""

    @abc.abstractmethod
    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """Its values now; `NONE` where it has none."""

    @abc.abstractmethod
    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """What must be read for it, each with how many seconds of it must be kept; 0 for the present value only."""


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them, to a millisecond: `5m`, `1h30m`, `250ms`; what is shorter is `1ms`."""
    left = max(round(seconds * 1000), 1) if seconds else 0
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def exact(value: float) -> str:
    """A number as PromQL reads it, to the last bit."""
    return repr(value).removesuffix(".0")


@dataclasses.dataclass(frozen=True, slots=True)
class Gauge(Expression):
    """The present value."""

    leaf: Leaf

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        return self.leaf.added_up(self.leaf.selector(), per)

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        return samples.now(self.leaf, per)

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield self.leaf, 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Rate(Expression):
    """By how much a counter rose, each second of a window; or in all of the window."""

    leaf: Leaf
    window: float
    in_all: bool = False

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        series = self.leaf.selector(window=f"[{duration(self.window)}]")
        return self.leaf.added_up(f"{'increase' if self.in_all else 'rate'}({series})", per)

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        now = samples.now(self.leaf, per)
        before, age = samples.before(self.leaf, per, self.window)
        if before is None:
            return [NONE] * len(now)
        risen = map(operator.sub, now, before)
        return list(risen) if self.in_all else [value / age for value in risen]

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield self.leaf, self.window


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio(Expression):
    """One divided by another; no value where that is `least` or below."""

    part: Expression
    whole: Expression
    least: float = 0.0

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        return f"{self.part.promql(per)} / ({self.whole.promql(per)} > {exact(self.least)})"

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        least = self.least
        pairs = zip(self.part.values(samples, per), self.whole.values(samples, per), strict=True)
        return [part / whole if whole > least else NONE for part, whole in pairs]

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield from self.part.parts()
        yield from self.whole.parts()


@dataclasses.dataclass(frozen=True, slots=True)
class Scaled(Expression):
    """An expression divided by a number."""

    inner: Expression
    by: float

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        return f"({self.inner.promql(per)}) / {exact(self.by)}"

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        return [value / self.by for value in self.inner.values(samples, per)]

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        return self.inner.parts()


@dataclasses.dataclass(frozen=True, slots=True)
class While(Expression):
    """An expression that has a value only where another is zero."""

    inner: Expression
    still: Expression

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        return f"{self.inner.promql(per)} and ({self.still.promql(per)} == 0)"

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        pairs = zip(self.inner.values(samples, per), self.still.values(samples, per), strict=True)
        return [value if moved == 0 else NONE for value, moved in pairs]

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield from self.inner.parts()
        yield from self.still.parts()
