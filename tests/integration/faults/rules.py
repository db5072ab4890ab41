"""The lanes of the fault tests, as plain numbers: the program makes configurations of them, the checks read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What a lane promises.

    Attributes:
        most: how many of its commands run at once, over all processes.
        rate: (commands, seconds, burst): at most `burst` and so many in each `seconds`; without a burst no `seconds`
            ever see more than `commands`.
        failures: how many attempts may fail.
        keyed: whether its commands have keys of which one lives at a time.
        parted: whether its commands are in partitions.
        delayed: whether its commands start later.
    """

    most: int
    rate: tuple[float, float, float | None] | None = None
    failures: int = 0
    keyed: bool = False
    parted: bool = False
    delayed: bool = False


RULES = {
    "line": Rule(1),
    "wide": Rule(6),
    "flaky": Rule(4, failures=3),
    "later": Rule(4, delayed=True),
    "keyed": Rule(4, keyed=True),
    "parted": Rule(6, parted=True),
    "bucket": Rule(4, rate=(60.0, 1.0, 6.0)),
    "window": Rule(4, rate=(25.0, 0.5, None)),
}
MOST = 10
"""How many commands run at once in all."""
KEYS = 6
PARTS = 5
RETRY_SECONDS = 0.02
