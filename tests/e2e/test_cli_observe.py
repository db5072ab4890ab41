"""`lane-obs replay` watched: metrics, spans and log lines, and the hold at the end."""

from __future__ import annotations

import http.server
import json
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_cli_replay import (
    ENVIRONMENT,
    HEADER,
    LIMIT,
    assert_refused,
    lines_until,
    records_in,
    replay,
    rest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = "0,query,1,,\n1,prompt,2,fail,\n2,query,1,,\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    return path


OUTCOMES = {"queue.command.completed": "succeeded", "queue.command.failed": "failed"}


def ends(path: Path) -> dict[str, str]:
    """How each command ended, by its id, as the log tells it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["command_id"]: OUTCOMES[line["event"]] for line in lines if line["event"] in OUTCOMES}


# --- options


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--metrics-port", "65536"), ("--metrics-port", "65536", "1 to 65535")),
        (("--metrics-port", "-1"), ("--metrics-port", "-1", "0 for any free port")),
        (("--hold",), ("--hold", "--metrics-port")),
        (("--hold", "--otlp-endpoint", "http://127.0.0.1:4317"), ("--hold", "--metrics-port")),
        (("--otlp-protocol", "http"), ("--otlp-protocol", "--otlp-endpoint")),
        (("--otlp-endpoint", "127.0.0.1:4317"), ("--otlp-endpoint", "127.0.0.1:4317", "URL such as")),
        (("--otlp-endpoint", "ftp://127.0.0.1"), ("--otlp-endpoint", "URL such as")),
        (("--otlp-endpoint", "http://"), ("--otlp-endpoint", "URL such as")),
        (("--otlp-endpoint", "http://x:0"), ("--otlp-endpoint", "URL such as")),
        (("--otlp-endpoint", "http://x:99999"), ("--otlp-endpoint", "URL such as")),
    ],
)
def test_options_that_are_not_allowed(trace: Path, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_refused(replay(trace, "--virtual", *options), *parts)


@pytest.mark.parametrize(
    "options", [("--metrics-port", "http"), ("--otlp-endpoint", "http://127.0.0.1:4317", "--otlp-protocol", "udp")]
)
def test_options_of_the_wrong_kind_are_usage_errors(trace: Path, options: tuple[str, ...]) -> None:
    done = replay(trace, "--virtual", *options)
    assert done.returncode == 2
    assert options[-2] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("other", ["TRACE", "--lanes", "--json", "--records"])
def test_the_log_file_is_no_other_file(trace: Path, tmp_path: Path, other: str) -> None:
    same = trace if other == "TRACE" else tmp_path / "same"
    options = [] if other == "TRACE" else [other, same]
    assert_refused(replay(trace, "--virtual", *options, "--log-file", same), "--log-file", str(same), other)
    assert trace.read_text() == HEADER + ROWS


def test_a_log_file_that_cannot_be_written_is_refused_before_anything_runs(trace: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "file"):
        assert_refused(replay(trace, "--virtual", "--log-file", path), "--log-file", str(path), "can be written")


def test_a_port_in_use_is_refused_before_anything_runs(trace: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = replay(trace, "--virtual", "--metrics-port", port, "--json", tmp_path / "s.json")
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert "utilisation" not in done.stdout
    assert not (tmp_path / "s.json").exists()


# --- logs


@pytest.mark.parametrize("times", [("--virtual",), ("--speed", "100")])
def test_the_log_file_has_a_line_for_each_command(trace: Path, tmp_path: Path, times: tuple[str, ...]) -> None:
    log, records = tmp_path / "log.jsonl", tmp_path / "r.jsonl"
    done = replay(trace, *times, "--log-file", log, "--records", records)
    assert (done.returncode, done.stderr) == (1, "")
    assert ends(log) == {str(record["id"]): record["outcome"] for record in records_in(records)}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_file_is_added_to(trace: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        replay(trace, "--virtual", "--log-file", log)
    whole = log.read_text().splitlines()
    assert len(whole) % 2 == 0
    assert [json.loads(line)["event"] for line in whole[: len(whole) // 2]] == [
        json.loads(line)["event"] for line in whole[len(whole) // 2 :]
    ]


def test_log_lines_on_standard_output_stand_there_alone(trace: Path) -> None:
    done = replay(trace, "--virtual", "--log-file", "/dev/stdout")
    assert done.returncode == 1
    assert len([json.loads(line) for line in done.stdout.splitlines()]) >= 3
    assert "utilisation" in done.stderr


def test_lines_that_found_no_room_are_told_and_do_no_harm(trace: Path, tmp_path: Path) -> None:
    done = replay(trace, "--virtual", "--log-file", "/dev/full", "--records", tmp_path / "r.jsonl")
    assert done.returncode == 1
    assert "StructlogSink lost" in done.stderr
    assert len(records_in(tmp_path / "r.jsonl")) == 3


def test_what_watches_a_replay_does_not_change_it(trace: Path, tmp_path: Path) -> None:
    written = []
    for options in ((), ("--log-file", tmp_path / "log", "--metrics-port", 0)):
        files = (tmp_path / "s.json", tmp_path / "r.jsonl")
        assert replay(trace, "--virtual", "--json", files[0], "--records", files[1], *options).returncode == 1
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


# --- spans


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes what is posted."""

    def do_POST(self) -> None:
        self.server.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def receiver() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.posted = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("times", [("--virtual",), ("--speed", "100")])
def test_spans_go_to_the_receiver(trace: Path, times: tuple[str, ...]) -> None:
    with receiver() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        done = replay(trace, *times, "--otlp-endpoint", url, "--otlp-protocol", "http")
    assert (done.returncode, done.stderr) == (1, "")
    assert {path for path, _ in server.posted} == {"/v1/traces"}
    assert b"process query" in b"".join(body for _, body in server.posted)


def test_a_receiver_that_is_not_there_costs_spans_and_nothing_else(trace: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    options = ("--otlp-endpoint", url, "--otlp-protocol", "http", "--records", tmp_path / "r.jsonl")
    done = replay(trace, "--virtual", *options)
    assert done.returncode == 1
    assert "OtelSink lost" in done.stderr
    assert len(records_in(tmp_path / "r.jsonl")) == 3


# --- metrics and the hold


@contextmanager
def held(trace: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A replay that has come to its end and holds, and the address of its metrics."""
    command = ["replay", trace, "--metrics-port", 0, "--hold", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "lane_obs", *map(str, command)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        url = lines_until(process.stdout, "metrics at ")[-1].split()[-1]
        shown = "".join(lines_until(process.stdout, "serving on"))
        assert "utilisation" in shown
        try:
            yield process, url
        finally:
            process.kill()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("times", [("--virtual",), ("--speed", "100")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_metrics_are_served_on_after_the_end_until_an_interrupt(
    trace: Path, tmp_path: Path, times: tuple[str, ...], number: signal.Signals
) -> None:
    with held(trace, *times, "--records", tmp_path / "r.jsonl") as (process, url):
        assert len(records_in(tmp_path / "r.jsonl")) == 3  # the files are there before the hold
        for _ in range(2):
            text = get(url)
            assert 'lane="query"' in text
            assert url.startswith("http://127.0.0.1:")
        assert get(url.replace("/metrics", "/readyz"))
        process.send_signal(number)
        _, errors = rest(process)
    assert (process.returncode, errors) == (1, "")  # the replay's own code: the interrupt was awaited


def test_metrics_without_a_hold_end_with_the_replay(trace: Path) -> None:
    done = replay(trace, "--virtual", "--metrics-port", 0)
    assert (done.returncode, done.stderr) == (1, "")
    assert "metrics at http://127.0.0.1:" in done.stdout
    assert "serving on" not in done.stdout


def test_a_replay_that_was_interrupted_does_not_hold(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(HEADER + "0,skill,0.2,,\n3600,skill,1,,\n")
    command = [sys.executable, "-m", "lane_obs", "replay", str(trace), "--metrics-port", "0", "--hold"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, encoding="utf-8") as process:
        lines_until(process.stdout, "at 0.0 s: 0 of")
        process.send_signal(signal.SIGINT)
        out, errors = rest(process)
    assert (process.returncode, errors) == (130, "")
    assert "serving on" not in out
