"""What the suites share: queues that are closed again, also where pytest-benchmark runs each workload just once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from benchmarks.workload import OpenQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lane_obs import LaneConfig


class Opener(Protocol):
    """Opens a queue as `OpenQueue` does, after closing the one it opened before."""

    def __call__(self, loop: str, lanes: Mapping[str, LaneConfig] | None = None, **options: Any) -> OpenQueue: ...


@pytest.fixture
def open_queue() -> Iterator[Opener]:
    opened: list[OpenQueue] = []

    def close() -> None:
        while opened:
            opened.pop().close()

    def opener(loop: str, lanes: Mapping[str, LaneConfig] | None = None, **options: Any) -> OpenQueue:
        close()
        opened.append(OpenQueue(loop, lanes, **options))
        return opened[-1]

    yield opener
    close()
