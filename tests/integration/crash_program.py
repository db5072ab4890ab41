"""A nursery of processes that live to be killed: it forks each from itself, warmed up, and kills it when it is told to.

It reads one life a line from its standard input, as JSON, and answers each with a line once that life is over. What a
life saw stands in a ledger: lines that are written with one `write` each, which outlives a SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lane_obs.storage.sqlite.writer  # noqa: F401 - loads SQLite before the first fork
from lane_obs import DeadLetterQueue, LaneConfig, MemorySink, QueueManager, RetryPolicy, command, current
from lane_obs.runtime.run import loop_factory
from lane_obs.storage import LocalStorage
from lane_obs.storage.sqlite import check, file, migration

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

MANY = 1_000_000
LANES = {
    "line": LaneConfig(0, 1, max_crashes=MANY),
    "wide": LaneConfig(0, 4, max_crashes=MANY),
    "flaky": LaneConfig(0, 4, max_crashes=MANY, retry=RetryPolicy.fixed(3, 0.002)),
    "dying": LaneConfig(0, 4, max_crashes=MANY, retry=RetryPolicy.fixed(1, 0.001)),
    "later": LaneConfig(0, 4, max_crashes=MANY),
    "keyed": LaneConfig(0, 4, max_crashes=MANY),
    "once": LaneConfig(0, 2, on_crash="dead_letter"),
    "poison": LaneConfig(0, 1, max_crashes=2),
}
SUBMITTERS = 8
OUTSTANDING = 48
KEYS = 12
UP = b"u"


class Ledger:
    """Where a life writes down what it sees, before or after the fact."""

    def __init__(self) -> None:
        self._file = -1
        self._life = 0

    def open(self, path: str, life: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._life = life

    def note(self, what: str, **fields: Any) -> None:
        line = json.dumps({"what": what, "life": self._life, **fields})
        os.write(self._file, f"\n{line}\n".encode())  # begins anew, should the life before have ended within a line


ledger = Ledger()


@command("crash.work")
async def work(name: str, fails: int, seconds: float) -> str:
    """Ends well from the attempt after `fails` on."""
    me = current()
    ledger.note("start", id=me.id, name=name, lane=me.lane, attempt=me.attempt)
    if seconds:
        await asyncio.sleep(seconds)
    if me.attempt <= fails:
        raise ConnectionError(name)
    ledger.note("finish", id=me.id)
    return name


@command("crash.poison")
async def poison(name: str) -> None:
    """Kills its process in its first step."""
    ledger.note("start", id=current().id, name=name, lane="poison", attempt=current().attempt)
    os.kill(os.getpid(), signal.SIGKILL)


class Life:
    """One process with a queue on a folder."""

    def __init__(self, folder: str, seed: int, durability: str) -> None:
        self.rng = random.Random(seed)
        self.sink = MemorySink()
        storage = LocalStorage(folder, durability=durability)
        letters = DeadLetterQueue(MANY)
        self.manager = QueueManager(LANES, storage=storage, dead_letters=letters, sinks=[self.sink])
        self._room = asyncio.Semaphore(OUTSTANDING)
        self._waiters: set[asyncio.Task[None]] = set()

    async def traffic(self, up: Callable[[], None], number: int) -> None:
        """Submits until it is killed."""
        await self.manager.start()
        up()  # the storage is open; what it holds is being read
        await asyncio.gather(*(self._submitter(f"{number}.{who}") for who in range(SUBMITTERS)))

    async def _submitter(self, who: str) -> None:
        for number in range(MANY):
            await self._room.acquire()
            await self._submit(f"{who}.{number}")

    async def _submit(self, name: str) -> None:
        lane = self.rng.choice([lane for lane in LANES if lane != "poison"])
        fails = {"flaky": self.rng.randrange(3), "dying": MANY}.get(lane, 0)
        options: dict[str, Any] = {"delay": self.rng.random() * 0.05} if lane == "later" else {}
        if lane == "keyed":
            options["key"] = f"key-{self.rng.randrange(KEYS)}"
        if self.rng.random() < 0.1:
            options |= {"timeout": 60.0, "deadline": 3600.0}
        seconds = self.rng.choice((0.0, 0.0, 0.001, 0.003))
        ledger.note("ask", name=name, lane=lane)
        handle = await self.manager.submit(lane, work, name, fails, seconds, **options)
        ledger.note("ack", id=handle.id, name=name, lane=lane, key=options.get("key"))
        waiter = asyncio.ensure_future(self._wait(handle))
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)

    async def _wait(self, handle: Any) -> None:
        with contextlib.suppress(ConnectionError):
            await handle
        ledger.note("result", id=handle.id, state=str(handle.state))
        self._room.release()

    async def drain(self, up: Callable[[], None]) -> None:
        """Takes nothing new and ends all there is."""
        await self.manager.start()
        up()
        recovered = await self.sink.wait_for("queue.recovery.complete")
        await self.manager.stop()
        failures = [event.payload for event in self.sink.of("queue.storage.failed")]
        ledger.note("drained", recovery=recovered.payload, failures=failures)

    async def poison(self, up: Callable[[], None]) -> None:
        """Takes a command that kills this process, unless an earlier life has."""
        await self.manager.start()
        up()
        recovered = await self.sink.wait_for("queue.recovery.complete")
        if not recovered.payload["recovered"] and not self.manager.dead_letters:
            handle = await self.manager.submit("poison", poison, "deadly")
            ledger.note("ack", id=handle.id, name="deadly", lane="poison", key=None)
        await self.manager.drain()
        await self.manager.stop()


def slow_step(connection: Any) -> None:
    """A migration that takes each row out and puts it back, so that it can be killed in the middle."""
    connection.execute("CREATE TEMP TABLE rows AS SELECT * FROM commands ORDER BY seq")
    for (key,) in connection.execute("SELECT id FROM rows").fetchall():
        connection.execute("DELETE FROM commands WHERE id = ?", (key,))
    connection.execute("INSERT INTO commands SELECT * FROM rows")
    counts = "commands = commands + (SELECT count(*) FROM rows)"
    total = "total = total + (SELECT ifnull(sum(fixed_sum + state_sum), 0) FROM rows)"
    connection.execute(f"UPDATE ledger SET {counts}, {total}")
    connection.execute("DROP TABLE rows")


async def migrated(folder: str, up: Callable[[], None]) -> None:
    """Opens a folder with a release that has one more schema version."""
    migration.MIGRATIONS[file.SCHEMA_VERSION] = slow_step
    for module in (file, migration, check):
        if hasattr(module, "SCHEMA_VERSION"):
            module.SCHEMA_VERSION += 1  # type: ignore[attr-defined]
    up()
    storage = LocalStorage(folder)
    await storage.open()
    stored = [row.id for row in await storage.load_commands()]
    await storage.close()
    ledger.note("migrated", ids=stored)


def live(order: dict[str, Any], up: Callable[[], None]) -> Coroutine[Any, Any, None]:
    """What a life does."""
    ledger.open(order["ledger"], order["number"])
    if order["kind"] == "migrate":
        return migrated(order["folder"], up)

    async def main() -> None:
        life = Life(order["folder"], order["number"], order.get("durability", "full"))
        if order["kind"] == "traffic":
            await life.traffic(up, order["number"])
        elif order["kind"] == "poison":
            await life.poison(up)
        else:
            await life.drain(up)

    return main()


def fork(order: dict[str, Any]) -> tuple[int, int]:
    """Starts a life; gives its process id and the end of a pipe that it writes to once it is up."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(live(order, lambda: os.write(writer, UP) and None))
        code = 0
    except BaseException:
        with Path(order["ledger"] + ".errors").open("a") as errors:
            errors.write(traceback.format_exc())
    finally:
        os._exit(code)


def run_life(order: dict[str, Any]) -> dict[str, Any]:
    """Runs one life: `seconds` after it is up (or after its birth) it is killed; without that it may end itself."""
    pid, reader = fork(order)
    ends = os.pidfd_open(pid)
    is_up = False
    if order.get("since") == "up":
        select.select([reader, ends], [], [], 30)
    dead, _, _ = select.select([ends], [], [], order["seconds"])
    if select.select([reader], [], [], 0)[0]:
        is_up = os.read(reader, 1) == UP
    if not dead:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(reader)
    os.close(ends)
    return {"code": os.waitstatus_to_exitcode(status), "up": is_up}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_life(json.loads(line))), flush=True)
