"""The master dies and a replica takes its place: what was acknowledged before the last moment is there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.check import check
from tests.integration.faults.driver import Field
from tests.integration.faults.history import History
from tests.integration.faults.seed import SEED
from tests.integration.servers.sentinel import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers.engine import Engine
    from tests.integration.servers.server import Server

COUNT = 200
MOMENT = 1.5
"""Seconds before and after the master was killed; a replica lags on a busy machine."""


@pytest.mark.parametrize("how", ["in_step", "sudden"])
def test_a_replica_takes_over(engine: Engine, tmp_path: Path, how: str) -> None:
    """Replication is asynchronous: where the master dies suddenly, the replica knows nothing of its last moment.

    The commands of which something was written down in that moment are left out of what is checked then. Where the
    replica is in step, nothing is.
    """
    print(f"LANE_OBS_FAULT_SEED={SEED}, ledger in {tmp_path}")
    rng = random.Random(SEED)
    with Watched(engine) as servers, Field(servers.url, tmp_path, SEED) as field:
        field.start_all(3, 2, COUNT)
        enough = rng.randrange(50, COUNT)
        field.wait_for(lambda lines: sum(line["what"] == "result" for line in lines) >= enough or None, "traffic")
        field.fault("failover")
        if how == "in_step":
            hold(servers.master)
        servers.fail_over()
        field.mend("failover")
        field.finish()
        history = History(field.lines())
        count = len(history.lives)
        spared = history.forget_around("failover", MOMENT, MOMENT) if how == "sudden" else 0
        print(f"{count - len(history.lives)} of {count} commands were on their way")
        check(history, field.final.returned, may_lose={"failover"}, spared=spared)


def hold(master: Server) -> None:
    """Has a master write nothing more, until its replica knows all."""
    master.ask("CLIENT", "PAUSE", 30_000, "WRITE")

    def in_step() -> bool:
        fields = master.info("replication")
        return f"offset={fields['master_repl_offset']}," in fields["slave0"]

    master.wait_for(in_step, "a replica in step")
