"""A Redis server of a measurement's own: fresh, on a free port of loopback, keeping nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    import redis

PROGRAM: Final = "redis-server"
_SECONDS: Final = 20.0


class Use(NamedTuple):
    """What a server has done since it started.

    Attributes:
        commands: that it carried out, those inside scripts too.
        reads: from sockets; close to one for each round trip of a client.
        cpu: seconds of processor time.
    """

    commands: int
    reads: int
    cpu: float

    def since(self, before: Use) -> Use:
        """The difference."""
        return Use(*(now - then for now, then in zip(self, before, strict=True)))


class ServerFailed(RuntimeError):
    """A server did not start."""


def unusable() -> str:
    """Why no server can be measured here; empty when one can."""
    if shutil.which(PROGRAM) is None:
        return f"no {PROGRAM}"
    return "" if importlib.util.find_spec("redis") is not None else "the package redis is not installed"


class Server:
    """A running server; a context manager.

    Attributes:
        url: where it is.
        client: a blocking client, for whoever measures.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        import redis

        with contextlib.ExitStack() as opening:
            folder = opening.enter_context(tempfile.TemporaryDirectory(prefix="lane-obs-redis-"))
            port = _free_port()
            self.url = f"redis://127.0.0.1:{port}/0"
            command = [
                PROGRAM, "--port", str(port), "--bind", "127.0.0.1",
                "--save", "", "--appendonly", "no", "--dir", folder,
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            opening.callback(_stop, process)
            self.client = redis.Redis.from_url(self.url)
            opening.callback(self.client.close)
            _wait(self.client, process)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def use(self) -> Use:
        """What it has done so far."""
        found: Any = self.client.info("stats") | self.client.info("cpu")  # type: ignore[operator]
        cpu = found["used_cpu_user"] + found["used_cpu_sys"]
        return Use(found["total_commands_processed"], found["total_reads_processed"], cpu)


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
    return port


def _wait(client: redis.Redis, process: subprocess.Popen[bytes]) -> None:
    import redis

    last = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < last:
        with contextlib.suppress(redis.ConnectionError):
            client.ping()
            return
        time.sleep(0.01)
    raise ServerFailed(f"{PROGRAM} did not answer; exit code {process.poll()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
