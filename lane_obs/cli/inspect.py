"""`lane-obs inspect`: what waits in the folder of a queue that does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from lane_obs.alerts.expression import duration
from lane_obs.cli.folder import (
    BAD_INPUT,
    Folder,
    Json,
    complain,
    count,
    iso,
    now,
    opened,
    print_json,
    run,
    shown,
    stdout,
    told,
)
from lane_obs.cli.letters import pages
from lane_obs.errors import StorageError
from lane_obs.storage import LetterFilter

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.cli.screen import PipeConsole
    from lane_obs.storage import LocalStorage, WaitingCommands

_VERSION_AT: Final = 60
"""Where in an SQLite file its schema version is, four bytes, big end first."""


class Letters(msgspec.Struct):
    """Dead letters of one lane and type; times in Unix seconds."""

    lane: str
    command_type: str
    count: int
    oldest: float
    newest: float


class Finding(msgspec.Struct, kw_only=True):
    """What is in a folder; times in Unix seconds.

    Attributes:
        path: the folder.
        schema: schema version of the file.
        known_schema: the one of this release.
        file_bytes: size of its files.
        last_seq: the highest `seq` that was ever stored.
        commands, letters: how many there are.
        running: commands that ran when the process died; they run again, or become dead letters.
        died: commands during which a process had died before.
        overdue: commands whose deadline has passed; they expire at the next start.
        waiting: commands by lane, type and state.
        dead_letters: letters by lane and type.
        damage: what of it could not be read; `None` when all could.
    """

    path: str
    schema: int
    known_schema: int
    file_bytes: int
    last_seq: int
    commands: int
    letters: int
    waiting: list[WaitingCommands]
    running: int = 0
    died: int = 0
    overdue: int = 0
    dead_letters: list[Letters] = []
    damage: StorageError | None = None


def inspect_command(folder: Folder, *, json: Json = False) -> None:
    """Print what is stored in the folder of a stopped queue, and whether all of it can be read. Changes nothing.

    Exit code: 0 all is well, 2 it is not: another process owns it, it is damaged, or there is none.
    """
    console = stdout()

    async def main() -> int:
        moment = now()
        async with opened(folder) as storage:
            found = await _look(storage, folder, moment)
        if json:
            print_json(console, _plain(found))
        else:
            _print(console, found, moment)
        if found.damage is None:
            return 0
        complain(told(found.damage))
        return BAD_INPUT

    run(console, main())


# --- reading ----------------------------------------------------------------------------------------------------


async def _look(storage: LocalStorage, folder: Path, moment: float) -> Finding:
    from lane_obs.storage.sqlite.file import SCHEMA_VERSION  # here: it loads SQLite

    schema, file_bytes = _look_at_file(folder)
    health = storage.health()
    found = Finding(
        path=str(folder),
        schema=schema,
        known_schema=SCHEMA_VERSION,
        file_bytes=file_bytes,
        last_seq=health.last_seq,
        commands=health.commands,
        letters=health.letters,
        waiting=await storage.waiting(),
    )
    try:
        await _read_commands(storage, found, moment)
        await _read_letters(storage, found)
    except StorageError as error:
        found.damage = error
    return found


def _look_at_file(folder: Path) -> tuple[int, int]:
    """Its schema version, and its size with that of its write-ahead log."""
    from lane_obs.storage.sqlite.file import DB_NAME, wal_of

    path = folder / DB_NAME
    with path.open("rb") as file:
        file.seek(_VERSION_AT)
        schema = int.from_bytes(file.read(4), "big")
    return schema, sum(part.stat().st_size for part in (path, wal_of(path)) if part.exists())


async def _read_commands(storage: LocalStorage, found: Finding, moment: float) -> None:
    """Reads all of them: their checksums, too, are looked at by that."""
    found.running = sum(group.count for group in found.waiting if group.state == "running")
    async for batch in storage.stream_commands():
        for command in batch:
            found.died += command.deaths > 0
            found.overdue += command.deadline is not None and command.deadline <= moment


async def _read_letters(storage: LocalStorage, found: Finding) -> None:
    groups: dict[tuple[str, str], Letters] = {}
    async for page in pages(storage, LetterFilter()):
        for letter in page:
            key, at = (letter.lane, letter.command_type), letter.failed_at
            group = groups.setdefault(key, Letters(*key, 0, at, at))
            group.count += 1
            group.oldest, group.newest = min(group.oldest, at), max(group.newest, at)
    found.dead_letters = [groups[key] for key in sorted(groups)]


# --- showing ----------------------------------------------------------------------------------------------------


def _plain(found: Finding) -> dict[str, Any]:
    """For JSON, with times as text."""
    fields = msgspec.structs.asdict(found)
    fields["ok"], fields["damage"] = found.damage is None, None if found.damage is None else str(found.damage)
    fields["waiting"] = [_with_times(group, "oldest", "next_start") for group in found.waiting]
    fields["dead_letters"] = [_with_times(group, "oldest", "newest") for group in found.dead_letters]
    return fields


def _with_times(group: WaitingCommands | Letters, *names: str) -> dict[str, Any]:
    fields = msgspec.structs.asdict(group)
    return {**fields, **{name: iso(fields[name], exact=True) for name in names}}


def _print(console: PipeConsole, found: Finding, moment: float) -> None:
    for line in _head(found):
        console.print(Text(shown(line)), soft_wrap=True)
    if found.waiting:
        table = _table("Commands", "lane", "type", "state", count="count", oldest="oldest", next_start="next due")
        for group in found.waiting:
            due = "now" if group.next_start is None else _from_now(group.next_start, moment)
            state = "running at crash" if group.state == "running" else group.state
            _add(table, group.lane, group.command_type, state, f"{group.count:,}", _ago(group.oldest, moment), due)
        console.print(table)
    if found.dead_letters:
        table = _table("Dead letters", "lane", "type", count="count", oldest="oldest", newest="newest")
        for letters in found.dead_letters:
            times = (_ago(letters.oldest, moment), _ago(letters.newest, moment))
            _add(table, letters.lane, letters.command_type, f"{letters.count:,}", *times)
        console.print(table)


def _head(found: Finding) -> list[str]:
    older = "" if found.schema == found.known_schema else f"; the next start makes it {found.known_schema}"
    lines = [
        f"{found.path}: {count(found.commands, 'command')}, {count(found.letters, 'dead letter')}",
        f"files: {count(found.file_bytes, 'byte')}, schema version {found.schema}{older}",
        f"health: {'all can be read' if found.damage is None else found.damage}",
    ]
    if found.running:
        lines.append(f"running when the process died: {found.running:,}")
    if found.died:
        lines.append(f"during which a process had died before: {found.died:,}")
    if found.overdue:
        lines.append(f"past their deadline: {found.overdue:,}")
    return lines


def _table(title: str, *left: str, **right: str) -> Table:
    table = Table(
        *(Column(heading, overflow="fold") for heading in left), title=title, title_justify="left", box=SIMPLE
    )
    for heading in right.values():
        table.add_column(heading, justify="right")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(shown(cell)) for cell in cells))


def _ago(seconds: float, moment: float) -> str:
    return f"{_rough(moment - seconds)} ago"


def _from_now(seconds: float, moment: float) -> str:
    return "now" if seconds <= moment else f"in {_rough(seconds - moment)}"


def _rough(seconds: float) -> str:
    """A duration as far as people look at it: whole seconds, and whole minutes from an hour on."""
    if not 0 <= seconds < 1e12:
        return f"{seconds:g}s"
    return duration(seconds // 60 * 60 if seconds >= 3_600 else seconds // 1)
