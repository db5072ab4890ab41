"""What a command of the story does in place of real work: it sleeps, fails, hangs, blocks the event loop or cancels."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from lane_obs.clock import sleep, sleep_until
from lane_obs.command import Command
from lane_obs.demo.plan import Does
from lane_obs.errors import RetryAfter
from lane_obs.runtime.handle import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.clock import Clock
    from lane_obs.demo.plan import Step

_RETRY_SECONDS: Final = 0.4


class DemoCommand(Command[None]):
    """One command of the story. Its `command_type` is that of its step.

    Args:
        step: what to do.
        clock: where its time passes.
        block: blocks the event loop for so many seconds.
        cancel: cancels a group of commands.
    """

    def __init__(
        self, step: Step, clock: Clock, *, block: Callable[[float], None], cancel: Callable[[str], None]
    ) -> None:
        self.command_type = step.command_type  # type: ignore[misc]  # one class serves every type of the story
        self._step = step
        self._clock = clock
        self._block = block
        self._cancel = cancel

    async def execute(self) -> None:
        """Takes as long as its step says and ends as it says."""  # noqa: DOC501 - it raises what the step says
        step, attempt = self._step, current().attempt
        if step.does is Does.HANG:
            await sleep_until(self._clock, math.inf)
        elif step.does is Does.BLOCK:
            self._block(step.seconds)
        else:
            await sleep(self._clock, step.seconds)
        if step.cancels:
            self._cancel(step.cancels)
        if attempt <= step.fails:
            raise _error(step.error)


def parse_on_the_loop(seconds: float) -> None:
    """What nobody should do: holds the event loop up for so long."""
    time.sleep(seconds)


def _error(text: str) -> Exception:
    name, _, message = text.partition(": ")
    if name == "RetryAfter":
        return RetryAfter(_RETRY_SECONDS, message)
    return _ERRORS[name](message)


_ERRORS: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind for kind in (ConnectionError, PermissionError, ValueError)
}
