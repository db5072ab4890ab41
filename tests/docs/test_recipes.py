from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RECIPES = {
    "bench", "check", "ci", "clean", "cov", "cov-html", "cov-module", "default", "doc", "faults", "fmt", "fmt-check",
    "lint", "test", "test-config", "test-error", "test-event", "test-manager", "test-monitor", "test-one",
    "soak", "test-queue", "test-v", "update",
}  # fmt: skip
"""Those of the reference, and `soak` and `faults`."""
ARGUMENTS = {"test-one": ["submit"], "cov-module": ["core"]}


def just(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("just"), "--justfile", ROOT / "justfile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_justfile_has_the_recipes_of_the_reference() -> None:
    done = just("--summary")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == RECIPES


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_is_well_formed(recipe: str) -> None:
    done = just("--dry-run", recipe, *ARGUMENTS.get(recipe, []))
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip(), "it does nothing"


@pytest.mark.parametrize("recipe", ["fmt-check", "lint", "test"])
def test_ci_is_made_of_its_parts(recipe: str) -> None:
    alone, whole = just("--dry-run", recipe).stderr.splitlines(), just("--dry-run", "ci").stderr.splitlines()
    assert [line for line in alone if line not in whole] == []


def test_every_recipe_is_explained_in_the_contributors_guide() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [recipe for recipe in RECIPES - {"default"} if f"just {recipe}" not in text] == []


def test_the_ci_script_can_be_run_and_is_well_formed() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in script.read_text("utf-8")


def test_the_ci_script_stops_when_the_tests_fail(tmp_path: Path) -> None:
    """`set -e` alone overlooks a failure in the middle of an && list."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python3").write_text('#!/bin/sh\ncase "$*" in *venv*) echo "making the venv" ; exit 7 ;; esac\n', "utf-8")
    (fake / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 7
    assert "making the venv" in done.stdout
    assert "=== format" not in done.stdout
