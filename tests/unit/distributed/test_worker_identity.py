"""Whatever a process with a broker writes says which process it was."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from lane_obs import LaneConfig, QueueManager, UnknownLane
from lane_obs.sinks.otel_logs import OtelLogSink
from lane_obs.sinks.recorder import FlightRecorder
from lane_obs.sinks.structlog import StructlogSink
from tests.unit.sinks.otel_support import Spans, fields

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.bus import AnySink

LANES = {"a": LaneConfig(0, 1)}
MEMBER = "host:12:1"


async def work() -> None:
    pass


async def fail() -> None:
    raise ValueError("no")


async def run(*sinks: AnySink, member: str | None = MEMBER, command: Any = work) -> None:
    async with QueueManager(LANES, sinks=sinks) as manager:
        manager.bus.worker = member
        await manager.submit("a", command)
        with pytest.raises(UnknownLane):
            await manager.submit("b", command)
        await manager.drain()


def lines(file: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("redact", [None, lambda fields: fields])
async def test_lines_have_the_worker(redact: Any) -> None:
    file = io.BytesIO()
    await run(StructlogSink(file, level="debug", redact=redact))
    told = {line["event"]: line.get("worker") for line in lines(file)}
    assert "queue.command.completed" in told
    assert {event for event, worker in told.items() if worker != MEMBER} <= {"queue.started"}
    await run(StructlogSink(file := io.BytesIO()), member=None)
    assert not any("worker" in line for line in lines(file))


async def test_the_lines_of_a_failure_have_worker_and_traceback() -> None:
    file = io.BytesIO()
    await run(StructlogSink(file), command=fail)
    (line,) = (line for line in lines(file) if line["event"] == "queue.command.failed")
    assert line["worker"] == MEMBER
    assert "ValueError: no" in line["exception"]


async def test_a_logger_gets_the_worker_and_so_does_what_a_command_logs() -> None:
    entries: list[dict[str, Any]] = []

    def keep(_logger: Any, _name: str, fields: dict[str, Any]) -> Any:
        entries.append(dict(fields))
        raise structlog.DropEvent

    logger = structlog.wrap_logger(None, processors=[structlog.contextvars.merge_contextvars, keep])

    async def says() -> None:
        logger.info("mine")

    await run(StructlogSink(logger=logger), command=says)
    told = {entry["event"]: entry["worker"] for entry in entries}
    assert {"mine", "queue.command.completed"} <= told.keys()
    assert set(told.values()) == {MEMBER}


async def test_log_records_have_the_worker() -> None:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    await run(OtelLogSink(provider))
    records = [data.log_record for data in exporter.get_finished_logs()]
    assert {(record.attributes or {}).get("worker") for record in records} == {MEMBER}


async def test_spans_have_the_worker_as_the_client_and_as_the_worker() -> None:
    spans = Spans()
    await run(spans.sink())
    process, submit = fields(spans.one("process a")), fields(spans.one("submit a"))
    assert process["messaging.client.id"] == submit["messaging.client.id"] == MEMBER
    assert process["lane.worker"] == MEMBER
    alone = Spans()
    await run(alone.sink(), member=None)
    assert "messaging.client.id" not in fields(alone.one("submit a"))
    assert fields(alone.one("process a"))["lane.worker"].count(":") == 1


async def test_a_flight_recorder_writes_the_worker_also_when_the_queue_is_closed(tmp_path: Path) -> None:
    recorder = FlightRecorder(path=tmp_path, on_signal=False, on_crash=False)
    await run(recorder)
    written = [json.loads(line) for line in recorder.dump().read_text().splitlines()]
    assert {line["worker"] for line in written} == {MEMBER}
    recorder.forget()
