"""Dead letters as tables, lines and JSON. They come from a folder or a broker; those of a broker have fewer fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from lane_obs.cli.folder import complain, count, iso, shown, shown_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lane_obs.cli.letters import Page
    from lane_obs.cli.screen import PipeConsole

_ERROR_CHARS: Final = 80
_FIRST: Final = ("id", "seq", "lane", "command_type", "reason", "attempts")
_TIMES: Final = ("submitted_at", "failed_at")


def count_letters(number: int) -> str:
    """How many dead letters, in words."""
    return count(number, "dead letter")


def print_line(console: PipeConsole, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True)


def print_page(console: PipeConsole, page: Page) -> None:
    """Prints letters as a table, and how to go on."""
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


def _error(letter: Any) -> str:
    text = f"{letter.error_type}: {letter.error}"
    return text if len(text) <= _ERROR_CHARS else f"{text[: _ERROR_CHARS - 1]}…"


def plain(letter: Any) -> dict[str, Any]:
    """A letter for JSON, with its payload as the JSON that it is; one that is none as base64."""
    fields = msgspec.structs.asdict(letter)
    fields |= {name: iso(fields[name], exact=True) for name in _TIMES if name in fields}
    try:
        msgspec.json.decode(letter.payload)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        fields["payload"], fields["payload_base64"] = None, letter.payload
    else:
        fields["payload"] = msgspec.Raw(letter.payload)
    return fields


def lines_of(letter: Any) -> Iterator[str]:
    """All of a letter, line by line."""
    fields = msgspec.structs.asdict(letter)
    for name in filter(fields.__contains__, _FIRST):
        yield f"{name}: {shown(str(fields[name]))}"
    for name in filter(fields.__contains__, _TIMES):
        yield f"{name}: {iso(fields[name], exact=True)}"
    for name in filter(fields.__contains__, ("key", "trace")):
        yield f"{name}: {'-' if fields[name] is None else shown(fields[name])}"
    if "options" in fields:
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
