"""Renders a registry as text, in slices: between two of them other threads get the interpreter.

The text is that of prometheus_client, byte for byte. Rendered at once, a thousand series would keep an event loop in
another thread waiting for 5 ms and more: that is how long Python lets a thread compute before it makes it give way.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.samples import Sample

SLICE: Final = 100
"""Samples rendered at once: about a millisecond's work."""

# More than zero: a thread that merely offers the interpreter mostly has it back before the one that waits is awake.
_PAUSE: Final = 0.0001
# The classic text has these samples of a family at its end, as gauges of their own.
_SET_APART: Final = ("_created", "_gcount", "_gsum")


class Exposition(NamedTuple):
    """What a scrape gets."""

    text: bytes
    content_type: str


def render(registry: Collector, accept: str = "", pause: Callable[[], None] = lambda: time.sleep(_PAUSE)) -> Exposition:
    """Renders all metrics of a registry in the format that fits the `Accept` header best.

    Args:
        registry: whatever has `collect()`.
        accept: the header's value; the classic text unless it names OpenMetrics.
        pause: called after every `SLICE` samples or so.
    """
    encode, content_type = _encoder(accept)
    parts = []
    for part in slices(registry, encode):
        parts.append(part)
        pause()
    return Exposition(b"".join(parts), content_type)


def slices(registry: Collector, encode: Callable[[Collector], bytes]) -> Iterator[bytes]:
    """Renders a registry in pieces of `SLICE` samples at most, which together are what `encode` makes of it.

    Args:
        registry: whatever has `collect()`.
        encode: one of prometheus_client's `generate_latest` functions.
    """
    end = encode(_Families(()))  # OpenMetrics has a last line; in each piece it would be one too many
    small: list[Metric] = []
    room = SLICE
    for family in registry.collect():
        cost = max(len(family.samples), 1)
        if small and cost > room:
            yield encode(_Families(small)).removesuffix(end)
            small, room = [], SLICE
        if cost > SLICE:
            yield from (text.removesuffix(end) for text in _pieces(family, encode, end))
        else:
            small.append(family)
            room -= cost
    yield encode(_Families(small))


class _Families:
    """As much of a registry as an encoder asks for."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _pieces(family: Metric, encode: Callable[[Collector], bytes], end: bytes) -> Iterator[bytes]:
    """Renders a large family in pieces; the lines that tell of the family stand in the first one only."""
    head = encode(_Families([_with(family, [])])).removesuffix(end)
    yield head
    for group in [family.samples] if end else _groups(family):
        for start in range(0, len(group), SLICE):
            text = encode(_Families([_with(family, group[start : start + SLICE])])).removesuffix(end)
            text = text.removeprefix(head)
            yield _without_comments(text) if start else text


def _groups(family: Metric) -> list[list[Sample]]:
    """The samples in the order of the classic text."""
    groups: dict[str, list[Sample]] = {"": [], **{suffix: [] for suffix in _SET_APART}}
    for sample in family.samples:
        suffix = sample.name.removeprefix(family.name) if sample.name.startswith(family.name) else ""
        groups[suffix if suffix in _SET_APART else ""].append(sample)
    return list(groups.values())


def _with(family: Metric, samples: list[Sample]) -> Metric:
    part = copy.copy(family)
    part.samples = samples
    return part


def _without_comments(text: bytes) -> bytes:
    """Takes off the lines before the first sample."""
    while text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is not one: prometheus_client compares it as it is
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
