"""`lane-obs stats`: a queue that many processes share, at one moment or all the time."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.box import SIMPLE
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from lane_obs.cli.broker import Queue, Url, joined, to_url
from lane_obs.cli.folder import NOTHING, Json, complain, complaining, count, print_json, run, shown, stdout
from lane_obs.clock import SystemClock, sleep
from lane_obs.runtime.run import told_to_stop

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lane_obs.cli.screen import PipeConsole
    from lane_obs.distributed import Broker
    from lane_obs.distributed.view import BrokerStats

_LEAST_SECONDS: Final = 0.1


def stats_command(
    url: Url = None,
    *,
    queue: Queue = "default",
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=_LEAST_SECONDS, metavar="SECONDS", help="How often, with --watch.")] = 1.0,
    json: Json = False,
) -> None:
    """Print the lanes and the processes of a queue at a broker. Changes nothing.

    Exit code: 0 done, 1 there is no such queue, 2 bad input, or the broker cannot be asked.
    """
    console = stdout()
    with complaining():
        place = to_url(url)

    async def main() -> int:
        async with joined(place, queue) as broker:
            look = _Look(console, broker, queue, json=json)
            return await look.watch(every) if watch else await look.once()

    run(console, main())


class _Look:
    """Asks a broker and shows what it says."""

    def __init__(self, console: PipeConsole, broker: Broker, queue: str, *, json: bool) -> None:
        self._console = console
        self._broker = broker
        self._queue = queue
        self._json = json

    async def once(self) -> int:
        stats = await self._broker.stats()
        if self._json:
            print_json(self._console, self._plain(stats))
        elif stats.version:
            self._console.print(self._picture(stats))
        if stats.version:
            return 0
        complain(f"there is no queue {self._queue!r}")
        return NOTHING

    async def watch(self, seconds: float) -> int:
        """Looks until it is told to stop; a pipe gets a line of JSON, or the tables, each time."""
        clock, told = SystemClock(), asyncio.Event()
        live = Live(console=self._console, auto_refresh=False) if self._is_terminal() else nullcontext()
        with told_to_stop(lambda _: told.set()), live as screen:
            while not told.is_set() and not self._console.quiet:
                self._show(await self._broker.stats(), screen)
                pause = asyncio.ensure_future(sleep(clock, seconds))
                ending = asyncio.ensure_future(told.wait())
                await asyncio.wait([pause, ending], return_when=asyncio.FIRST_COMPLETED)
                for waiting in (pause, ending):
                    waiting.cancel()
        return 0

    def _is_terminal(self) -> bool:
        return not self._json and self._console.is_terminal and not self._console.is_dumb_terminal

    def _show(self, stats: BrokerStats, screen: Live | None) -> None:
        if self._json:
            line = msgspec.json.encode(self._plain(stats)).decode()
            self._console.print(line, markup=False, soft_wrap=True)
        elif screen is None:
            self._console.print(self._picture(stats))
        else:
            screen.update(self._picture(stats), refresh=True)

    def _plain(self, stats: BrokerStats) -> dict[str, Any]:
        others = [member for member in stats.members if member.id != self._broker.member]
        return {"queue": self._queue, **msgspec.structs.asdict(msgspec.structs.replace(stats, members=others))}

    def _picture(self, stats: BrokerStats) -> RenderableType:
        return Group(Text(_head(self._queue, stats)), _lanes(stats), _members(stats, self._broker.member))


def _head(queue: str, stats: BrokerStats) -> str:
    ended = ", ".join(f"{state.replace('_', ' ')} {number:,}" for state, number in stats.ended.items() if number)
    most = "" if stats.max_concurrency is None else f"; at most {stats.max_concurrency:,} run at once"
    returned = f"; leases lost: {stats.returned:,}" if stats.returned else ""
    evicted = f" ({stats.evicted:,} gave way)" if stats.evicted else ""
    return (
        f"queue {shown(queue)}: {count(stats.submitted, 'command')} submitted, ended: {ended or 'none'}"
        f"; {count(stats.letters, 'dead letter')}{evicted}{returned}{most}"
    )


_LANE_COLUMNS: Final = ("priority", "ready", "delayed", "backoff", "running", "limit", "oldest ready", "dead", "state")
_MEMBER_COLUMNS: Final = ("does", "running", "slots", "lease left")


def _lanes(stats: BrokerStats) -> Table:
    table = _table("lane", _LANE_COLUMNS)
    for name, lane in sorted(stats.lanes.items(), key=lambda item: (item[1].priority, item[0])):
        counts = (lane.priority, lane.ready, lane.delayed, lane.backoff, lane.running, lane.max_concurrency)
        age = "-" if lane.oldest_ready_age is None else _seconds(lane.oldest_ready_age)
        cells = (*(f"{number:,}" for number in counts), age, f"{lane.dead:,}", "paused" if lane.paused else "")
        table.add_row(Text(shown(name)), *cells)
    return table


def _members(stats: BrokerStats, own: str) -> Table:
    table = _table("process", _MEMBER_COLUMNS)
    for member in sorted(stats.members, key=lambda member: (not member.works, member.id)):
        if member.id != own:
            does = "works" if member.works else "submits"
            slots = f"{member.concurrency:,}" if member.works else "-"
            table.add_row(Text(shown(member.id)), does, f"{member.running:,}", slots, _seconds(member.lease_left))
    return table


def _table(first: str, columns: tuple[str, ...]) -> Table:
    table = Table(Column(first, overflow="fold"), box=SIMPLE)
    for heading in columns:
        table.add_column(heading, justify="right")
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"
