"""`lane-obs demo`: a story of traffic through the real queue, to look at."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lane_obs.cli.live import make_view
from lane_obs.cli.observe import Hold, OtlpProtocol, Watching, losses, watched
from lane_obs.cli.output import is_open_as
from lane_obs.cli.screen import make_console
from lane_obs.cli.tale import print_summary
from lane_obs.clock import SystemClock, sleep
from lane_obs.demo.play import Demo
from lane_obs.demo.settings import QUEUE, load_settings
from lane_obs.demo.summary import summarize
from lane_obs.errors import ConfigError, LaneObsError
from lane_obs.runtime.run import loop_factory, told_to_stop

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from lane_obs.cli.live import View
    from lane_obs.cli.screen import PipeConsole
    from lane_obs.monitor import Notifier

_BAD_INPUT: Final = 2
_LEAST_SECONDS: Final = 6.0
_LEAST_SPEED: Final = 0.1
_MOST_SPEED: Final = 20.0
_COMMAND_TYPES: Final = 40
_REFRESH_SECONDS: Final = 5.0
_OPTIONS: Final = {"port": "--metrics-port", "host": "--metrics-host", "seconds": "--for"}


def demo_command(  # noqa: PLR0913 - typer makes the options of the arguments
    *,
    seconds: Annotated[
        float,
        typer.Option("--for", min=_LEAST_SECONDS, metavar="SECONDS", help="How long; below 60 chapters are left out."),
    ] = 60.0,
    speed: Annotated[
        float, typer.Option(min=_LEAST_SPEED, max=_MOST_SPEED, help="So many times as fast; see docs/demo.md.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 1,
    metrics_port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="Serve /metrics on this port; 0 for any free one.")
    ] = 9464,
    metrics_host: Annotated[str, typer.Option(metavar="HOST", help="Address to serve on.")] = "127.0.0.1",
    otlp_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Send spans to this OTLP receiver.")] = None,
    otlp_protocol: Annotated[OtlpProtocol | None, typer.Option(help="How to send them.")] = None,
    alertmanager: Annotated[str | None, typer.Option(metavar="URL", help="Tell this Alertmanager of alerts.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Append a JSON line a command, and for alerts.")] = None,
    screen: Annotated[
        bool, typer.Option("--screen/--no-screen", help="Draw on the terminal, or print a plain line now and then.")
    ] = True,
    hold: Annotated[bool, typer.Option("--hold", help="Serve metrics on after the end, until Ctrl-C.")] = False,
) -> None:
    """Watch a queue at work: bursts, failing tools, a stalled lane, a blocked event loop, and what tells of them.

    Six lanes of an agent's traffic go through the real scheduler; metrics, alerts, spans and log lines are real, the
    commands only sleep. At the end it explains what happened.

    Exit code: 0 at the end, 2 bad input, 130 after Ctrl-C (the first one drains).
    """  # noqa: DOC501 - this text is what --help shows
    try:
        watching = Watching(
            metrics_port, otlp_endpoint, otlp_protocol, log_file, hold, metrics_host, QUEUE, _COMMAND_TYPES
        )
        config, monitor = load_settings(_notifiers(alertmanager))
        taken = log_file is not None and is_open_as(log_file)  # whoever reads it wants nothing else there
        console = make_console(sys.stderr if taken else sys.stdout)
        view = make_view(console, screen=screen)
        with _warnings_to(view), watched(watching, view.say) as sinks:
            demo = Demo(config, monitor, SystemClock(speed), seconds=seconds, seed=seed, sinks=sinks, speed=speed)
            code = _Run(demo, console, view, Hold() if hold else None).run()
    except (LaneObsError, OSError) as error:
        typer.echo(f"lane-obs: {_text(error)}", err=True)
        raise typer.Exit(_BAD_INPUT) from error
    raise typer.Exit(code)


def _notifiers(url: str | None) -> list[Notifier]:
    if url is None:
        return []
    from lane_obs.monitor.alertmanager import AlertmanagerNotifier  # here: it brings an HTTP client

    try:
        return [AlertmanagerNotifier(url, refresh_seconds=_REFRESH_SECONDS)]
    except ConfigError as error:
        raise ConfigError("--alertmanager", url, error.allowed) from error


def _text(error: Exception) -> str:
    if isinstance(error, ConfigError) and error.field in _OPTIONS:
        error = ConfigError(_OPTIONS[error.field], error.value, error.allowed)
    return " ".join(str(error).splitlines())


class _Warnings(logging.Handler):
    """Shows in the view what the program is warned of: written past it, it would spoil the picture."""

    def __init__(self, view: View) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one line, without the traceback."""
        error = "" if record.exc_info is None or record.exc_info[1] is None else f" ({record.exc_info[1]})"
        self._view.say(f"{record.levelname.lower()}: {record.getMessage()}{error}")


@contextmanager
def _warnings_to(view: View) -> Iterator[None]:
    handler = _Warnings(view)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Run:
    """One telling of the story with what the user sees of it."""

    def __init__(self, demo: Demo, console: PipeConsole, view: View, hold: Hold | None) -> None:
        self._demo = demo
        self._console = console
        self._view = view
        self._hold = hold
        self._interrupted: signal.Signals | None = None

    def run(self) -> int:
        """Tells the story and its summary, and returns the exit code."""
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._main())
        finally:
            self._view.close()
        for loss in losses(self._demo.sink_stats()):
            typer.echo(loss, err=True)
        return 0 if self._interrupted is None else 128 + self._interrupted

    async def _main(self) -> None:
        with told_to_stop(self._interrupt):
            try:
                await self._play()
                self._view.close()
                print_summary(self._console, summarize(self._demo), stopped=self._interrupted is not None)
                if self._hold is not None and self._interrupted is None:
                    self._view.say("serving on; interrupt to end")
                    await self._hold.wait()
            finally:
                await self._demo.close()

    async def _play(self) -> None:
        showing = asyncio.ensure_future(self._keep_showing())
        try:
            await self._demo.play()
        finally:
            showing.cancel()
            await asyncio.wait([showing])

    async def _keep_showing(self) -> None:
        clock = SystemClock()  # also when the story's own time is faster
        while True:
            self._view.show(self._demo)
            await sleep(clock, self._view.every_seconds)

    def _interrupt(self, number: signal.Signals) -> None:
        """Drains on the first signal, cancels on the second; ends a hold."""
        if self._hold is not None and self._hold.is_on:
            self._hold.end()
        elif self._interrupted is None:
            self._interrupted = number
            self._demo.stop()
            self._view.say("stopping once all that was submitted has ended; interrupt again to cancel it")
        else:
            self._demo.cancel()
