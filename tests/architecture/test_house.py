"""The rules of the house that no other tool checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lane_obs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lane_obs"
MODULES = sorted(PACKAGE.rglob("*.py"))

MOST_LINES = 300
LARGER: dict[str, str] = {}
"""Modules that may have more lines, by path in the package, each with its reason."""

NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
VENDORS = [
    "structlog", "prometheus_client", "opentelemetry", "uvloop", "typer", "click", "rich", "redis", "hiredis",
    "pydantic", "httpx",
]  # fmt: skip


def path_in_package(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def test_no_module_is_too_large_to_read_at_once() -> None:
    sizes = {path_in_package(module): len(module.read_text("utf-8").splitlines()) for module in MODULES}
    assert len(sizes) > 20
    assert {name: size for name, size in sizes.items() if size > MOST_LINES and name not in LARGER} == {}


def test_no_exception_to_the_size_is_out_of_date() -> None:
    known = {path_in_package(module) for module in MODULES if len(module.read_text("utf-8").splitlines()) > MOST_LINES}
    assert set(LARGER) <= known


def test_no_module_or_folder_is_named_after_nothing() -> None:
    names = {part for module in MODULES for part in module.relative_to(PACKAGE).with_suffix("").parts}
    assert names & NO_NAMES == set()


def test_every_module_says_what_lives_there() -> None:
    bare = [path_in_package(module) for module in MODULES if not module.read_text("utf-8").startswith('"""')]
    assert bare == []


def test_the_package_is_marked_as_typed() -> None:
    assert Path(lane_obs.__file__).with_name("py.typed").is_file()


def test_importing_the_package_loads_no_vendor_library() -> None:
    program = f"import sys, lane_obs; print([name for name in {VENDORS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_importing_the_package_starts_no_thread() -> None:
    program = "import threading, lane_obs; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1\n"


def test_imports_go_from_the_outside_in() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
