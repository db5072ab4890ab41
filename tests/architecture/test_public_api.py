from __future__ import annotations

import difflib
import inspect
from typing import Any

import pytest

import lane_obs
from tests.architecture.public_api import SNAPSHOT, render

PUBLIC = {name: getattr(lane_obs, name) for name in lane_obs.__all__}
DOCUMENTED = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing) or callable(thing)}


def test_the_public_api_is_the_one_written_down() -> None:
    known, now = SNAPSHOT.read_text("utf-8").splitlines(), render().splitlines()
    changes = "\n".join(difflib.unified_diff(known, now, "public_api.txt", "lane_obs", lineterm="", n=1))
    assert not changes, f"if this is wanted: python -m tests.architecture.public_api\n{changes}"


def test_all_lists_every_public_name_of_the_package_once() -> None:
    assert len(set(lane_obs.__all__)) == len(lane_obs.__all__)
    imported = {
        name for name, thing in vars(lane_obs).items() if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert imported == set(lane_obs.__all__)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_public_name_and_member_has_a_docstring(name: str) -> None:
    thing = DOCUMENTED[name]
    bare = [] if inspect.getdoc(thing) else [name]
    if inspect.isclass(thing):
        bare += [f"{name}.{member}" for member, value in own_members(thing) if not inspect.getdoc(value)]
    assert not bare


def own_members(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, getattr(kind, name))
        for base in kind.__mro__
        if base.__module__.startswith("lane_obs")
        for name, member in vars(base).items()
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    ]


def test_every_error_derives_from_the_one_base() -> None:
    errors = [thing for thing in PUBLIC.values() if inspect.isclass(thing) and issubclass(thing, BaseException)]
    assert len(errors) > 15
    assert all(issubclass(error, lane_obs.LaneObsError) for error in errors)
