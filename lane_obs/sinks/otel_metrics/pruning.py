"""Takes the series of removed lanes out of the OpenTelemetry SDK, which has no public way to do so.

The SDK shows a histogram's attribute set, once there was a value, for as long as the process lives, and takes no new
ones after 2,000 of them. A version that keeps them elsewhere goes on showing them; nothing else changes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from opentelemetry.metrics import MeterProvider

_logger: Final = logging.getLogger("lane_obs.sinks")


def prune(provider: MeterProvider, scope: str, queue: str, lanes: Collection[str]) -> None:
    """Has a provider forget lanes of a queue.

    Args:
        provider: one of the SDK's; another is left alone.
        scope: the name of the instrumentation scope whose instruments these are.
        queue: value of the attribute `queue`.
        lanes: values of the attribute `lane`.
    """
    try:
        for match in _matches(provider, scope):
            with match._lock:  # noqa: SLF001 - see above
                kept = match._attributes_aggregation  # noqa: SLF001
                for key in [key for key, one in kept.items() if _is_about(one, queue, lanes)]:
                    del kept[key]
    except (AttributeError, TypeError) as error:
        _logger.debug("this version of the SDK keeps the series of removed lanes", exc_info=error)


def _matches(provider: Any, scope: str) -> Iterator[Any]:
    """Where values are added up: one for each instrument, view and reader."""
    for storage in list(provider._measurement_consumer._reader_storages.values()):  # noqa: SLF001
        for instrument, matches in list(storage._instrument_view_instrument_matches.items()):  # noqa: SLF001
            if instrument.instrumentation_scope.name == scope:
                yield from matches


def _is_about(aggregation: Any, queue: str, lanes: Collection[str]) -> bool:
    attributes = aggregation._attributes or {}  # noqa: SLF001
    return attributes.get("queue") == queue and attributes.get("lane") in lanes
