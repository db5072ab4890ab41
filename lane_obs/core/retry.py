"""Whether a failed attempt is tried again, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lane_obs.config import Jitter
from lane_obs.errors import RetryAfter

if TYPE_CHECKING:
    from lane_obs.config import RetryPolicy


def may_retry(policy: RetryPolicy, attempt: int, error: BaseException) -> bool:
    """Tells whether attempt number `attempt` (from 1), which ended in `error`, is followed by another."""
    if attempt > policy.max_retries or isinstance(error, policy.give_up_on):
        return False
    return isinstance(error, (RetryAfter, *policy.retry_on))


def delay_before_retry(policy: RetryPolicy, attempt: int, error: BaseException, spread: float) -> float:
    """Seconds between the failure of attempt `attempt` (from 1) and the next one.

    Args:
        policy: the policy in force.
        attempt: number of the failed attempt.
        error: what it failed with; a `RetryAfter` decides by itself.
        spread: a random number in [0, 1) for the jitter.
    """
    if isinstance(error, RetryAfter):
        return error.seconds
    full = _full_delay(policy, attempt)
    return full * spread if policy.jitter is Jitter.FULL else full


def _full_delay(policy: RetryPolicy, attempt: int) -> float:
    first, cap = float(policy.initial_delay), float(policy.max_delay)  # type: ignore[arg-type]
    if first == 0 or first >= cap:
        return min(first, cap)
    # The power is taken only where it cannot overflow: beyond the cap's exponent the answer is the cap.
    grown = (attempt - 1) * math.log(policy.multiplier)
    return cap if grown >= math.log(cap) - math.log(first) else min(cap, first * math.exp(grown))
