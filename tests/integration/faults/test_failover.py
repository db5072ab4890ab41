"""The master dies and a replica takes its place: what was acknowledged before the last moment is there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.integration.faults.check import check
from tests.integration.faults.driver import Field
from tests.integration.faults.history import History
from tests.integration.faults.seed import SEED
from tests.integration.servers.sentinel import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers.engine import Engine

COUNT = 200
MOMENT = 0.1
"""Seconds before and after the master was killed."""


def test_a_replica_takes_over(engine: Engine, tmp_path: Path) -> None:
    """Replication is asynchronous: of the master's last moment the replica may know nothing.

    So the commands of which something was written down in that moment are left out of what is checked.
    """
    print(f"LANE_OBS_FAULT_SEED={SEED}, ledger in {tmp_path}")
    rng = random.Random(SEED)
    with Watched(engine) as servers, Field(servers.url, tmp_path, SEED) as field:
        field.start_all(3, 2, COUNT)
        enough = rng.randrange(50, COUNT)
        field.wait_for(lambda lines: sum(line["what"] == "result" for line in lines) >= enough or None, "traffic")
        field.fault("failover")
        servers.fail_over()
        field.mend("failover")
        field.finish()
        history = History(field.lines())
        count = len(history.lives)
        spared = history.forget_around("failover", MOMENT, MOMENT)
        print(f"{count - len(history.lives)} of {count} commands were on their way")
        check(history, field.final.returned, may_lose={"failover"}, spared=spared)
