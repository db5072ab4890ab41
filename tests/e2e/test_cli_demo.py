"""`lane-obs demo` as users run it: a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest

from tests.e2e.test_cli_observe import receiver
from tests.e2e.test_cli_replay import ENVIRONMENT, LIMIT, ROOT, rest, run
from tests.integration.services.alertmanager import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = ("--for", 6, "--speed", 10)
BURST = ("--for", 32, "--speed", 10)


def demo(*arguments: object, port: int = 0) -> subprocess.CompletedProcess[str]:
    return run("demo", "--metrics-port", port, *arguments)


def lines_until(stream: IO[str] | None, marker: str) -> list[str]:
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if marker in line:
            return lines
    raise AssertionError(f"no {marker!r} in {lines}")


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lane_obs", "demo", "--metrics-port", "0", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


# --- the way it should go


def test_a_story_is_told_and_explained() -> None:
    done = demo(*BURST)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("metrics at http://127.0.0.1:")
    assert lines[1].startswith("at 0.0 s, ")
    for part in (
        "ALERT: LaneReadyDepthHigh (warning, prompt): Ready commands that wait to start: ",
        "over: LaneReadyDepthHigh (warning, prompt)",
        "What happened (seed 1):",
        "2. A burst of prompts (from 6 s)",
        "64 prompts came at once",
        "stop_agent waited",
        "Alert LaneReadyDepthHigh (warning, prompt) fired at",
        'Overview: "Ready by lane"',
        "4 of the 4 that the story is meant to raise fired, and all are over",
    ):
        assert part in done.stdout


def test_it_says_what_it_takes() -> None:
    done = run("demo", "--help")
    assert done.returncode == 0
    page = (ROOT / "docs" / "demo.md").read_text("utf-8")
    for option in (
        "--for", "--speed", "--seed", "--metrics-port", "--metrics-host", "--otlp-endpoint", "--alertmanager",
        "--log-file", "--no-screen", "--hold",
    ):  # fmt: skip
        assert option in done.stdout
        assert option in page


def test_the_same_seed_sends_the_same_commands(tmp_path: Path) -> None:
    def ends(name: str, seed: int) -> dict[str, str]:
        log = tmp_path / name
        assert demo(*SHORT, "--seed", seed, "--log-file", log).returncode == 0
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return {line["command_id"]: line["outcome"] for line in lines if "outcome" in line}

    first = ends("first", 5)
    assert len(first) > 30
    assert first == ends("again", 5)
    assert first.keys() != ends("other", 6).keys()


def test_log_lines_on_standard_output_stand_there_alone() -> None:
    done = demo(*SHORT, "--log-file", "/dev/stdout")
    assert done.returncode == 0
    assert len([json.loads(line) for line in done.stdout.splitlines()]) > 30
    assert "What happened" in done.stderr


def test_the_reader_may_go_away(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(*SHORT, "--log-file", log) as process:
        lines_until(process.stdout, "metrics at")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LIMIT) == 0
    assert log.read_text().count("\n") > 30


# --- what is served, and who is told


def test_the_queue_is_scraped_while_it_runs_and_after_the_end_until_an_interrupt() -> None:
    with running(*SHORT, "--hold") as process:
        url = lines_until(process.stdout, "metrics at ")[-1].split()[-1]
        shown = "".join(lines_until(process.stdout, "serving on"))
        assert "What happened" in shown
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            text = answer.read().decode()
        for part in (
            'lane_commands_submitted_total{lane="prompt",queue="demo"}',
            'lane_alert_state{alert="LaneStalled"',
            'command_type="heartbeat"',
            'lane_event_loop_lag_seconds_count{queue="demo"}',
        ):
            assert part in text
        process.send_signal(signal.SIGINT)
        _, errors = rest(process)
    assert (process.returncode, errors) == (0, "")


def test_spans_go_to_the_receiver() -> None:
    with receiver() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        done = demo(*SHORT, "--otlp-endpoint", url, "--otlp-protocol", "http")
        posted = list(server.posted)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path for path, _ in posted} == {"/v1/traces"}
    assert b"process prompt" in b"".join(body for _, body in posted)


def test_alertmanager_is_told() -> None:
    with WebhookReceiver() as receiver:
        done = demo(*BURST, "--alertmanager", receiver.url)
        assert (done.returncode, done.stderr) == (0, "")
        posted = [alert for _, _, body in receiver.requests for alert in json.loads(body)]
        assert {path for path, _, _ in receiver.requests} == {"/api/v2/alerts"}
    names = {(alert["labels"]["alertname"], alert["labels"]["queue"]) for alert in posted}
    assert names >= {("LaneReadyDepthHigh", "demo"), ("LaneWaitBudgetBurnFast", "demo")}


def test_an_alertmanager_that_is_away_harms_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = demo(*BURST, "--alertmanager", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: notifier alertmanager failed" in done.stdout
    assert "4 of the 4" in done.stdout


# --- stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_explains_what_happened_so_far(number: signal.Signals, code: int) -> None:
    with running("--speed", 10) as process:
        lines_until(process.stdout, "ALERT: LaneReadyDepthHigh")
        process.send_signal(number)
        out, errors = rest(process)
    assert (process.returncode, errors) == (code, "")
    assert "stopping once all that was submitted has ended" in out
    assert "In the end: 60 succeeded, 1 expired" in out or "In the end: 63 succeeded, 1 expired" in out
    assert "Not told: " in out
    assert "serving on" not in out


def test_a_second_signal_cancels() -> None:
    with running("--speed", 2) as process:
        lines_until(process.stdout, "ALERT: LaneReadyDepthHigh")
        process.send_signal(signal.SIGINT)
        lines_until(process.stdout, "stopping once")
        process.send_signal(signal.SIGINT)
        out, errors = rest(process)
    assert (process.returncode, errors) == (130, "")
    assert "cancelled" in out


def test_what_hangs_does_not_hold_up_the_end() -> None:
    with running("--speed", 10) as process:
        lines_until(process.stdout, "ALERT: LaneStalled")
        process.send_signal(signal.SIGINT)
        out, errors = rest(process)
    assert (process.returncode, errors) == (130, "")
    assert "cancelled 5 and the lane went on" in out


# --- bad input


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--for", "5.9"), ("--for", "6")),
        (("--for", "-1"), ("--for",)),
        (("--for", "nan"), ("--for",)),
        (("--for", "inf"), ("--for", "inf")),
        (("--for", "1e30"), ("--for", "1e+30")),
        (("--for", "long"), ("--for",)),
        (("--speed", "0"), ("--speed",)),
        (("--speed", "100"), ("--speed", "20")),
        (("--speed", "nan"), ("--speed",)),
        (("--seed", "x"), ("--seed",)),
        (("--metrics-port", "65536"), ("--metrics-port", "65535")),
        (("--metrics-port", "-1"), ("--metrics-port",)),
        (("--metrics-host", "no.such.host.invalid"), ("--metrics-host", "no.such.host.invalid")),
        (("--otlp-endpoint", "127.0.0.1:4317"), ("--otlp-endpoint", "URL such as")),
        (("--otlp-protocol", "http"), ("--otlp-protocol", "--otlp-endpoint")),
        (("--alertmanager", "127.0.0.1:9093"), ("--alertmanager",)),
        (("--alertmanager", "ftp://127.0.0.1"), ("--alertmanager",)),
        (("--log-file", "/no/such/folder/log"), ("--log-file", "can be written")),
    ],
)
def test_options_that_are_not_allowed(options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    done = demo(*options)
    assert done.returncode == 2, done.stderr
    assert "What happened" not in done.stdout
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_port_in_use_is_told_before_anything_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demo(*SHORT, port=port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"lane-obs: --metrics-port: {port}" in done.stderr
    assert "in use" in done.stderr


# --- on a terminal


def on_a_terminal(*arguments: object) -> str:
    """What it writes on a terminal."""
    command = [sys.executable, "-m", "lane_obs", "demo", "--metrics-port", "0", *map(str, arguments)]
    master, slave = pty.openpty()
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                chunk = os.read(master, 65_536)
            except OSError:  # the end, on Linux
                break
            if not chunk:
                break
            written += chunk
        os.close(master)
        assert process.wait(LIMIT) == 0
    return written.decode()


def test_a_terminal_shows_the_queue_at_work_and_then_the_summary() -> None:
    written = on_a_terminal(*BURST)
    before, _, after = written.partition("\x1b[?1049l")
    assert before.count("\x1b[?1049h") == 1
    assert "\x1b[2J" not in before
    assert "\x1b[2K" not in before
    for part in ("lane-obs demo", "A burst of prompts", "held up by", "█", "LaneReadyDepthHigh in lane 'prompt'"):
        assert part in before
    assert "metrics at" in after
    assert "What happened" in after
    assert "\x1b[?25h" in written  # the cursor is back


def test_a_terminal_gets_plain_lines_where_that_is_wanted() -> None:
    written = on_a_terminal(*SHORT, "--no-screen")
    assert "\x1b[?1049h" not in written
    assert "Steady traffic" in written
