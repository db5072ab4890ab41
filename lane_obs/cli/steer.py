"""`lane-obs pause`, `resume` and `cancel`: steer a queue that many processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from lane_obs.cli.broker import Queue, UrlOption, joined, to_url
from lane_obs.cli.folder import NOTHING, complain, complaining, run, stdout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lane_obs.cli.screen import PipeConsole
    from lane_obs.distributed import Broker

_CANCELLED: Final = {
    "cancelled": "cancelled {}",
    "running": "told the process that runs {}",
}

_Lane = Annotated[str, typer.Argument(metavar="LANE", help="The lane's name.")]
_Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of commands.")]


def pause_command(lane: _Lane, *, url: UrlOption = None, queue: Queue = "default") -> None:
    """Have no process start commands of a lane until it is resumed. What runs goes on; submits are taken in.

    Exit code: 0 done, also where it was paused before; 2 bad input, no such lane, or the broker cannot be asked.
    """
    _ask(url, queue, lambda broker, console: _set_paused(broker, console, lane, paused=True))


def resume_command(lane: _Lane, *, url: UrlOption = None, queue: Queue = "default") -> None:
    """End a pause.

    Exit code: 0 done, also where it was not paused; 2 bad input, no such lane, or the broker cannot be asked.
    """
    _ask(url, queue, lambda broker, console: _set_paused(broker, console, lane, paused=False))


def cancel_command(ids: _Ids, *, url: UrlOption = None, queue: Queue = "default") -> None:
    """Cancel commands, whoever has them: one that waits is gone, of one that runs the process is told.

    Exit code: 0 done, 1 one of them does not live (the others are done), 2 bad input, or the broker cannot be asked.
    """
    _ask(url, queue, lambda broker, console: _cancel(broker, console, ids))


async def _set_paused(broker: Broker, console: PipeConsole, lane: str, *, paused: bool) -> int:
    changed = await broker.set_paused(lane, paused=paused)
    did = "paused" if paused else "resumed"
    was = "it was paused before" if paused else "it was not paused"
    _print(console, f"{did} {lane!r}" if changed else f"nothing to do for {lane!r}: {was}")
    return 0


async def _cancel(broker: Broker, console: PipeConsole, ids: list[str]) -> int:
    code = 0
    for id_ in dict.fromkeys(ids):
        answer = await broker.cancel(id_)
        if answer in _CANCELLED:
            _print(console, _CANCELLED[answer].format(repr(id_)))
        else:
            complain(f"there is no live command {id_!r}")
            code = NOTHING
    return code


def _ask(url: str | None, queue: str, call: Callable[[Broker, PipeConsole], Awaitable[int]]) -> None:
    console = stdout()
    with complaining():
        place = to_url(url)

    async def main() -> int:
        async with joined(place, queue) as broker:
            return await call(broker, console)

    run(console, main())


def _print(console: PipeConsole, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
