"""What really happened, in the words of those it happened to. It imports nothing of the product.

Every process appends lines to one file, each with one `write`, so that they outlive a SIGKILL; the times are those of
CLOCK_MONOTONIC, which all processes of a machine share. What is noted:

- `ask`, `ack`, `result`: a producer is about to submit, has an acknowledgement, has a result;
- `claim`: a worker was given a command (`asked` is when it asked for it, or asked last before it was pushed);
- `start`, `end`: an attempt's first and last step;
- `told`: a worker is about to tell the broker of ends (`ids`);
- `lost`, `stale`: a worker heard that a lease is gone, or that an end of its was refused;
- `fault`: the driver is about to do something to somebody (`who`; empty for all).
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Line = dict[str, Any]


class Ledger:
    """One process's end of the file."""

    def __init__(self, path: str | Path, who: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._who = who

    def note(self, what: str, **fields: Any) -> None:
        """Writes a line down."""
        line = json.dumps({"what": what, "at": time.monotonic(), "who": self._who, "pid": os.getpid(), **fields})
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Line]:
    """All lines, in the order in which they were written, but for one that is just being written."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
