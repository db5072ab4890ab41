"""`lane-obs dlq`: the dead letters of a queue that does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from lane_obs.cli.folder import (
    NOTHING,
    FolderOption,
    Json,
    Yes,
    complain,
    complaining,
    count,
    is_sure,
    iso,
    now,
    opened,
    print_json,
    run,
    shown,
    shown_lines,
    stdout,
)
from lane_obs.cli.letters import Pick, Requeue, pick, purge, to_filter, which
from lane_obs.storage import LetterFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.cli.screen import PipeConsole
    from lane_obs.storage import LetterPage, StoredDeadLetter

_ERROR_CHARS: Final = 80

_Lane = Annotated[str | None, typer.Option(help="Only those of this lane.")]
_Type = Annotated[str | None, typer.Option("--type", metavar="NAME", help="Only those of this command type.")]
_Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only those that failed then or later: ISO 8601, or 2h for 2 h ago.")
]
_Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only those that failed before then.")]
_All = Annotated[bool, typer.Option("--all", help="All of them, or all that the filters leave.")]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of dead letters.")]

app = typer.Typer(
    help="Look at the dead letters of a stopped queue; run them again or forget them.", no_args_is_help=True
)


@app.command("list")
def list_command(
    *,
    folder: FolderOption,
    lane: _Lane = None,
    command_type: _Type = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    after: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Go on there; the page before tells the number.")
    ] = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first.

    Exit code: 0 done, 1 there are none, 2 bad input.
    """
    console = stdout()
    with complaining():
        meant = to_filter(lane, command_type, since, until)

    async def main() -> int:
        async with opened(folder) as storage:
            page = await storage.letters(**msgspec.structs.asdict(meant), limit=limit, after=after)
        if json:
            print_json(console, {"letters": [_plain(letter) for letter in page.letters], "after": page.after})
        else:
            _print_page(console, page)
        return 0 if page.letters else NOTHING

    run(console, main())


@app.command("show")
def show_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter.")],  # noqa: A002 - its name
    *,
    folder: FolderOption,
    json: Json = False,
) -> None:
    """Print all of one dead letter.

    Exit code: 0 done, 1 there is none of this id, 2 bad input.
    """
    console = stdout()

    async def main() -> int:
        async with opened(folder) as storage:
            letter = await storage.find_letter(id)
        if letter is None:
            complain(f"there is no dead letter {id!r}")
            return NOTHING
        if json:
            print_json(console, _plain(letter))
        else:
            for line in _lines(letter):
                console.print(Text(line), soft_wrap=True)
        return 0

    run(console, main())


@app.command("requeue")
def requeue_command(
    ids: _Ids = None,
    *,
    folder: FolderOption,
    every: _All = False,
    lane: _Lane = None,
    command_type: _Type = None,
    since: _Since = None,
    until: _Until = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Store commands of dead letters again. They run at the next start of the queue, with their attempts at zero.

    Exit code: 0 done, 1 one or all of them are not there, or could not be requeued, or you said no; 2 bad input.
    """
    console = stdout()
    with complaining():
        meant = which(ids, every, to_filter(lane, command_type, since, until))

    async def main() -> int:
        async with opened(folder, change=True) as storage:
            found, job = await pick(storage, meant), Requeue(storage, now())
            goes_on = _goes_on(found, meant, f"Requeue {_letters(len(found.letters))} of {folder}?", yes=yes)
            try:
                if goes_on:
                    await job.run(found)
            finally:
                if json:
                    refused = [{"id": id_, "reason": reason} for id_, reason in job.refused]
                    print_json(console, {"requeued": job.done, "missing": found.missing, "refused": refused})
                elif goes_on:
                    _print_line(console, f"requeued {_letters(job.done)}")
        for id_, reason in job.refused:
            complain(f"{id_!r} stays: {reason}")
        return 0 if goes_on and not found.missing and not job.refused else NOTHING

    run(console, main())


@app.command("purge")
def purge_command(
    ids: _Ids = None,
    *,
    folder: FolderOption,
    every: _All = False,
    lane: _Lane = None,
    command_type: _Type = None,
    since: _Since = None,
    until: _Until = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forget dead letters, for good.

    Exit code: 0 done, 1 one or all of them are not there, or you said no; 2 bad input.
    """
    console = stdout()
    with complaining():
        meant = which(ids, every, to_filter(lane, command_type, since, until))

    async def main() -> int:
        async with opened(folder, change=True) as storage:
            found = await pick(storage, meant)
            goes_on = _goes_on(found, meant, f"Forget {_letters(len(found.letters))} of {folder}?", yes=yes)
            if goes_on:
                await purge(storage, found)
        if json:
            print_json(console, {"purged": len(found.letters) if goes_on else 0, "missing": found.missing})
        elif goes_on:
            _print_line(console, f"purged {_letters(len(found.letters))}")
        return 0 if goes_on and not found.missing else NOTHING

    run(console, main())


# --- which ------------------------------------------------------------------------------------------------------


def _goes_on(found: Pick, meant: list[str] | LetterFilter, question: str, *, yes: bool) -> bool:
    for id_ in found.missing:
        complain(f"there is no dead letter {id_!r}")
    if not found.letters:
        if isinstance(meant, LetterFilter):
            complain("there are no such dead letters")
        return False
    return is_sure(question, yes=yes or not isinstance(meant, LetterFilter))


# --- what is shown ----------------------------------------------------------------------------------------------


def _letters(number: int) -> str:
    return count(number, "dead letter")


def _print_line(console: PipeConsole, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _print_page(console: PipeConsole, page: LetterPage) -> None:
    if not page.letters:
        complain("there are no such dead letters")
        return
    table = Table(Column("id", overflow="fold"), box=SIMPLE)
    for heading in ("lane", "type", "reason"):
        table.add_column(heading, overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("failed at", no_wrap=True)
    table.add_column("error", overflow="fold")
    for letter in page.letters:
        cells = (letter.id, letter.lane, letter.command_type, letter.reason.replace("_", " "), str(letter.attempts))
        table.add_row(*(Text(shown(cell)) for cell in (*cells, iso(letter.failed_at) or "", _error(letter))))
    console.print(table)
    if page.after is not None:
        console.print(f"more: --after {page.after}", markup=False)


def _error(letter: StoredDeadLetter) -> str:
    text = f"{letter.error_type}: {letter.error}"
    return text if len(text) <= _ERROR_CHARS else f"{text[: _ERROR_CHARS - 1]}…"


def _plain(letter: StoredDeadLetter) -> dict[str, Any]:
    """A letter for JSON, with its payload as the JSON that it is; one that is none as base64."""
    fields = msgspec.structs.asdict(letter)
    fields["failed_at"], fields["submitted_at"] = (
        iso(fields[name], exact=True) for name in ("failed_at", "submitted_at")
    )
    try:
        msgspec.json.decode(letter.payload)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        fields["payload"], fields["payload_base64"] = None, letter.payload
    else:
        fields["payload"] = msgspec.Raw(letter.payload)
    return fields


def _lines(letter: StoredDeadLetter) -> Iterator[str]:
    fields = msgspec.structs.asdict(letter)
    for name in ("id", "seq", "lane", "command_type", "reason", "attempts"):
        yield f"{name}: {shown(str(fields[name]))}"
    yield f"submitted_at: {iso(letter.submitted_at, exact=True)}"
    yield f"failed_at: {iso(letter.failed_at, exact=True)}"
    for name in ("key", "trace"):
        yield f"{name}: {'-' if fields[name] is None else shown(fields[name])}"
    yield from _block("options", _formatted(msgspec.json.encode(letter.options)))
    yield from _block("payload", _formatted(letter.payload))
    yield from _block("error", f"{letter.error_type}: {letter.error}")
    yield from _block("traceback", letter.traceback)


def _block(name: str, text: str | None) -> Iterator[str]:
    yield f"{name}:{'' if text else ' -'}"
    for line in shown_lines(text or ""):
        yield f"  {line}"


def _formatted(json: bytes) -> str:
    try:
        return msgspec.json.format(json, indent=2).decode()
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return json.decode("utf-8", "backslashreplace")
