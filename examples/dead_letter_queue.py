"""Commands that failed for good are kept, can be looked at, and can be given another life."""

from __future__ import annotations

import asyncio

import lane_obs
from lane_obs import CommandQueue, DeadLetterQueue, EventEmitter

database = {"up": False}


async def save(row: int) -> str:
    if not database["up"]:
        raise ConnectionError(f"row {row}: the database is down")
    return f"row {row} saved"


async def main() -> None:
    dlq = DeadLetterQueue(1000)  # at most 1000 letters; the oldest gives way and is counted
    queue = CommandQueue.with_dlq(EventEmitter(100), dlq)
    await queue.start()

    handles = [await queue.submit("skill", save, row) for row in (1, 2)]
    await asyncio.gather(*handles, return_exceptions=True)
    for letter in dlq.list():
        print(f"Failed: {letter.command_type} - {letter.error}")

    database["up"] = True
    for letter in dlq:
        print(await dlq.requeue(letter.id))
    print(f"{len(dlq)} dead letters left")


if __name__ == "__main__":
    lane_obs.run(main())
