"""What is done to the processes of a field, its server and the network between; each does its harm and mends it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from typing import TYPE_CHECKING

from tests.integration.faults.driver import LEASE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.integration.faults.driver import Field
    from tests.integration.servers.proxy import Proxy
    from tests.integration.servers.server import Server

MANY = 1_000_000


@dataclasses.dataclass
class Scene:
    """Whom to harm.

    Attributes:
        field: the processes.
        server: their server.
        proxy: what stands between, where something does.
        rng: chooses.
    """

    field: Field
    server: Server
    proxy: Proxy
    rng: random.Random

    def pause(self, least: float = 0.05, most: float = 0.4) -> None:
        time.sleep(self.rng.uniform(least, most))

    @contextlib.contextmanager
    def noted(self, kind: str, who: str = "") -> Iterator[None]:
        """Writes down when something begins and that it is over."""
        self.field.fault(kind, who)
        yield
        self.field.mend(kind, who)


def kill_worker(scene: Scene) -> None:
    """A worker dies in the middle of work; another one comes."""
    scene.field.kill(scene.rng.choice(scene.field.live("worker")))
    scene.field.start("worker", wait=False)


def kill_producer(scene: Scene) -> None:
    """A producer dies between submit and result; another one comes, and a third one waits for its commands."""
    producers = scene.field.live("producer")
    if not producers:
        return
    victim = scene.rng.choice(producers)
    scene.field.kill(victim)
    scene.field.start("producer", wait=False, count=MANY)
    lines = scene.field.lines()
    seen = {line["id"] for line in lines if line["what"] == "result"}
    mine = {line["id"]: None for line in lines if line["what"] == "ack" and line["who"] == victim.who}
    if ids := [key for key in mine if key not in seen]:
        scene.field.start("heir", wait=False, ids=ids)


def freeze_worker(scene: Scene) -> None:
    """A worker stands still past its lease, and goes on."""
    victim = scene.rng.choice(scene.field.live("worker"))
    scene.field.freeze(victim)
    time.sleep(LEASE * scene.rng.uniform(1.3, 2.0))
    scene.field.thaw(victim)


def freeze_worker_shortly(scene: Scene) -> None:
    """A worker stands still, well within its lease."""
    victim = scene.rng.choice(scene.field.live("worker"))
    victim.signal(signal.SIGSTOP)
    time.sleep(LEASE * scene.rng.uniform(0.05, 0.2))
    victim.signal(signal.SIGCONT)


def kill_server(scene: Scene) -> None:
    """The server dies and comes back with what it had written."""
    with scene.noted("down"):
        scene.server.kill()
        scene.pause(0.0, 1.5)
        scene.server.start()


def freeze_server(scene: Scene) -> None:
    """The server stands still, its connections open."""
    with scene.noted("down"):
        scene.server.freeze()
        scene.pause(0.1, 1.5)
        scene.server.thaw()


def cut(scene: Scene) -> None:
    """All connections break, a few times."""
    for _ in range(scene.rng.randrange(1, 5)):
        scene.proxy.cut()
        scene.pause(0.0, 0.1)


def cut_reply(scene: Scene) -> None:
    """The connections break in the middle of an answer."""
    for _ in range(scene.rng.randrange(1, 4)):
        scene.proxy.cut_reply_after(scene.rng.randrange(1, 3000))
        scene.pause(0.05, 0.2)


def cut_long(scene: Scene) -> None:
    """There is no way to the server for longer than a lease."""
    with scene.noted("cut"):
        scene.proxy.refuse()
        scene.proxy.cut()
        scene.pause(0.5, 1.8)
        scene.proxy.accept()


def silence(scene: Scene) -> None:
    """Nothing comes through any more, and nobody is told."""
    with scene.noted("cut"):
        scene.proxy.silence()
        scene.pause(0.3, 1.5)
        scene.proxy.silence(silent=False)
        scene.proxy.cut()


def delay(scene: Scene) -> None:
    """All takes longer."""
    scene.proxy.delay(scene.rng.uniform(0.005, 0.05))
    scene.pause(0.3, 1.0)
    scene.proxy.delay(0.0)


def flush_scripts(scene: Scene) -> None:
    """The server forgets all scripts."""
    for _ in range(scene.rng.randrange(1, 6)):
        scene.server.ask("SCRIPT", "FLUSH")
        scene.pause(0.0, 0.1)


def fill_memory(scene: Scene) -> None:
    """The server has no memory left for a while."""
    scene.field.fault("full")
    scene.server.ask("CONFIG", "SET", "maxmemory", 1)
    scene.pause(0.2, 1.5)
    scene.server.ask("CONFIG", "SET", "maxmemory", 0)
    scene.field.mend("full")


HARMS: dict[str, tuple[Callable[[Scene], None], frozenset[str]]] = {
    "kill_worker": (kill_worker, frozenset({"kill"})),
    "kill_producer": (kill_producer, frozenset()),
    "freeze_worker": (freeze_worker, frozenset({"freeze"})),
    "freeze_worker_shortly": (freeze_worker_shortly, frozenset()),
    "kill_server": (kill_server, frozenset({"down"})),
    "freeze_server": (freeze_server, frozenset({"down"})),
    "cut": (cut, frozenset()),
    "cut_reply": (cut_reply, frozenset()),
    "cut_long": (cut_long, frozenset({"cut"})),
    "silence": (silence, frozenset({"cut"})),
    "delay": (delay, frozenset()),
    "flush_scripts": (flush_scripts, frozenset()),
    "fill_memory": (fill_memory, frozenset()),
}
"""What can be done, and which of the faults that it writes down may cost leases."""
