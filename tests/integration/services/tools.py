"""Finds the foreign programs that integration tests run. One that is missing skips the test; in CI it fails it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

_PACKAGES: Final = {
    "prometheus": "the Debian package prometheus",
    "promtool": "the Debian package prometheus",
    "prometheus-alertmanager": "the Debian package prometheus-alertmanager",
    "amtool": "the Debian package prometheus-alertmanager",
    "chromium": "the Debian package chromium",
    "redis-server": "the Debian package redis-server",
}


def missing(reason: str) -> NoReturn:
    """Ends the test: a failure where `CI` is set, since there everything must be installed; else a skip."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed: it comes with {_PACKAGES.get(name, name)}")
    return found


def require_rotel() -> str:
    """The path of the binary in the package rotel, which is not imported for it."""
    spec = importlib.util.find_spec("rotel")
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place) / "rotel-agent"
        if os.access(binary, os.X_OK):
            return str(binary)
    return missing("rotel is not installed: pip install rotel")


def require_oteltap() -> None:
    """Looks for the package oteltap, which runs as a process of its own."""
    if importlib.util.find_spec("oteltap") is None:
        missing("oteltap is not installed: pip install oteltap")
