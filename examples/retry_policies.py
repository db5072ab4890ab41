"""Retries with exponential backoff, in virtual time: seven seconds of waiting pass at once."""

from __future__ import annotations

from datetime import timedelta

import lane_obs
from lane_obs import LaneConfig, MemorySink, QueueManager, RetryPolicy, VirtualClock


async def call_api() -> str:
    attempt = lane_obs.current().attempt
    if attempt < 4:
        raise ConnectionError(f"attempt {attempt} was refused")
    return f"attempt {attempt} went through"


async def main() -> None:
    # Exponential backoff: 3 retries, 1s -> 2s -> 4s. The default jitter would spread these delays.
    retry_policy = (
        RetryPolicy.exponential(3, jitter="none")
        .with_initial_delay(timedelta(seconds=1))
        .with_max_delay(timedelta(seconds=10))
    )
    config = LaneConfig(1, 5).with_retry_policy(retry_policy)

    clock, sink = VirtualClock(), MemorySink()
    async with QueueManager({"external-api": config}, clock=clock, sinks=[sink]) as manager:
        handle = await manager.submit("external-api", call_api)
        print(await clock.run(handle))
        print(f"waited {handle.wait_seconds} s, backoff {handle.wait_by_cause.backoff} s")
    for event in sink.of("queue.command.retry"):
        print(f"{event.payload['error']}; next one after {event.payload['delay_seconds']} s")


if __name__ == "__main__":
    lane_obs.run(main())
