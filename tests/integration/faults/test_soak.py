"""Very many commands: each runs once, and neither the server nor its clients keep anything of those that are over."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults import soak
from tests.integration.faults.driver import Field
from tests.integration.faults.leftover import check_leftovers, leftovers
from tests.integration.faults.seed import SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.server import Server

COUNT = int(os.environ.get("LANE_OBS_SOAK", "100_000"))
WORKERS = 2
PAGE = os.sysconf("SC_PAGE_SIZE")
MEBIBYTE = 2**20


@dataclasses.dataclass
class Sample:
    """How much there is at one moment: commands submitted, bytes at the server and in each process, keys, elements."""

    submitted: int
    server: int
    processes: dict[str, int]
    keys: int
    elements: int


def sample(field: Field, server: Server) -> Sample:
    submitted = [line["count"] for line in field.lines() if line["what"] == "submitted"]
    sizes = {p.who: int(Path(f"/proc/{p.pid}/statm").read_text().split()[1]) * PAGE for p in field.processes if p.lives}
    left = leftovers(server)
    elements = sum(size for size, _ in left.values())
    memory = int(server.info("memory")["used_memory"])
    return Sample(submitted[-1] if submitted else 0, memory, sizes, len(left), elements)


@pytest.mark.timeout(60 + COUNT // 200)
def test_memory_is_flat(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    with Field(server.url, tmp_path, SEED) as field:
        order = {"main": soak.main, "count": COUNT, "runs": str(tmp_path)}
        began = time.monotonic()
        producer, *_ = [field.start(role, wait=False, **order) for role in ("producer", *["worker"] * WORKERS)]
        samples = []
        while producer.lives:
            samples.append(sample(field, server))
            time.sleep(0.5)
        took = time.monotonic() - began
        field.finish()
        check_leftovers(server, len(soak.LANES))
        lasting = [key for key, (_, expiry) in leftovers(server).items() if expiry < 0]
        rest = sum(server.ask("MEMORY", "USAGE", key, "SAMPLES", 0) for key in lasting)
        assert rest < 16 * 1024
        for each in samples[:: max(1, len(samples) // 12)]:
            print(each)
        print(f"{COUNT} commands in {took:.1f} s; {rest} bytes stay at the server")
        runs = [(tmp_path / f"worker-{number}").read_bytes() for number in (1, 2)]
        assert all(sum(counts) == 1 for counts in zip(*runs, strict=True))
        assert field.final.ended == {"succeeded": COUNT}
        check_flat(samples)


def check_flat(samples: list[Sample]) -> None:
    """The last third of the way has no more than the middle one, but for some slack."""
    middle = [each for each in samples if COUNT / 3 <= each.submitted < COUNT * 2 / 3]
    last = [each for each in samples if each.submitted >= COUNT * 2 / 3 and len(each.processes) > WORKERS]
    assert middle
    assert last
    assert max(each.keys for each in last) <= max(each.keys for each in middle) + 3
    # Results are kept for a time, so that there are more of them when the machine is faster.
    assert max(each.server for each in last) < 1.5 * max(each.server for each in middle) + 2 * MEBIBYTE
    for who in last[0].processes:
        most = max(each.processes[who] for each in last)
        before = max(each.processes[who] for each in middle)
        assert most < before + 3 * MEBIBYTE, f"{who} grew from {before} to {most} bytes"
