"""Waits in async tests of real servers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(check: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns once the check holds. For what can only be asked again and again."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)
