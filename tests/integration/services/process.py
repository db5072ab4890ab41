"""Runs a foreign program: free ports, ready by a deadline, output collected, a clean end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

START_SECONDS: Final = 30.0
"""How long a program may take until it serves. Far more than it needs: the machine may be busy."""

_POLL_SECONDS: Final = 0.02
_TRIES: Final = 3
_Found = TypeVar("_Found")


class ServiceError(Exception):
    """A foreign program did not do what the harness asked of it."""


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether something on loopback takes connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def poll(check: Callable[[], _Found | None], seconds: float, what: Callable[[], str]) -> _Found:
    """What `check` returns once it is not `None`. For programs that can only be asked again and again."""
    deadline = time.monotonic() + seconds
    while (found := check()) is None:
        if time.monotonic() > deadline:
            raise ServiceError(f"not within {seconds} s: {what()}")
        time.sleep(_POLL_SECONDS)
    return found


class Service:
    """A program that serves on loopback. Use it as a context manager.

    A subclass says what to start and how to tell that it is ready. All methods block: in an async test call them
    with `asyncio.to_thread` while something runs on the loop.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._output = bytearray()
        self._grown = threading.Condition()

    def command(self) -> Sequence[str]:
        """What to start, with the ports that `pick_ports` chose."""
        raise NotImplementedError

    def pick_ports(self) -> None:
        """Chooses ports. Called again where another program took one of them in between."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for left in reversed(range(_TRIES)):
            self.pick_ports()
            try:
                self.start()
            except ServiceError:
                if not left:
                    raise
            else:
                break
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it on the ports it has; after `stop` it comes back where it was."""
        self._process = process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={}
        )
        self._reader = threading.Thread(target=self._read, args=(process,), name="service-output", daemon=True)
        self._reader.start()
        try:
            poll(self._ready_or_dead, START_SECONDS, lambda: f"{self.command()[0]} ready; it wrote:\n{self.text}")
        except ServiceError:
            self.stop()
            raise

    def stop(self) -> None:
        """Asks it to end, and makes it end where it does not. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert self._reader is not None
        self._reader.join()

    @property
    def text(self) -> str:
        """All it has written."""
        return self.output(0, None)

    def output(self, begin: int, end: int | None) -> str:
        """What it wrote between two places."""
        with self._grown:
            return self._output[begin:end].decode(errors="surrogateescape")

    def wait_for_output(self, marker: str, begin: int, seconds: float = 10.0) -> int:
        """Waits until it wrote the marker after the place `begin`; returns the place behind the marker."""
        sought = marker.encode()
        with self._grown:
            if not self._grown.wait_for(lambda: self._output.find(sought, begin) >= 0, seconds):
                raise ServiceError(f"not written within {seconds} s: {marker!r}")
            return self._output.find(sought, begin) + len(sought)

    def wait_for_growth(self, length: int, seconds: float) -> bool:
        """Waits until it wrote more than `length` bytes in all; false where it did not in time."""
        with self._grown:
            return self._grown.wait_for(lambda: len(self._output) > length, max(0.0, seconds))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        stream: Any = process.stdout
        with stream:
            while chunk := stream.read1(65_536):
                with self._grown:
                    self._output += chunk
                    self._grown.notify_all()

    def _ready_or_dead(self) -> bool | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServiceError(f"{self.command()[0]} ended with {self._process.returncode}; it wrote:\n{self.text}")
        return self.is_ready() or None
