"""`lane-obs alerts`: checks alert definitions, and makes Prometheus rules and their cases of them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from lane_obs.alerts import MEASURES, load_alerts
from lane_obs.alerts.expression import duration
from lane_obs.cli.output import output_file
from lane_obs.cli.screen import make_console
from lane_obs.clock import SystemClock
from lane_obs.errors import ConfigError, LaneObsError
from lane_obs.monitor import MonitorConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lane_obs.alerts import AlertsConfig, AlertSpec

_BAD_INPUT: Final = 2
_JOB: Final = "lane-obs"
_RULES_FILE: Final = "lane-obs-alerts.yml"

_File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML file of lanes and alerts.")]
_MaybeFile = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="TOML file of lanes and alerts; default the rules that a monitor starts with."),
]
_Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT", help="Write to this file.")]
_Job = Annotated[str, typer.Option(metavar="NAME", help="The job under which Prometheus scrapes the programs.")]

app = typer.Typer(help="Check alert definitions; make Prometheus rules of them.", no_args_is_help=True)


@app.command("check")
def check_command(file: _File) -> None:
    """Check a file of alerts and print what it defines.

    Exit code: 0 all is well, 2 it is not.
    """
    with _complaining():
        config = _load(file)
        with _named(file):
            notes = [*_silence_notes(config), *_level_notes(config.specs), *_notifier_notes(config.notifiers)]
        console = make_console(sys.stdout)
        text = f"{file}: {_count(len(config.specs), 'alert')}, a look every {duration(config.interval)}"
        console.print(text, markup=False, soft_wrap=True)
        console.print(_table(config.specs))
        for note in notes:
            console.print(note, markup=False, soft_wrap=True)


@app.command("rules")
def rules_command(file: _MaybeFile = None, *, output: _Output = None, job: _Job = _JOB) -> None:
    """Print Prometheus rules that say the same as the monitor.

    Exit code: 0 done, 2 bad input.
    """
    from lane_obs.alerts.prometheus import prometheus_rules  # here: it brings PyYAML

    with _complaining():
        specs, interval = _definitions(file)
        _write(prometheus_rules(specs, interval, job), output)


@app.command("tests")
def cases_command(
    file: _MaybeFile = None,
    *,
    output: _Output = None,
    job: _Job = _JOB,
    rules_file: Annotated[
        str, typer.Option(metavar="NAME", help="The file of the rules, as seen from that of the cases.")
    ] = _RULES_FILE,
) -> None:
    """Print cases for `promtool test rules`: each alert quiet, firing, and over.

    Exit code: 0 done, 2 bad input.
    """
    from lane_obs.alerts.promtool import prometheus_tests  # here: it brings PyYAML

    with _complaining():
        specs, interval = _definitions(file)
        _write(prometheus_tests(specs, interval, rules_file, job), output)


# --- input and output -------------------------------------------------------------------------------------------


@contextmanager
def _complaining() -> Iterator[None]:
    """Makes exit code 2 and one line on standard error of an error.

    Raises:
        Exit: there was an error.
    """
    try:
        yield
    except (LaneObsError, OSError) as error:
        named = isinstance(error, OSError) and error.filename
        text = f"{error.filename}: {error.strerror}" if named else str(error)  # type: ignore[union-attr]
        typer.echo(f"lane-obs: {' '.join(text.splitlines())}", err=True)
        raise typer.Exit(_BAD_INPUT) from error


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Puts the file's name before that of the field.

    Raises:
        ConfigError: there was one.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.field}", error.value, error.allowed) from error


def _load(file: Path) -> AlertsConfig:
    with _named(file):
        return load_alerts(file)


def _definitions(file: Path | None) -> tuple[Sequence[AlertSpec], float]:
    if file is not None:
        config = _load(file)
        return config.specs, config.interval
    default = MonitorConfig()
    return default.specs, float(default.interval)  # type: ignore[arg-type]


def _write(text: str, output: Path | None) -> None:
    with output_file("--output", output) as file:
        if file is None:
            typer.echo(text, nl=False)
        else:
            file.write([text.encode()])


# --- what check shows -------------------------------------------------------------------------------------------


def _table(specs: Iterable[AlertSpec]) -> Table:
    table = Table(Column("alert", overflow="fold"), "severity", Column("lanes", overflow="fold"), box=SIMPLE)
    for heading in ("fires above", "ends at", "for", "window"):
        table.add_column(heading, justify="right", overflow="fold")
    for spec in specs:
        windows = dict.fromkeys(window for signal in spec.signals for _, window in signal.expression.parts() if window)
        cells = (spec.alert, str(spec.severity), _lanes(spec), spec.show(spec.level), spec.show(spec.clear))
        times = (duration(spec.for_seconds) if spec.for_seconds else "-", ", ".join(map(duration, windows)) or "-")
        table.add_row(*map(Text, (*cells, *times)))
    return table


def _lanes(spec: AlertSpec) -> str:
    if spec.per == "queue":
        return "(queue)"
    if spec.lanes:
        return ", ".join(spec.lanes)
    return f"all but {', '.join(spec.except_lanes)}" if spec.except_lanes else "all"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _silence_notes(config: AlertsConfig) -> Iterator[str]:
    now = SystemClock().wall()
    for silence in config.silences:
        what = " in ".join(f"{key} {silence[key]}" for key in ("rule", "lane") if key in silence)
        until = silence["until"]
        state = "expired" if until.timestamp() <= now else "in force"
        yield f"silence of {what or 'everything'} until {until.isoformat()}, {state}"


def _level_notes(specs: Iterable[AlertSpec]) -> Iterator[str]:
    for spec in specs:
        measure = MEASURES.get(spec.rule)
        top = None if measure is None else measure.top
        if top is not None and spec.level >= top:
            yield (
                f"{spec.alert} {spec.severity} never fires unless the histogram has bounds above "
                f"{spec.show(spec.level)}: by default the highest is {spec.show(top)}"
            )


def _notifier_notes(tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not tables:
        return
    from lane_obs.monitor.notify import notifier_from  # here: it brings an HTTP client

    for index, table in enumerate(tables):
        try:
            notifier: Any = notifier_from(_without_unset(table))
        except ConfigError as error:
            raise ConfigError(f"alerts.notifiers[{index}].{error.field}", error.value, error.allowed) from error
        unset = [name for name in _variables(table) if name not in os.environ]
        shown = repr(notifier) if "url" in table else f"{table['type']} {notifier.name!r} at ${table['url_env']}"
        yield f"notifier {shown}" + (f"; not set here: {', '.join(unset)}" if unset else "")


def _variables(table: Mapping[str, Any]) -> list[str]:
    """The environment variables that a notifier's table names."""
    headers = table.get("headers_env", {})
    names = [table.get("url_env"), *(headers.values() if isinstance(headers, dict) else ())]
    return [name for name in names if isinstance(name, str)]


def _without_unset(table: Mapping[str, Any]) -> dict[str, Any]:
    """A notifier's table with nothing that comes from the environment: that may well be set elsewhere only."""
    kept = {key: value for key, value in table.items() if key not in {"url_env", "headers_env"}}
    return kept if "url" in kept else {**kept, "url": "http://set.elsewhere.invalid"}
