"""`lane-obs repair`: saves what can be saved of a damaged storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from lane_obs.cli.folder import NOTHING, Folder, Json, Yes, count, is_sure, print_json, run, shown, stdout
from lane_obs.storage import repair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.storage import RepairReport


def repair_command(folder: Folder, *, yes: Yes = False, json: Json = False) -> None:
    """Set a damaged file aside and make a new one of all that can be read in it. One that is whole is left alone.

    Exit code: 0 nothing is lost, 1 something is, or you said no; 2 it cannot be done.
    """
    console = stdout()
    question = f"Look for damage in {folder}, and if there is any, set the file aside and make a new one?"

    async def main() -> int:
        if not is_sure(question, yes=yes):
            return NOTHING
        report = repair(folder)
        if json:
            print_json(console, _plain(report))
        else:
            for line in _lines(report):
                console.print(Text(shown(line)), soft_wrap=True)
        return 0 if report.complete else NOTHING

    run(console, main())


def _plain(report: RepairReport) -> dict[str, Any]:
    return {**msgspec.structs.asdict(report), "complete": report.complete}


def _lines(report: RepairReport) -> Iterator[str]:
    if report.fault is None:
        yield f"{report.path}: nothing is wrong with it, and nothing was changed"
        return
    yield f"damage: {report.fault}"
    for number, noted, what in (
        (report.commands, report.noted_commands, "command"),
        (report.letters, report.noted_letters, "dead letter"),
    ):
        of = "nobody can tell how many there were" if noted is None else f"of {noted:,}"
        yield f"saved: {count(number, what)}, {of}"
    missing = report.missing_commits
    yield f"acknowledged commits missing: {'nobody can tell' if missing is None else f'{missing:,}'}"
    for line in report.lost:
        yield f"lost: {line}"
    for name in report.set_aside:
        yield f"set aside: {name}"
    yield "nothing is lost" if report.complete else "look at what was set aside before you delete it"
