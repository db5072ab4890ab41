"""The conformance suite of brokers: what a queue of many members relies on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.distributed.port import Broker
from lane_obs.testing.broker import ages, ends, intake, leases, letters, limits, order, parts, results, wakes
from lane_obs.testing.broker.trial import BrokerOnTrial, Trial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lane_obs.clock import Clock

__all__ = ["BROKER_CHECKS", "BrokerOnTrial", "check_broker"]

_CHECKS: Final[dict[str, Callable[[Trial], Awaitable[None]]]] = {
    check.__name__: check
    for module in (intake, order, ages, limits, parts, leases, results, ends, letters, wakes)
    for check in module.CHECKS
}
BROKER_CHECKS: Final = tuple(_CHECKS)
"""The names of all checks, for a test of each."""


async def check_broker(
    make: Callable[[str], BrokerOnTrial],
    *,
    lease: float,
    result_ttl: float,
    clock: Clock | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """Checks that a broker keeps to what `Broker` says. Each check has a queue of its own, which is left behind empty.

    Await this inside a test; in virtual time, within `clock.run`.

    Args:
        make: makes a member, not open yet, of the queue of the name that is given; all calls with one name give
            members of one queue. Besides `Broker` a member has `stop_beat()` and `start_beat()`: it does not renew its
            lease in between.
        lease: that of the members, in seconds; 1 is enough on a busy machine.
        result_ttl: that of the members, in seconds; 1 keeps the checks quick.
        clock: the clock of the members; `None` for real time.
        only: the names of the checks to run, out of `BROKER_CHECKS`; `None` for all.

    Raises:
        AssertionError: what the broker does wrong.
    """
    for name in BROKER_CHECKS if only is None else only:
        trial = Trial(make, clock or SystemClock(), lease=lease, result_ttl=result_ttl)
        broker: Any = make(trial.queue)
        assert isinstance(broker, Broker), f"{broker!r} lacks something that Broker has"
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(trial.close)
            await _CHECKS[name](trial)
