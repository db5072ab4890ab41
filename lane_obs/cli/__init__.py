"""The command `lane-obs`, one file for each of its commands. Typer and rich have their home here."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from lane_obs.cli import alerts, demo, dlq, inspect, repair, replay, stats, steer, worker

app = typer.Typer(
    help="Lanes for commands: run a queue's workers, look at it and steer it; replay recorded traffic through one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors as plain lines
)
app.add_typer(alerts.app, name="alerts")
app.add_typer(dlq.app, name="dlq")
app.command("demo")(demo.demo_command)
app.command("inspect")(inspect.inspect_command)
app.command("repair")(repair.repair_command)
app.command("replay")(replay.replay_command)
app.command("stats")(stats.stats_command)
app.command("pause")(steer.pause_command)
app.command("resume")(steer.resume_command)
app.command("cancel")(steer.cancel_command)
app.command("worker")(worker.worker_command)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"lane-obs {importlib.metadata.version('lane-obs')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What goes before the name of a command."""


def main() -> None:
    """Runs the command line and exits with its code."""
    app(prog_name="lane-obs")
