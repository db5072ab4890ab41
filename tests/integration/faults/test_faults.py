"""Workers, producers, server and network fail at random; an independent ledger says that the queue kept its word."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.check import Lost, check
from tests.integration.faults.driver import Field
from tests.integration.faults.harm import HARMS, Scene
from tests.integration.faults.history import History
from tests.integration.faults.leftover import check_leftovers, leftovers
from tests.integration.faults.rules import RULES
from tests.integration.faults.seed import ROUNDS, SEED
from tests.integration.servers.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.integration.servers.server import Server

    Play = Callable[[Sequence[str]], Lost]

MANY = 1_000_000


@pytest.fixture
def play(start_server: Callable[..., Server], tmp_path: Path) -> Iterator[Play]:
    """Lets harm come over three workers and two producers, and checks the ledger at the end."""
    print(f"LANE_OBS_FAULT_SEED={SEED} LANE_OBS_FAULT_ROUNDS={ROUNDS}, ledger in {tmp_path}")
    with contextlib.ExitStack() as open_:
        server = start_server(aof="always")
        proxy = open_.enter_context(Proxy(server.port))
        field = open_.enter_context(Field(proxy.url, tmp_path, SEED, direct_url=server.url))
        rng = random.Random(SEED)

        def act(kinds: Sequence[str]) -> Lost:
            field.start_all(3, 2, MANY)
            scene = Scene(field, server, proxy, rng)
            for kind in kinds:
                scene.pause()
                HARMS[kind][0](scene)
            scene.pause()
            field.stop_producers()
            field.finish()
            print(leftovers(server))
            check_leftovers(server, len(RULES))
            may_lose = {fault for kind in kinds for fault in HARMS[kind][1]}
            return check(History(field.lines()), field.final.returned, may_lose=may_lose)

        yield act


@pytest.mark.parametrize("kind", HARMS)
def test_one_kind_of_harm(play: Play, kind: str) -> None:
    play([kind] * ROUNDS)


def test_no_harm(play: Play) -> None:
    assert play([]) == (0, 0)


def test_all_kinds_of_harm(play: Play) -> None:
    rng = random.Random(SEED)
    play(rng.choices(list(HARMS), k=3 * ROUNDS))
