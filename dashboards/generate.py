"""Writes the generated files of this folder.

python -m dashboards.generate            # write
python -m dashboards.generate --check    # exit 1 and name the files that are stale or missing
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards import alerts, consoles, grafana

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent

OUTPUTS: dict[str, Callable[[], str]] = {
    # Each module says which files it makes: name in this folder, and what makes its text.
    **alerts.OUTPUTS,
    **consoles.OUTPUTS,
    **grafana.OUTPUTS,
}


def stale(name: str) -> bool:
    """Whether a file is missing or not what it should be."""
    path = ROOT / name
    return not path.is_file() or path.read_text("utf-8") != OUTPUTS[name]()


def main(arguments: list[str]) -> int:
    """Writes all files, or with `--check` names the stale ones; returns the exit code."""
    check = "--check" in arguments
    names = [name for name in OUTPUTS if stale(name)]
    for name in names:
        if not check:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(OUTPUTS[name](), "utf-8")
        sys.stdout.write(f"{'stale' if check else 'written'}: dashboards/{name}\n")
    return 1 if names and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
