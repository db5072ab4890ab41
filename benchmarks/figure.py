"""What a comparison yields: figures, each with its budget."""

from __future__ import annotations

import dataclasses
import gc
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything is measured."""

    commands: int = 100_000
    """Commands of a throughput run, commands over all lanes, prompts ahead of a control command."""
    pending: int = 1_000_000
    shallow: int = 1_000
    """The few pending commands that many are compared with."""
    lanes: int = 10_000
    samples: int = 1_000
    """Commands submitted to an idle queue."""
    idle_seconds: float = 1.0
    rounds: int = 5
    peer_commands: int = 300
    """Commands and samples of the slow peer."""
    scrapes: int = 200
    """Scrapes of the metrics, over HTTP and rendered only."""
    judged: bool = True

    @classmethod
    def quick(cls) -> Sizes:
        """A twentieth of everything: shows that it runs, proves nothing."""
        return cls(5_000, 50_000, 1_000, 500, 50, 0.2, 2, 15, 10, judged=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        row: which row of the budget table it belongs to.
        what: what was measured.
        ours: our value.
        against: the value it is compared with.
        peer: what that value belongs to.
        unit: of both values.
        ratio: the number that the budget is about, if it is one of the two values' ratios.
        budget: the budget in words; empty for a figure that is shown for information.
        holds: whether the budget is met; `None` when there is none or it is not judged.
    """

    row: str
    what: str
    ours: float | None
    unit: str
    against: float | None = None
    peer: str = ""
    ratio: float | None = None
    budget: str = ""
    holds: bool | None = None

    def unjudged(self) -> Figure:
        """The same with no verdict."""
        return dataclasses.replace(self, holds=None)


def at_least(budget: float, ratio: float) -> tuple[str, bool]:
    """A budget in words, and whether the ratio is not below it."""
    return f"at least {budget:g}", ratio >= budget


def at_most(budget: float, value: float, unit: str = "") -> tuple[str, bool]:
    """A budget in words, and whether the value is not above it."""
    return f"at most {budget:g} {unit}".rstrip(), value <= budget


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)] if ordered else math.nan


def best_of(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of what each contestant gives in several rounds.

    All take part in every round, in turned order every other round, so that a slow spell of the machine meets
    each of them. The least counts, because whatever else runs on a machine only ever adds to a time.
    """
    found = dict.fromkeys(contestants, math.inf)
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            gc.collect()
            found[name] = min(found[name], contestants[name]())
    return found
