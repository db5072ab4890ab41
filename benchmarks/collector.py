"""Where spans go: nowhere, or to a real OTLP receiver on loopback, rotel (`pip install rotel`)."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

NAME: Final = "rotel"
_START_SECONDS: Final = 20.0


def agent() -> Path | None:
    """The receiver's program; `None` when it is not installed."""
    found = importlib.util.find_spec(NAME)
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "rotel-agent"
    return program if program.exists() else None


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def receiver(program: Path) -> Iterator[int]:
    """Runs a receiver that throws away what it has decoded; gives its port for gRPC.

    Raises:
        TimeoutError: it does not serve.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [str(program), "start", "--exporter", "blackhole", "--otlp-grpc-endpoint", f"127.0.0.1:{port}"]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{free_port()}"]
        command += ["--pid-file", f"{directory}/pid", "--log-file", f"{directory}/log"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{NAME} does not serve on port {port}")


def endpoint(port: int) -> str:
    """The address of a receiver on this port of loopback."""
    return f"http://127.0.0.1:{port}"


def over_grpc(port: int) -> Callable[[], SpanExporter]:
    """Makes the SDK's OTLP exporter for a receiver on this port of loopback."""

    def make() -> SpanExporter:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint(port), insecure=True)

    return make


class Discard:
    """An exporter of spans that counts and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        """Takes them all."""
        return _results().SUCCESS

    def shutdown(self) -> None:
        """Holds nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Holds nothing."""
        return True


def _results() -> Any:
    from opentelemetry.sdk.trace.export import SpanExportResult

    return SpanExportResult


class Counted:
    """Counts the spans that another exporter delivered."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._success = _results().SUCCESS
        self.delivered = 0

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        """Passes them on."""
        result = self._exporter.export(spans)
        if result is self._success:
            self.delivered += len(spans)
        return result

    def shutdown(self) -> None:
        """Passes it on."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Passes it on."""
        return bool(self._exporter.force_flush(timeout_millis))


@contextlib.contextmanager
def quiet(name: str = "opentelemetry") -> Iterator[None]:
    """Silences a library that logs each failure, where failing is what is measured."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
