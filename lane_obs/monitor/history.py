"""What the monitor has read: the present, and as much of the past as its rules look back at."""

from __future__ import annotations

from collections import deque
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.alerts.expression import Expression, Leaf, Per

Column: TypeAlias = "Sequence[Any]"
Layout: TypeAlias = "tuple[int, ...]"

_MOST_POINTS: Final = 60
"""Of each window this many points are kept at most: a window is then too short by a sixtieth at worst."""


class History:
    """Columns of numbers, read at each look and kept for as long as expressions need them. It is a `Samples`.

    A histogram's column has pairs of bounds and counts.

    Args:
        wanted: the expressions to be worked out, and for what.
        read: gives the column of a leaf, one value for each lane, or one for the queue.
        read_removed: gives what a leaf has counted in lanes that are gone.
    """

    def __init__(
        self,
        wanted: Iterable[tuple[Expression, Per]],
        read: Callable[[Leaf], Column],
        read_removed: Callable[[Leaf], Column],
    ) -> None:
        self._read = read
        self._read_removed = read_removed
        self._layout: Layout = ()
        self._leaves: dict[tuple[Leaf, Per], None] = {}
        windows: dict[float, dict[tuple[Leaf, Per], None]] = {}
        for expression, per in wanted:
            for leaf, window in expression.parts():
                self._leaves[leaf, per] = None
                if window:
                    windows.setdefault(window, {})[leaf, per] = None
        self._rings = {window: _Ring(window, tuple(keys)) for window, keys in windows.items()}
        self._columns: dict[tuple[Leaf, Per], Column] = {}
        self._at = self._step = 0.0

    def take(self, now: float, layout: Layout) -> None:
        """Reads everything.

        Args:
            now: this moment, in the clock's seconds.
            layout: which lanes the columns have, in order; see `Source`.
        """
        whole: dict[Leaf, Column] = {}
        columns: dict[tuple[Leaf, Per], Column] = {}
        for leaf, per in self._leaves:
            column = whole.get(leaf)
            if column is None:
                column = whole[leaf] = self._read(leaf)
            if per == "queue" and leaf.is_of_lanes:
                column = _folded([*column, *self._read_removed(leaf)], leaf)
            columns[leaf, per] = column
        self._step = now - self._at
        self._layout = layout
        self._columns, self._at = columns, now
        for ring in self._rings.values():
            ring.add(now, layout, columns)

    def now(self, leaf: Leaf, per: Per) -> Column:
        """The values read last."""
        return self._columns[leaf, per]

    def before(self, leaf: Leaf, per: Per, seconds: float) -> tuple[Column | None, float]:
        """The oldest values that are no older than `seconds`, and what a difference to them is to be divided by.

        That is their age, or, while there are not so many seconds of history, more: `rate` of Prometheus takes a
        series to have begun half a step before its first sample, and to have stood still in the rest of the window.
        """
        at, layout, columns = self._rings[seconds].oldest()
        age = self._at - at
        if age <= 0:
            return None, 0.0
        column = columns[leaf, per]
        if layout is not self._layout and per == "lane" and leaf.is_of_lanes:
            column = _laid_out(column, layout, self._columns[leaf, per], self._layout)
        return column, age * seconds / min(seconds, age + self._step)


class _Ring:
    """The past of one window."""

    def __init__(self, window: float, keys: tuple[tuple[Leaf, Per], ...]) -> None:
        self._window = window
        self._keys = keys
        self._points: deque[tuple[float, Layout, dict[tuple[Leaf, Per], Column]]] = deque()

    def add(self, now: float, layout: Layout, columns: dict[tuple[Leaf, Per], Column]) -> None:
        points = self._points
        if not points or now - points[-1][0] >= self._window / _MOST_POINTS:
            points.append((now, layout, {key: columns[key] for key in self._keys}))
        while points[0][0] < now - self._window and len(points) > 1:
            points.popleft()

    def oldest(self) -> tuple[float, Layout, dict[tuple[Leaf, Per], Column]]:
        return self._points[0]


def _laid_out(column: Column, layout: Layout, now: Column, wanted: Layout) -> list[Any]:
    """A column of the past in the order of the present lanes; one that was not there began at zero."""
    past = dict(zip(layout, column, strict=True))
    return [past[lane] if lane in past else _zero(value) for lane, value in zip(wanted, now, strict=True)]


def _zero(value: Any) -> Any:
    return (value[0], [0] * len(value[1])) if isinstance(value, tuple) else 0


def _folded(column: Column, leaf: Leaf) -> Column:
    """The column of a queue: one value of all lanes'."""
    if leaf.metric.kind == "histogram":
        return [_merged(column)]
    return [max(column, default=0.0) if leaf.fold == "max" else sum(column)]


def _merged(column: Column) -> tuple[tuple[float, ...], list[int]]:
    """One histogram of several, over the bounds that they share, which is what adding up `le` by `le` gives."""
    same = {bounds for bounds, _ in column}
    if not same:
        return (), [0]
    if len(same) == 1:
        return same.pop(), [sum(counts) for counts in zip(*(counts for _, counts in column), strict=True)]
    shared = tuple(sorted(set.intersection(*(set(bounds) for bounds in same))))
    return shared, [sum(parts) for parts in zip(*starmap(lambda b, c: _rebinned(b, c, shared), column), strict=True)]


def _rebinned(bounds: Sequence[float], counts: Sequence[int], shared: Sequence[float]) -> list[int]:
    rebinned, bucket = [0] * (len(shared) + 1), 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        while bucket < len(shared) and bound > shared[bucket]:
            bucket += 1
        rebinned[bucket] += count
    return rebinned
