"""Every program in examples/ runs by itself and prints what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MOST_LINES = 60

PRINTS = {
    "basic_usage.py": """\
Result: {'processed': 'hello'}
""",
    "command_timeout.py": """\
told to stop
CommandTimeout in lane api
told to stop
CommandExpired in lane api
""",
    "custom_lanes.py": """\
high-priority
normal
background
""",
    "dead_letter_queue.py": """\
Failed: save - row 1: the database is down
Failed: save - row 2: the database is down
row 1 saved
row 2 saved
0 dead letters left
""",
    "event_subscription.py": """\
all: queue.started
all: queue.command.submitted
all: queue.command.started
all: queue.command.completed
all: queue.shutdown.started
all: queue.shutdown.complete
all: queue.closed
commands: queue.command.submitted
commands: queue.command.started
commands: queue.command.completed
""",
    "graceful_shutdown.py": """\
the queue is shutting down and takes no new work
left: {'api': {'ready': 2, 'running': 1}}
ended meanwhile: 3
All commands completed, safe to exit
""",
    "lane_for_each_conversation.py": """\
ann: HI
bob: HELLO
ann: ARE YOU THERE?
max_concurrency: 8 is not allowed; give at least 9: the lanes reserve 9 slots (min_concurrency: control 1 + greedy 8)
unknown lane 'bob'; known lanes: 'control'
lanes: ['control'], removed: 2, ran: 4
""",
    "llm_tokens.py": """\
 0.0 s anna1 starts
 1.0 s bert1 starts
 6.0 s anna2 starts
 8.0 s bert2 starts
10.0 s anna3 starts
19.0 s bert3 starts
anna waited 16.0 s for tokens
bert waited 28.0 s for tokens
""",
    "own_sink.py": """\
1 queue.closed
3 queue.command.completed
3 queue.command.started
3 queue.command.submitted
1 queue.shutdown.complete
1 queue.shutdown.started
1 queue.started
""",
    "own_storage.py": """\
stored: ['7']
""",
    "queue_monitoring.py": """\
Pending: 3, Active: 2
QueuePendingHigh: pending 3 > 2 (warning, firing)
LaneSaturated: saturation 1.0 > 0.95 (warning, pending)
""",
    "retry_policies.py": """\
attempt 4 went through
waited 7.0 s, backoff 7.0 s
attempt 1 was refused; next one after 1.0 s
attempt 2 was refused; next one after 2.0 s
attempt 3 was refused; next one after 4.0 s
""",
    "shared_queue.py": """\
['sent to reader0@example.org', 'sent to reader1@example.org', 'sent to reader2@example.org']
ValueError - no address: nobody
['mail.send']
1 dead letter removed
""",
    "threads.py": """\
9 from a thread, lane cpu, attempt 1
other thread got: 16 from a thread, lane cpu, attempt 1
""",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_prints_what_it_should(name: str) -> None:
    command = [sys.executable, "-W", "error", name]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, PRINTS[name], "")


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < MOST_LINES
