"""Leases: how soon others take over, what a blocked loop and wrong clocks cost, how a server without memory empties."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.faults.check import check
from tests.integration.faults.driver import Field, Slack
from tests.integration.faults.history import History
from tests.integration.faults.leftover import check_leftovers
from tests.integration.faults.rules import RULES
from tests.integration.faults.seed import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.faults.ledger import Line
    from tests.integration.servers.server import Server

COMMANDS = 4
FOR_EVER = 1000.0


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.fixture
def field(server: Server, tmp_path: Path) -> Iterator[Field]:
    print(f"LANE_OBS_FAULT_SEED={SEED}, ledger in {tmp_path}")
    with Field(server.url, tmp_path, SEED) as field:
        yield field


def started(count: int, attempt: int) -> Callable[[list[Line]], Any]:
    """Whether so many commands have begun an attempt."""

    def check_lines(lines: list[Line]) -> Any:
        found = [line for line in lines if line["what"] == "start" and line["attempt"] == attempt]
        return found if len(found) == count else None

    return check_lines


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_what_a_lost_worker_ran_starts_elsewhere_within_a_lease_and_a_second(field: Field, harm: str) -> None:
    field.lease = 1.0
    with Slack() as slack:
        victim = field.start("worker")
        field.start("single", command="linger", count=COMMANDS, seconds=FOR_EVER)
        field.wait_for(started(COMMANDS, 1), "all run")
        field.start("worker")
        if harm == "kill":
            field.kill(victim)
        else:
            field.freeze(victim)
        begun = field.wait_for(started(COMMANDS, 2), "all run elsewhere")
    at = next(line["at"] for line in field.lines() if line["what"] == "fault")
    took = max(line["at"] for line in begun) - at
    print(f"taken over within {took:.3f} s of a lease of {field.lease} s; this machine is late by {slack.worst:.3f} s")
    if harm == "freeze":
        field.thaw(victim)
        field.wait_for(lambda lines: [x for x in lines if x["what"] == "lease_lost"] or None, "it is told")
        field.kill(victim)
    field.finish()
    assert check(History(field.lines()), field.final.returned, may_lose={harm}) == (COMMANDS, 0)
    assert field.lease * 0.5 < took < field.lease + 1.0 + slack.worst


def test_a_blocked_loop_keeps_its_work(field: Field) -> None:
    field.lease = 1.0
    field.start("worker")
    producer = field.start("single", command="block", count=1, seconds=3 * field.lease)
    field.wait_for(started(1, 1), "it runs")
    field.start("worker")
    assert producer.end() == 0
    field.finish()
    assert check(History(field.lines()), field.final.returned) == (0, 0)


def test_wrong_clocks_change_nothing(field: Field) -> None:
    """Clocks that are hours off, and whose wall time jumps."""
    roles = {"worker": (5.0, -30.0, 0.5), "producer": (100.0, -2.0)}
    processes = [
        field.start(role, wait=False, skew=hours, count=120) for role, skews in roles.items() for hours in skews
    ]
    field.wait_up(processes)
    field.finish()
    assert check(History(field.lines()), field.final.returned) == (0, 0)


def test_a_server_without_memory_is_emptied(field: Field, server: Server) -> None:
    """Nothing new comes in, but workers join, run what there is, and tell of its end."""
    field.start("producer", count=120)
    field.wait_for(lambda lines: sum(line["what"] == "ack" for line in lines) >= 24 or None, "a backlog")
    server.ask("CONFIG", "SET", "maxmemory", 1)
    workers = [field.start("worker", wait=False) for _ in range(2)]
    field.wait_up(workers)
    field.wait_for(lambda lines: any(line["what"] == "refused" for line in lines) or None, "a refusal")
    field.wait_for(lambda _: field.is_idle() or None, "an empty queue")
    time.sleep(field.lease)
    server.ask("CONFIG", "SET", "maxmemory", 0)
    field.finish()
    assert check(History(field.lines()), field.final.returned) == (0, 0)
    check_leftovers(server, len(RULES))
