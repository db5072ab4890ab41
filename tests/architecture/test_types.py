from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def strictly(*paths: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--no-error-summary", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


def test_a_users_program_has_the_types_it_should_have() -> None:
    examples = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").glob("*.py"))]
    done = strictly("tests/architecture/typed_usage.py", *examples)
    assert len(examples) > 5
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
