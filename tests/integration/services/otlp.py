"""Receivers of OTLP that nobody here wrote: rotel (gRPC and HTTP) and oteltap (HTTP).

Both print what they receive, and that is read back. To know that all of it is printed, a receiver is sent a span of
the harness's own (a mark) over HTTP: what it acknowledged earlier stands in front of the mark.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as ProtoMetric
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from tests.integration.services.process import Service, ServiceError, accepts, free_port
from tests.integration.services.rotel_text import read_spans
from tests.integration.services.span import KINDS, STATUSES, Attributes, Event, Link, Span, Value
from tests.integration.services.tools import require_oteltap, require_rotel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

_SCOPE = "tests.integration.services.mark"
_marks = itertools.count(1)
_MARK = re.compile(r"mark-\d+-end")


class Receiver(Service):
    """What both receivers have in common. Spans come in the order in which they were printed."""

    http_port = 0

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[Span] = []
        self._read_to = 0

    @property
    def http_endpoint(self) -> str:
        """The base address for OTLP over HTTP; traces go to `/v1/traces` below it."""
        return f"http://127.0.0.1:{self.http_port}"

    def spans(self, count: int | None = None, deadline: float = 10.0) -> list[Span]:
        """All spans received since the start, once there are `count`; without it those acknowledged until now.

        Args:
            count: the fewest to wait for. There may be more: compare the length, and nothing came twice.
            deadline: seconds to wait.

        Raises:
            ServiceError: fewer arrived in time.
        """
        until = time.monotonic() + deadline
        self._read_printed()
        while count is not None and len(self._spans) < count:
            if not self.wait_for_growth(self._read_to, until - time.monotonic()):
                raise ServiceError(f"{len(self._spans)} of {count} spans within {deadline} s")
            self._read_printed()
        return list(self._spans)

    def _read_printed(self) -> None:
        mark = f"mark-{next(_marks)}-end"
        self._send_mark(mark)
        end = self.wait_for_output(self._mark_as_printed(mark), self._read_to)
        printed = self.output(self._read_to, end)
        self._read_to = end
        self._spans += [span for span in self._parse(printed) if span.status_message != mark]

    def _send_mark(self, mark: str) -> None:
        # The status comes last of what is printed of a span without attributes, links and events.
        span = ProtoSpan(
            trace_id=b"\1" * 16, span_id=b"\1" * 8, name="mark", status=Status(message=mark, code=Status.STATUS_CODE_OK)
        )
        batch = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
        batch.scope_spans[0].scope.name = _SCOPE
        self._post("traces", ExportTraceServiceRequest(resource_spans=[batch]))

    def _post(self, kind: str, message: Message) -> None:
        request = urllib.request.Request(
            f"{self.http_endpoint}/v1/{kind}", message.SerializeToString(), {"Content-Type": "application/x-protobuf"}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass

    def _mark_as_printed(self, mark: str) -> str:
        raise NotImplementedError

    def _parse(self, printed: str) -> Iterable[Span]:
        raise NotImplementedError


class Collector(Receiver):
    """rotel: takes gRPC and HTTP. `stop` and `start` take it away and back on the same ports.

    Args:
        directory: for the files that it may write.
        signal: what to print, one of "traces", "metrics" and "logs"; it takes all three. Metrics and logs are there as
            `text`, see `Tap` for more.
    """

    def __init__(self, directory: Path, signal: str = "traces") -> None:
        super().__init__()
        self._binary = require_rotel()
        self._directory = directory
        self._signal = signal
        self.grpc_port = 0

    @property
    def grpc_endpoint(self) -> str:
        """The address for OTLP over gRPC; without TLS."""
        return f"http://127.0.0.1:{self.grpc_port}"

    def pick_ports(self) -> None:
        self.grpc_port, self.http_port = free_port(), free_port()

    def command(self) -> Sequence[str]:
        return [
            *(self._binary, "start", "--exporter", "blackhole"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc_port}"),
            *("--otlp-http-endpoint", f"127.0.0.1:{self.http_port}"),
            *("--debug-log", self._signal, "--debug-log-verbosity", "detailed"),
            *("--pid-file", str(self._directory / "rotel.pid"), "--log-file", str(self._directory / "rotel.log")),
        ]

    def is_ready(self) -> bool:
        return accepts(self.grpc_port) and accepts(self.http_port)

    def _mark_as_printed(self, mark: str) -> str:
        return f"    Status message : {mark}\n"

    def _parse(self, printed: str) -> Iterable[Span]:
        return read_spans(printed)


class Tap(Receiver):
    """oteltap: takes HTTP only and prints JSON, so that every string comes back exactly.

    It leaves out resource and scope, and an infinite or undefined float is NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        require_oteltap()

    def pick_ports(self) -> None:
        self.http_port = free_port()

    def command(self) -> Sequence[str]:
        return [sys.executable, "-u", "-m", "oteltap", "--port", str(self.http_port)]

    def is_ready(self) -> bool:
        return accepts(self.http_port)

    def metrics(self) -> list[dict[str, Any]]:
        """All metrics received until now as OTLP's JSON."""
        mark = f"mark-{next(_marks)}-end"  # of their kind: each kind is printed by itself
        batch = ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[ProtoMetric(name=mark)])])
        self._post("metrics", ExportMetricsServiceRequest(resource_metrics=[batch]))
        end = self.wait_for_output("\n", self.wait_for_output(f'"name":"{mark}"', 0))
        records = _json_lines(self.output(0, end))
        return [record for record in records if "spanId" not in record and not _MARK.fullmatch(record["name"])]

    def _mark_as_printed(self, mark: str) -> str:
        return f'"status":{{"message":"{mark}","code":1}}}}\n'

    def _parse(self, printed: str) -> Iterable[Span]:
        return [_span_of(record) for record in _json_lines(printed) if "startTimeUnixNano" in record]


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line.startswith("{")]


def _span_of(record: Mapping[str, Any]) -> Span:
    return Span(
        trace_id=record["traceId"],
        span_id=record["spanId"],
        parent_id=record["parentSpanId"],
        name=record["name"],
        kind=KINDS[record["kind"]],
        start_ns=int(record["startTimeUnixNano"]),
        end_ns=int(record["endTimeUnixNano"]),
        attributes=_attributes(record["attributes"]),
        links=tuple(Link(link["traceId"], link["spanId"], _attributes(link["attributes"])) for link in record["links"]),
        events=tuple(
            Event(event["name"], int(event["timeUnixNano"]), _attributes(event["attributes"]))
            for event in record["events"]
        ),
        status=STATUSES[record["status"]["code"]],
        status_message=record["status"]["message"],
    )


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> Attributes:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Value:
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return tuple(_value(item) for item in inner["values"])
    if kind == "intValue":
        return int(inner)
    if kind == "doubleValue":
        return float("nan") if inner is None else float(inner)
    return inner  # type: ignore[no-any-return]
