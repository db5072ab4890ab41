"""What the commands share that work on the folder of a queue that does not run."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import signal
import sys
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from lane_obs.cli.screen import make_console
from lane_obs.clock import SystemClock
from lane_obs.config import to_seconds
from lane_obs.errors import ConfigError, LaneObsError, StorageCorrupt, StorageLocked, StorageVanished
from lane_obs.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from lane_obs.cli.screen import PipeConsole

NOTHING: Final = 1
BAD_INPUT: Final = 2

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the queue's LocalStorage.")]
FolderOption = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="The folder of the queue's LocalStorage.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([wdhms])")
_RELATIVE: Final = re.compile(rf"(?:{_PART.pattern})+")
_NOT_ASCII: Final = re.compile(r"[^\n\x20-\x7e]")


_logger = logging.getLogger("lane_obs.storage")


class _Warnings(logging.Handler):
    """Prints what the storage warns of. Its errors are raised, too, and printed then."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            complain(record.getMessage())


# --- the folder -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path, *, change: bool = False) -> AsyncIterator[LocalStorage]:
    """The storage of a folder; nothing is made where there is none.

    Args:
        folder: the folder.
        change: whether it is to be changed, not only looked into.

    Raises:
        StorageError: it cannot be opened.
    """
    if change:
        _check_there(folder)
    storage = LocalStorage(folder, read_only=not change)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


def _check_there(folder: Path) -> None:
    from lane_obs.storage.sqlite.check import check_names  # here: it loads SQLite
    from lane_obs.storage.sqlite.file import DB_NAME

    if not check_names(folder):
        raise StorageVanished(folder / DB_NAME, "there is no such file")


def run(console: PipeConsole, main: Coroutine[Any, Any, int]) -> None:
    """Runs a command to its end and exits with its code.

    Raises:
        Exit: always.
    """
    _logger.addHandler(_Warnings())
    _logger.propagate = False
    with complaining():
        code = asyncio.run(main)
    if (failure := console.failure) is not None:
        complain(f"standard output: {failure.strerror}")
        code = BAD_INPUT
    raise typer.Exit(code)


@contextmanager
def complaining() -> Iterator[None]:
    """Makes exit code 2 and one line on standard error of an error.

    Raises:
        Exit: there was an error.
    """
    try:
        yield
    except (LaneObsError, OSError) as error:
        complain(told(error))
        raise typer.Exit(BAD_INPUT) from error


def told(error: Exception) -> str:
    """An error in words, with what helps."""
    if isinstance(error, StorageLocked):
        return f"{error}; end it first"
    if isinstance(error, StorageCorrupt):
        return f"{error}; `lane-obs repair` saves what it can"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def complain(text: str) -> None:
    """Prints a line on standard error."""
    typer.echo(f"lane-obs: {shown(' '.join(text.splitlines()))}", err=True)


def is_sure(question: str, *, yes: bool) -> bool:
    """Whether the user wants it. Who cannot answer does not."""
    if yes:
        return True
    answer = _answer(f"{shown(question)} [y/N] ")
    if answer.strip().lower() in {"y", "yes"}:
        return True
    if not answer.endswith("\n"):
        typer.echo(err=True)
    complain("nothing was changed; --yes does not ask")
    return False


def _answer(question: str) -> str:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's would wait for the answer
    try:
        typer.echo(question, nl=False, err=True)
        return "" if sys.stdin is None else sys.stdin.readline()
    except (ValueError, KeyboardInterrupt):  # it is closed, or no text
        return ""
    finally:
        signal.signal(signal.SIGINT, before)


# --- text -------------------------------------------------------------------------------------------------------


def stdout() -> PipeConsole:
    """A console on standard output."""
    return make_console(sys.stdout)


def shown(text: str) -> str:
    r"""Text from anywhere in one line that a terminal takes for text: all that could be a command to it as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def shown_lines(text: str) -> list[str]:
    """The same for text of several lines."""
    return [shown(line.expandtabs()) for line in text.splitlines()]


def count(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def print_json(console: PipeConsole, value: Any) -> None:
    """Prints a value as JSON in ASCII only: right in each encoding, and nothing in it is a command to a terminal."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    console.print(_NOT_ASCII.sub(_escaped, text), markup=False, soft_wrap=True)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


# --- times ------------------------------------------------------------------------------------------------------


def iso(seconds: float | None, *, exact: bool = False) -> str | None:
    """Unix seconds as ISO 8601 in UTC, never later than they are, so that `--since` finds what has this time.

    Args:
        seconds: the time.
        exact: whether to give microseconds, not only seconds.
    """
    if seconds is None:
        return None
    try:
        numerator, denominator = seconds.as_integer_ratio()
        found = _EPOCH + timedelta(microseconds=numerator * 1_000_000 // denominator)
    except (OverflowError, ValueError):  # beyond the year 9999, or no time at all
        return str(seconds)
    return found.isoformat(timespec="microseconds" if exact else "seconds").replace("+00:00", "Z")


def to_time(option: str, text: str | None, now: float) -> float | None:
    """Reads a time: ISO 8601, or how long ago it was.

    Args:
        option: what the error calls it.
        text: the time, as given.
        now: Unix seconds.

    Raises:
        ConfigError: it is neither.
    """
    if text is None:
        return None
    if _RELATIVE.fullmatch(text):
        ago = math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return now - to_seconds(option, ago, zero=True)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        allowed = "give an ISO 8601 time, in UTC where it has no zone, or how long ago, such as '2h' or '1d12h'"
        raise ConfigError(option, text, allowed) from None
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (zoned - _EPOCH) / _MICROSECOND / 1_000_000


def now() -> float:
    """Unix seconds."""
    return SystemClock().wall()
