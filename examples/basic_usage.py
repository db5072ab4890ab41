"""A command as a class, submitted to one of the six default lanes."""

from __future__ import annotations

import lane_obs
from lane_obs import Command, EventEmitter, QueueManagerBuilder


class MyCommand(Command[dict[str, str]]):
    command_type = "my_command"

    def __init__(self, data: str) -> None:
        self.data = data

    async def execute(self) -> dict[str, str]:
        return {"processed": self.data}


async def main() -> None:
    emitter = EventEmitter(100)
    manager = QueueManagerBuilder(emitter).with_default_lanes().build()
    await manager.start()

    handle = await manager.submit("query", MyCommand("hello"))
    result = await handle
    print(f"Result: {result}")

    await manager.stop()  # shut down, drain, close; `async with` does this by itself


if __name__ == "__main__":
    lane_obs.run(main())
