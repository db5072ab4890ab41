"""`lane-obs dlq`: the dead letters of a queue that does not run, or of one at a broker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lane_obs.cli.broker import Place, Queue, UrlOption, joined, to_place
from lane_obs.cli.folder import (
    NOTHING,
    FolderOption,
    Json,
    Yes,
    complain,
    complaining,
    is_sure,
    opened,
    print_json,
    run,
    stdout,
)
from lane_obs.cli.letter_text import count_letters, lines_of, plain, print_line, print_page
from lane_obs.cli.letters import FolderLetters, Pick, to_filter, which
from lane_obs.storage import LetterFilter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lane_obs.cli.letters import Letters

_Lane = Annotated[str | None, typer.Option(help="Only those of this lane.")]
_Type = Annotated[str | None, typer.Option("--type", metavar="NAME", help="Only those of this command type.")]
_Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only those that failed then or later: ISO 8601, or 2h for 2 h ago.")
]
_Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only those that failed before then.")]
_All = Annotated[bool, typer.Option("--all", help="All of them, or all that the filters leave.")]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of dead letters.")]

app = typer.Typer(
    help="Look at dead letters in a stopped queue's folder or at a broker; run them again or forget them.",
    no_args_is_help=True,
)


@app.command("list")
def list_command(
    *,
    folder: FolderOption = None,
    url: UrlOption = None,
    queue: Queue = "default",
    lane: _Lane = None,
    command_type: _Type = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="WHERE", help="Go on there, as the page before says.")] = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first.

    Exit code: 0 done, 1 there are none, 2 bad input.
    """
    console = stdout()
    with complaining():
        place, meant = to_place(folder, url, queue), to_filter(lane, command_type, since, until)

    async def main() -> int:
        async with _letters_at(place) as letters:
            page = await letters.page(meant, limit, after)
        if json:
            print_json(console, {"letters": [plain(letter) for letter in page.letters], "after": page.after})
        else:
            print_page(console, page)
        return 0 if page.letters else NOTHING

    run(console, main())


@app.command("show")
def show_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter.")],  # noqa: A002 - its name
    *,
    folder: FolderOption = None,
    url: UrlOption = None,
    queue: Queue = "default",
    json: Json = False,
) -> None:
    """Print all of one dead letter.

    Exit code: 0 done, 1 there is none of this id, 2 bad input.
    """
    console = stdout()
    with complaining():
        place = to_place(folder, url, queue)

    async def main() -> int:
        async with _letters_at(place) as letters:
            letter = await letters.find(id)
        if letter is None:
            complain(f"there is no dead letter {id!r}")
            return NOTHING
        if json:
            print_json(console, plain(letter))
        else:
            for line in lines_of(letter):
                console.print(Text(line), soft_wrap=True)
        return 0

    run(console, main())


@app.command("requeue")
def requeue_command(  # noqa: PLR0913 - typer makes the options of the arguments
    ids: _Ids = None,
    *,
    folder: FolderOption = None,
    url: UrlOption = None,
    queue: Queue = "default",
    every: _All = False,
    lane: _Lane = None,
    command_type: _Type = None,
    since: _Since = None,
    until: _Until = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make commands of dead letters again, with their attempts at zero; in a folder they run at its queue's next start.

    Exit code: 0 done, 1 one or all of them are not there, or could not be requeued, or you said no; 2 bad input.
    """
    console = stdout()
    with complaining():
        place, meant = to_place(folder, url, queue), which(ids, every, to_filter(lane, command_type, since, until))

    async def main() -> int:
        async with _letters_at(place, change=True) as letters:
            found, job = await letters.pick(meant), letters.requeue()
            goes_on = _goes_on(
                found, meant, f"Requeue {count_letters(len(found.letters))} of {letters.place}?", yes=yes
            )
            try:
                if goes_on:
                    await job.run(found)
            finally:
                if json:
                    refused = [{"id": id_, "reason": reason} for id_, reason in job.refused]
                    print_json(console, {"requeued": job.done, "missing": found.missing, "refused": refused})
                elif goes_on:
                    print_line(console, f"requeued {count_letters(job.done)}")
        for id_, reason in job.refused:
            complain(f"{id_!r} stays: {reason}")
        return 0 if goes_on and not found.missing and not job.refused else NOTHING

    run(console, main())


@app.command("purge")
def purge_command(  # noqa: PLR0913 - likewise
    ids: _Ids = None,
    *,
    folder: FolderOption = None,
    url: UrlOption = None,
    queue: Queue = "default",
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
        place, meant = to_place(folder, url, queue), which(ids, every, to_filter(lane, command_type, since, until))

    async def main() -> int:
        async with _letters_at(place, change=True) as letters:
            found = await letters.pick(meant)
            goes_on = _goes_on(found, meant, f"Forget {count_letters(len(found.letters))} of {letters.place}?", yes=yes)
            purged = await letters.purge(found) if goes_on else 0
        if json:
            print_json(console, {"purged": purged, "missing": found.missing})
        elif goes_on:
            print_line(console, f"purged {count_letters(purged)}")
        return 0 if goes_on and not found.missing else NOTHING

    run(console, main())


# --- where and which -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _letters_at(place: Place, *, change: bool = False) -> AsyncIterator[Letters]:
    if place.folder is not None:
        async with opened(place.folder, change=change) as storage:
            yield FolderLetters(storage, place.folder)
        return
    from lane_obs.cli.broker_letters import BrokerLetters

    async with joined(place.url, place.queue) as broker:
        yield BrokerLetters(broker, place.queue)


def _goes_on(found: Pick, meant: list[str] | LetterFilter, question: str, *, yes: bool) -> bool:
    for id_ in found.missing:
        complain(f"there is no dead letter {id_!r}")
    if not found.letters:
        if isinstance(meant, LetterFilter):
            complain("there are no such dead letters")
        return False
    return is_sure(question, yes=yes or not isinstance(meant, LetterFilter))
