"""How promtool writes series, and Prometheus's templates numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from lane_obs.alerts.prometheus import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MINUTE: Final = 60


def one_series(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    """An entry of `input_series`."""
    inner = ", ".join(f"{label}={quoted(value)}" for label, value in labels.items())
    return {"series": f"{name}{{{inner}}}", "values": values}


def steady(amounts: Sequence[float], steps: Sequence[int]) -> str:
    """Values that stay: each amount for so many steps."""
    return " ".join(f"{_plain(amount)}+0x{count - 1}" for amount, count in zip(amounts, steps, strict=True))


def rising(rises: Sequence[float], steps: Sequence[int]) -> str:
    """Values that rise from zero: by so much at each of so many steps."""
    parts, so_far = [], 0.0
    for rise, count in zip(rises, steps, strict=True):
        parts.append(f"{_plain(so_far)}+{_plain(rise)}x{count - 1}")
        so_far += rise * count
    return " ".join(parts)


def _plain(number: float) -> str:
    return f"{Decimal(repr(number)):f}".removesuffix(".0")


def humanized(value: float, unit: str) -> str:
    """A value as the templates of alerts write it, by its unit: `seconds`, `ratio` or nothing."""
    if unit == "ratio":
        return f"{value * 100:.4g}%"
    if unit == "seconds" and value >= _MINUTE:
        return _long(int(value))
    end = "s" if unit == "seconds" else ""
    if not value:
        return f"0{end}"
    if value >= 1:
        places = 0 if unit == "seconds" else min(int(math.log10(value) // 3), 8)
        return f"{value / 1000**places:.4g}{' kMGTPEZY'[places].strip()}{end}"
    places = -int(math.log10(value) // 3)
    return f"{value * 1000**places:.4g}{' munpfazy'[places]}{end}"


def _long(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h {minutes}m {seconds}s"
    return f"{hours}h {minutes}m {seconds}s" if hours else f"{minutes}m {seconds}s"
