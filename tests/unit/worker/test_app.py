"""What `module:name` may be, and what is said of all else."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lane_obs import ConfigError, QueueManager
from lane_obs.worker.app import find_app, make_manager


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("app", "module:name"),
        ("app:", "module:name"),
        (":app", "module:name"),
        ("no_such_module:app", "importing 'no_such_module' raised ModuleNotFoundError"),
        ("os:nothing", "'os' has no 'nothing'"),
        ("os:path.nothing", "'os' has no 'path.nothing'"),
    ],
)
def test_what_is_not_there_is_named(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_app(name)


def test_a_name_may_lead_through_others() -> None:
    assert find_app("os:path.join") is os.path.join


async def make_late() -> QueueManager:
    return QueueManager()


@pytest.mark.parametrize("app", [QueueManager(), QueueManager, lambda: QueueManager(), make_late])
async def test_an_app_is_a_queue_or_makes_one(app: Any) -> None:
    assert isinstance(await make_manager("x:y", app), QueueManager)


@pytest.mark.parametrize(("app", "made"), [(5, "int"), ("text", "str"), (lambda: None, "NoneType")])
async def test_anything_else_is_refused(app: Any, made: str) -> None:
    with pytest.raises(ConfigError, match=f"it is a {made}; give a QueueManager"):
        await make_manager("x:y", app)
