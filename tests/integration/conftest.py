"""Foreign programs for the tests: a real Prometheus and real receivers of OTLP, each test with its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.services.otlp import Collector, Tap
from tests.integration.services.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus that scrapes `{job: "host:port"}`, with the options of `Prometheus`."""
    with contextlib.ExitStack() as running:

        def start(targets: dict[str, str], **options: Any) -> Prometheus:
            return running.enter_context(Prometheus(tmp_path / "prometheus", targets, **options))

        yield start


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A running rotel that prints spans."""
    with Collector(tmp_path) as running:
        yield running


@pytest.fixture
def tap() -> Iterator[Tap]:
    """A running oteltap."""
    with Tap() as running:
        yield running
