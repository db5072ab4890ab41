"""What two brokers answered, and where that is not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_SAME: Final = 2e-6


def plain(answer: Any, known: Mapping[str, int]) -> Any:
    """An answer as plain data, with members by their numbers."""
    if isinstance(answer, msgspec.Struct):
        return {name: plain(getattr(answer, name), known) for name in answer.__struct_fields__}
    if isinstance(answer, str):
        return known.get(answer, answer)
    if isinstance(answer, Mapping):
        return {known.get(key, key): plain(value, known) for key, value in answer.items()}
    if isinstance(answer, Sequence) and not isinstance(answer, bytes):
        return [plain(one, known) for one in answer]
    return answer


def numbers(stats: Any) -> dict[str, Any]:
    """What stats must be the same in: not how far leases go."""
    members = ((one.id, one.works, one.concurrency, one.running) for one in stats.members)
    fields = {name: getattr(stats, name) for name in stats.__struct_fields__ if name not in {"members", "version"}}
    fields["ended"] = {state: count for state, count in stats.ended.items() if count}
    return {**fields, "members": {one[0]: one[1:] for one in members}}


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two answers are not the same."""
    if isinstance(one, float) and isinstance(other, float):
        return [] if abs(one - other) <= _SAME else [f"{at}: {one!r}, {other!r}"]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{at} {key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, pair in pairs for found in differences(*pair, f"{at} {number}")]
    return [] if one == other else [f"{at}: {one!r}, {other!r}"]
