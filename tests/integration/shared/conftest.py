"""Brokers of every kind, each test with a queue of its own."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.distributed import LocalBroker

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.distributed import Broker

_numbers = itertools.count()


@pytest.fixture(params=["local"])
def join(request: pytest.FixtureRequest) -> Callable[..., Broker]:
    """Makes a member of this test's queue, with the options of its broker."""
    first: list[LocalBroker] = []

    def member(**options: Any) -> Broker:
        if not first:
            first.append(LocalBroker(f"test-{os.getpid()}-{next(_numbers)}", **options))
            return first[0]
        return first[0].join(concurrency=options.get("concurrency"))

    return member
