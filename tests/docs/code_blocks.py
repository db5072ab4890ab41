"""Runs the code blocks of README.md and docs/.

A `python` block is a complete program, run in a process of its own with warnings as errors. A `bash` block runs with
this environment's commands on the path. Both run in a temporary copy of the small files that they may name. A `text`
block that follows directly is what they print. A `toml` block is a file that `load_lanes` takes, and `load_alerts`
where it has alerts. An `sh` block is only shown, because it takes long. A block that names the Redis of a usual
installation runs against a real one that is started for the tests; at first there is nothing in it, then what the
blocks of the same document left there.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from lane_obs import load_lanes
from lane_obs.alerts import load_alerts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers.server import Server

ROOT = Path(__file__).resolve().parents[2]
REDIS = "redis://127.0.0.1:6379"
_lexer = FencedCodeBlockLexer(r"[^\n]*")
_SECONDS = 100
# Exit code 1 of lane-obs means that commands of the trace failed for good, as some in the example do.
_BASH_PRELUDE = 'set -euo pipefail\nlane-obs() { command lane-obs "$@" || [ $? -eq 1 ]; }\n'


def blocks(document: Document) -> list[Region]:
    """All fenced blocks, in order; their lexemes are `language` and `source`."""
    return sorted(_lexer(document), key=lambda region: region.start)


def is_run(language: str, source: str) -> bool:
    """Whether a block is run here. Blocks that install are left to .ci/run, which runs README's own."""
    return language in {"python", "toml"} or (language == "bash" and "pip install" not in source)


def parse(document: Document) -> Iterator[Region]:
    """Finds the blocks to run."""
    for block, following in pairwise([*blocks(document), None]):
        assert block is not None
        language, source = block.lexemes["language"], block.lexemes["source"]
        if is_run(language, source):
            prints = None
            if following is not None and following.lexemes["language"] == "text":
                apart = document.text[block.end : following.start].strip()
                prints = None if apart else following.lexemes["source"]
            yield Region(block.start, block.end, (language, source, prints), evaluate)


def evaluate(example: Example) -> None:
    """Runs one block."""
    language, source, prints = example.parsed
    source = with_redis(source, example.document.path)
    if language == "toml":
        path = workplace() / "block.toml"
        path.write_text(source, "utf-8")
        assert load_lanes(path).lanes, "the block defines no lanes"
        if "[alerts" in source:
            load_alerts(path)
        return
    done = run_python(source, example.line) if language == "python" else run_bash(source)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    if prints is not None:
        assert done.stdout == prints


def with_redis(source: str, document: str) -> str:
    """The same block with the URL of a real server, where it names the usual one."""
    return source.replace(REDIS, redis(document).url) if REDIS in source else source


@functools.cache
def redis(_document: str) -> Server:
    """A server for the blocks of one document."""
    from tests.integration.servers.engine import ENGINES, require_engine
    from tests.integration.servers.server import Server

    running = Server(require_engine(ENGINES[0])).__enter__()
    atexit.register(running.__exit__)
    return running


def run_python(source: str, line: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a program; blank lines before it make the line numbers of a traceback those of the document."""
    program = workplace() / "block.py"
    program.write_text("\n" * line + source, "utf-8")
    return _run([sys.executable, "-W", "error", str(program)])


def run_bash(source: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script."""
    return _run(["bash", "-c", _BASH_PRELUDE + source])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, cwd=workplace(), env=environment, capture_output=True, encoding="utf-8", timeout=_SECONDS, check=False
    )


@functools.cache
def workplace() -> Path:
    """A copy of what blocks may read; they may write there too."""
    place = Path(tempfile.mkdtemp(prefix="lane-obs-docs-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return place


documents = Sybil(parsers=[parse], patterns=["README.md", "docs/*.md"], path=str(ROOT))
