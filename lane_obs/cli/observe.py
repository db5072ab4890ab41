"""What watches a replay: metrics, traces and log lines, as the command line asks for them."""

from __future__ import annotations

import asyncio
import os
import urllib.parse
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.cli.output import is_open_as
from lane_obs.errors import ConfigError
from lane_obs.observability import Logs, Metrics, Observability, Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from lane_obs.bus import AnySink, SinkStats
    from lane_obs.http import MetricsServer

_MAX_PORT: Final = 65_535
_STDOUT: Final = 1


class OtlpProtocol(StrEnum):
    """How spans travel."""

    GRPC = "grpc"
    HTTP = "http"


class Watching(msgspec.Struct, frozen=True):
    """What the command line asks for, checked.

    Attributes:
        metrics_port: where to serve metrics; 0 for any free port, `None` for nowhere.
        otlp_endpoint: where spans go; `None` for nowhere.
        otlp_protocol: how; `None` for what the environment says.
        log_file: where log lines go; `None` for nowhere.
        hold: whether to serve metrics on after the end.
        metrics_host: on which address to serve them.
        queue: name of the queue.
        command_types: how many command types get a label of their own.

    Raises:
        ConfigError: an option that is not allowed, or needs another one.
    """

    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    otlp_protocol: OtlpProtocol | None = None
    log_file: Path | None = None
    hold: bool = False
    metrics_host: str = "127.0.0.1"
    queue: str = "default"
    command_types: int = 0

    def __post_init__(self) -> None:
        if self.metrics_port is not None and not 0 <= self.metrics_port <= _MAX_PORT:
            raise ConfigError("--metrics-port", self.metrics_port, f"give 1 to {_MAX_PORT}, or 0 for any free port")
        if self.hold and self.metrics_port is None:
            raise ConfigError("--hold", True, "give --metrics-port too: nothing else is served")  # noqa: FBT003
        if self.otlp_endpoint is not None and not _is_url(self.otlp_endpoint):
            raise ConfigError("--otlp-endpoint", self.otlp_endpoint, "give a URL such as http://127.0.0.1:4317")
        if self.otlp_protocol is not None and self.otlp_endpoint is None:
            raise ConfigError("--otlp-protocol", str(self.otlp_protocol), "give --otlp-endpoint too")


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port
        return False


@contextmanager
def watched(wanted: Watching, say: Callable[[str], None]) -> Iterator[list[AnySink]]:
    """The sinks that a replay needs to be watched as wanted; `say` is told where the metrics are.

    Raises:
        ConfigError: the log file cannot be written.
    """
    with _log_file(wanted.log_file) as file:
        yield _observe(wanted, file, say)


def _observe(wanted: Watching, file: BinaryIO | None, say: Callable[[str], None]) -> list[AnySink]:
    port, endpoint = wanted.metrics_port, wanted.otlp_endpoint
    protocol = None if wanted.otlp_protocol is None else str(wanted.otlp_protocol)
    sinks = Observability(
        logs=file is not None and Logs(file=file),
        metrics=port is not None and Metrics(port=port, host=wanted.metrics_host, command_types=wanted.command_types),
        traces=endpoint is not None and Traces(endpoint=endpoint, protocol=protocol),
        watchdog=port is not None,
        recorder=False,
        queue=wanted.queue,
    ).sinks
    if port is None:
        return sinks
    from lane_obs.http import MetricsServer  # here: it brings a web server

    return [*sinks, *(_Announcer(sink, say) for sink in sinks if isinstance(sink, MetricsServer))]


class _Announcer:
    """A sink that comes after a server and tells where that is, which is known once both are started."""

    wants = ()

    def __init__(self, server: MetricsServer, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say

    def start(self) -> None:
        self._say(f"metrics at {self._server.url}/metrics")

    def handle(self, events: Iterable[object]) -> None:
        """Is never called."""

    def close(self) -> None:
        """Does nothing."""


@contextmanager
def _log_file(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
        return
    try:
        # A new file is private, as what it tells may be.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.dup(_STDOUT) if is_open_as(path) else os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError("--log-file", str(path), f"give a file that can be written: {error.strerror}") from error
    with open(descriptor, "wb", buffering=0) as file:
        yield file


class Hold:
    """Waits for whoever reads the metrics to have had enough.

    Attributes:
        is_on: whether it waits now.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._enough = asyncio.Event()

    async def wait(self) -> None:
        """Returns once it was ended."""
        self.is_on = True
        await self._enough.wait()
        self.is_on = False

    def end(self) -> None:
        """Ends the wait."""
        self._enough.set()


def losses(stats: Iterable[SinkStats]) -> Iterator[str]:
    """Tells what sinks have lost, a line for each that did."""
    for sink in stats:
        lost = {reason: count for reason, count in sink.dropped.items() if count}
        if lost:
            reasons = ", ".join(f"{reason} {count}" for reason, count in lost.items())
            yield f"{sink.name} lost {sum(lost.values())} ({reasons})"
