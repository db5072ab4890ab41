"""Logs, metrics, spans and the program's own records tell the same story, command by command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.services.tools import require_rotel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.services.otlp import Collector
    from tests.integration.services.span import Span

PROGRAM = """
import asyncio, json, sys
import lane_obs
from lane_obs import LaneConfig, LaneFullError, Logs, Metrics, Observability, QueueManager, RetryPolicy, Traces
from prometheus_client import CollectorRegistry, generate_latest

endpoint, log, out, hold = sys.argv[1:]
OUTCOMES = {"succeeded": "ok", "failed": "error", "timed_out": "timeout"}


async def work(seconds=0.0):
    await asyncio.sleep(seconds)


async def flaky(fails):
    if lane_obs.current().attempt <= fails:
        raise ConnectionError("refused")


async def main():
    registry, handles = CollectorRegistry(), []
    lanes = {
        "fast": LaneConfig(1, 4, retry=RetryPolicy.fixed(2, 0.001)),
        "slow": LaneConfig(0, 2, priority=1, timeout=0.02),
        "tight": LaneConfig(0, 1, priority=2, max_pending=2, overflow="reject"),
        "drop": LaneConfig(0, 1, priority=2, max_pending=2, overflow="drop_oldest"),
    }
    with open(log, "wb", buffering=0) as file:
        observe = Observability(
            logs=Logs(file=file), metrics=Metrics(registry=registry), watchdog=False, recorder=False,
            traces=Traces(endpoint=endpoint, protocol="grpc"),
        )
        manager = QueueManager(lanes, max_concurrency=5, observe=observe, seed=3)
        await manager.start()
        for round in range(12):
            handles += [await manager.submit("fast", work) for _ in range(5)]
            handles += [await manager.submit("fast", flaky, fails) for fails in (1, 2, 5)]
            handles += [await manager.submit("slow", work, seconds) for seconds in (0.001, 0.5)]
            handles.append(await manager.submit("slow", work, deadline=0.0001, delay=0.01))
            handles.append(await manager.submit("fast", work, 30.0))
            asyncio.get_running_loop().call_later(0.05, handles[-1].cancel)
            handles.append(await manager.submit("fast", work, delay=60))
            handles[-1].cancel()
            handles += [await manager.submit("drop", work, 0.002) for _ in range(4)]
            for _ in range(4):
                try:
                    handles.append(await manager.submit("tight", work, 0.002))
                except LaneFullError:
                    pass
        if hold == "hold":
            print("ready", flush=True)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
        await asyncio.wait([asyncio.ensure_future(ended(handle)) for handle in handles])
        text = generate_latest(registry).decode()
        await manager.stop()
    records = [
        (handle.id, handle.lane, OUTCOMES.get(str(handle.state), str(handle.state)), handle.attempt)
        for handle in handles
    ]
    with open(out, "w") as file:
        json.dump({"records": records, "metrics": text}, file)


async def ended(handle):
    try:
        await handle
    except Exception:
        pass


lane_obs.run(main())
"""


def run_program(collector: Collector, directory: Path, *, stop: bool) -> dict[str, Any]:
    script, log, out = directory / "program.py", directory / "log.jsonl", directory / "out.json"
    script.write_text(PROGRAM)
    arguments = [str(script), collector.grpc_endpoint, str(log), str(out), "hold" if stop else "go"]
    environment = {**os.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "100000", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        if stop:
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)  # `lane_obs.run` drains the queue, then cancels `main`
        process.wait(60)
    return {"lines": [json.loads(line) for line in log.read_text().splitlines()], **json.loads(out.read_text())}


def finished(metrics: str) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for line in metrics.splitlines():
        if line.startswith("lane_commands_finished_total{"):
            labels = dict(pair.split("=") for pair in line[line.index("{") + 1 : line.index("}")].split(","))
            counts[labels["lane"].strip('"'), labels["outcome"].strip('"')] += int(float(line.rsplit(" ", 1)[1]))
    return +counts


def is_last(span: Span) -> bool:
    if not span.name.startswith(("process ", "settle ")):
        return False
    return all(event.name != "lane.retry_scheduled" for event in span.events)


@pytest.mark.parametrize("stop", [False, True], ids=["to the end", "until SIGTERM"])
def test_logs_metrics_spans_and_records_agree(collector: Collector, tmp_path: Path, *, stop: bool) -> None:
    require_rotel()
    told = run_program(collector, tmp_path, stop=stop)
    records = told["records"]
    expected = Counter((lane, outcome) for _, lane, outcome, _ in records)
    assert {outcome for _, outcome in expected} == {"ok", "error", "timeout", "cancelled", "expired"}

    ends = [line for line in told["lines"] if "outcome" in line]
    assert Counter((line["lane"], line["outcome"]) for line in ends) == expected
    assert sorted(line["command_id"] for line in ends) == sorted(record[0] for record in records)

    assert finished(told["metrics"]) == expected

    spans = collector.spans()
    assert len({span.span_id for span in spans}) == len(spans)
    last = [span for span in spans if is_last(span)]
    assert Counter((span.name.split()[1], span.attributes["lane.outcome"]) for span in last) == expected
    assert sum(span.name.startswith("process ") for span in spans) == sum(record[3] for record in records)

    traces, ids = {span.trace_id for span in spans}, {span.span_id for span in spans}
    commands = [line for line in told["lines"] if "command_id" in line]
    assert {line["trace_id"] for line in commands} <= traces
    assert {line["span_id"] for line in ends} <= ids
