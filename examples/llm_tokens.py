"""A lane for each tenant, and one limit on the tokens of a language model for all of them, in virtual time."""

from __future__ import annotations

import lane_obs
from lane_obs import LaneConfig, QueueManager, RateLimit, VirtualClock
from lane_obs.clock import sleep

# A bucket of 1,000 tokens that refills by 100 a second; a lane that names it takes from the same bucket.
TOKENS = RateLimit.shared("model", RateLimit.per_minute(6_000, burst=1_000))
TENANTS = ("anna", "bert")
PROMPTS = ((600, 500), (600, 200), (600, 900))  # estimated before the call, and counted by the model after it


async def main() -> None:
    clock = VirtualClock(start=0.0)

    async def ask(tenant: str, number: int, tokens: int) -> None:
        print(f"{clock.now():4.1f} s {tenant}{number} starts")
        await sleep(clock, 0.5)  # the call of the model, whose answer says how many tokens it has taken
        lane_obs.current().settle(tokens)  # what was estimated too much comes back, what was too little is owed

    async with QueueManager({"other": LaneConfig(0, 4)}, clock=clock) as manager:
        for tenant in TENANTS:
            manager.add_lane(tenant, LaneConfig(0, 2, rate_limit=TOKENS))  # while the queue works
        handles = [
            await manager.submit(tenant, ask, tenant, number, counted, cost=estimated)
            for tenant in TENANTS
            for number, (estimated, counted) in enumerate(PROMPTS, 1)
        ]
        for handle in handles:
            await clock.run(handle)
        for tenant in TENANTS:
            waited = sum(handle.wait_by_cause.rate_limit for handle in handles if handle.lane == tenant)
            print(f"{tenant} waited {waited:.1f} s for tokens")
            await manager.remove_lane(tenant)


if __name__ == "__main__":
    lane_obs.run(main())
