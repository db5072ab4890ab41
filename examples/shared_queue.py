"""One queue for a web process and two workers; in one program here, to be seen at once.

python examples/shared_queue.py                           # a broker in memory
python examples/shared_queue.py redis://127.0.0.1:6379    # the same at a server, as in production
"""

import asyncio
import sys
from contextlib import AsyncExitStack

import lane_obs
from lane_obs import LaneConfig, QueueManager, RemoteError, RetryPolicy
from lane_obs.distributed import Broker, LocalBroker, RedisBroker

LANES = {
    "urgent": LaneConfig(1, 2, priority=0),
    "mail": LaneConfig(1, 4, priority=5, retry=RetryPolicy.fixed(1, 0.01)),
}


@lane_obs.command("mail.send")
async def send(to: str) -> str:
    if "@" not in to:
        raise ValueError(f"no address: {to}")
    return f"sent to {to}"


def brokers(count: int) -> list[Broker]:
    """So many members of one queue."""
    if len(sys.argv) > 1:
        return [RedisBroker(sys.argv[1], queue="example") for _ in range(count)]
    first = LocalBroker("example")
    return [first, *(first.join() for _ in range(count - 1))]


async def main() -> None:
    ours, *others = brokers(3)
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(QueueManager(LANES, broker=ours, work=False))
        for other in others:
            await stack.enter_async_context(QueueManager(LANES, broker=other))

        handles = await web.submit_many("mail", [(send, f"reader{number}@example.org") for number in range(3)])
        print(await asyncio.gather(*handles))

        bad = await web.submit("urgent", send, "nobody")
        try:
            await bad
        except RemoteError as error:
            print(error.error_type, "-", error.error)
        print([letter.command_type for letter in await web.cluster.letters()])
        print(await web.cluster.remove_letters(), "dead letter removed")


lane_obs.run(main())
