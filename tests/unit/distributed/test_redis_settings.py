"""What `RedisBroker` takes."""

from __future__ import annotations

from typing import Any

import pytest

from lane_obs import ConfigError
from lane_obs.distributed import RedisBroker


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("lease", value) for value in (0, 0.05, -1, float("nan"), "30")],
        *[("queue", value) for value in ("", "a{b}", "a\nb", 5, "x" * 201)],
        *[(name, value) for name in ("concurrency", "max_body", "max_result") for value in (0, True, 1.5, "1", 10**20)],
        *[("result_ttl", value) for value in (-1, float("inf"), None)],
        *[(name, value) for name in ("submit_timeout", "timeout") for value in (0, None, "5")],
    ],
)
def test_a_value_that_is_not_allowed_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: .* is not allowed; give "):
        RedisBroker("redis://localhost", **{field: value})
