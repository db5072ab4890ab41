"""How long a member waits before it asks a broker again that denied an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import RetryPolicy
from lane_obs.core.retry import delay_before_retry

if TYPE_CHECKING:
    from lane_obs.errors import BrokerError

_PACE: Final = RetryPolicy(initial_delay=0.1, max_delay=10.0, jitter="none")


def delay_after_denial(tries: int, error: BrokerError) -> float:
    """Seconds until it asks again, after `tries` denials (from 1) the last of which was `error`."""
    return delay_before_retry(_PACE, tries, error, 0.0)
