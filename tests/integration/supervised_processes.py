"""What a supervisor shows of its processes, one of which gives no answer and is replaced over and over."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from lane_obs.http.merged import MergedMetrics, Worker
from lane_obs.http.text import write_families
from tests.integration.services.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric


class Supervised:
    """A collector of them."""

    def __init__(self) -> None:
        self._looks = itertools.count()
        self._url = f"http://127.0.0.1:{free_port()}"
        self._metrics = MergedMetrics(self._workers)

    def _workers(self) -> Sequence[Worker]:
        looks = next(self._looks)
        return [
            Worker("0", 1, None, "ready", {"died": 0, "rolled": 0}),
            Worker("1", 1, self._url, "starting", {"died": looks, "rolled": looks}),
        ]

    def collect(self) -> Iterator[Metric]:
        """All that is shown."""
        return text_string_to_metric_families(write_families(self._metrics.families(), "")[0].decode())
