"""`lane-obs replay`: recorded traffic through the real queue."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from lane_obs.cli.output import output_file
from lane_obs.cli.report import print_summary
from lane_obs.cli.screen import make_console, make_screen
from lane_obs.clock import SystemClock, VirtualClock, sleep
from lane_obs.config import QueueConfig, load_lanes
from lane_obs.errors import ConfigError, LaneObsError
from lane_obs.runtime.run import loop_factory
from lane_obs.simulation.fit import fit
from lane_obs.simulation.record import BAD_OUTCOMES
from lane_obs.simulation.replay import Replay
from lane_obs.simulation.summary import summarize
from lane_obs.simulation.trace import read_trace

if TYPE_CHECKING:
    from lane_obs.cli.output import OutputFile
    from lane_obs.cli.screen import Screen
    from lane_obs.simulation.replay import ReplayResult
    from lane_obs.simulation.summary import Summary
    from lane_obs.simulation.trace import Trace

_BAD_INPUT: Final = 2
_SOME_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SHOWN_ROWS: Final = 20


def replay_command(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="Recorded traffic: CSV, or JSON Lines (.jsonl, .ndjson, .json).")
    ],
    *,
    lanes: Annotated[Path | None, typer.Option(help="TOML file of lanes; default the six built-in lanes.")] = None,
    virtual: Annotated[
        bool, typer.Option("--virtual", help="In virtual time: an hour in seconds, the same result every time.")
    ] = False,
    speed: Annotated[float | None, typer.Option(help="Real time, so many times as fast.", show_default="1")] = None,
    prefill_seconds: Annotated[float, typer.Option(help="Work for one of ContextTokens.")] = 0.0002,
    decode_seconds: Annotated[float, typer.Option(help="Work for one of GeneratedTokens.")] = 0.02,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Count and report bad rows.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the jitter of retries.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the summary to this file, as JSON.")] = None,
    records: Annotated[Path | None, typer.Option(help="Write one JSON line a command to this file.")] = None,
) -> None:
    """Send recorded traffic through the queue, each command at its time.

    Exit code: 0 all succeeded, 1 some failed for good, 2 bad input, 130 after Ctrl-C (the first one drains).
    """  # noqa: DOC501 - this text is what --help shows
    try:
        clock = _make_clock(speed, virtual=virtual)
        _check_distinct({"TRACE": trace, "--lanes": lanes, "--json": json, "--records": records})
        config = _load(lanes)
        rows = read_trace(
            trace, prefill_seconds=prefill_seconds, decode_seconds=decode_seconds, skip_bad_rows=skip_bad_rows
        )
        rows = fit(rows, config, skip_bad_rows=skip_bad_rows)
        with output_file("--json", json) as json_file, output_file("--records", records) as records_file:
            _report_skipped(rows)
            code = _run(Replay(rows, config, clock, seed=seed), clock, json_file, records_file)
    except (LaneObsError, OSError) as error:
        typer.echo(f"lane-obs: {_in_one_line(error)}", err=True)
        raise typer.Exit(_BAD_INPUT) from error
    raise typer.Exit(code)


# --- input ------------------------------------------------------------------------------------------------------


def _make_clock(speed: float | None, *, virtual: bool) -> SystemClock | VirtualClock:
    if not virtual:
        return SystemClock(1.0 if speed is None else speed)
    if speed is not None:
        raise ConfigError("--speed", speed, "--virtual has no speed: leave out one of the two")
    return VirtualClock(start=0.0)


def _check_distinct(paths: dict[str, Path | None]) -> None:
    """Keeps a replay from overwriting what it reads or has written. Devices and pipes may be named twice.

    Raises:
        ConfigError: two of the options name one file, one of them to be written.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is None or (path.exists() and not path.is_file()):
            continue
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option and option != "--lanes":
            raise ConfigError(option, str(path), f"{other} names the same file")


def _load(path: Path | None) -> QueueConfig:
    if path is None:
        return QueueConfig()
    try:
        return load_lanes(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.field}", error.value, error.allowed) from error


def _report_skipped(trace: Trace) -> None:
    skipped = trace.skipped
    if not skipped:
        return
    typer.echo(f"skipped {len(skipped)} bad row{'s'[: len(skipped) > 1]}:", err=True)
    for error in skipped[:_SHOWN_ROWS]:
        typer.echo(f"  {_in_one_line(error)}", err=True)
    if len(skipped) > _SHOWN_ROWS:
        typer.echo(f"  and {len(skipped) - _SHOWN_ROWS} more (--json lists them all)", err=True)


def _in_one_line(error: Exception) -> str:
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(text.splitlines())


# --- run --------------------------------------------------------------------------------------------------------


def _run(
    job: Replay, clock: SystemClock | VirtualClock, json_file: OutputFile | None, records_file: OutputFile | None
) -> int:
    """Runs the replay, writes the files, prints the summary, and returns the exit code."""
    console, stopwatch = make_console(), SystemClock()
    began, interrupt, screen = stopwatch.now(), _Interrupt(job), make_screen(console)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            result = runner.run(_run_shown(job, clock, screen, interrupt))
    finally:
        screen.close()
    summary = summarize(result, job.trace, job.config)
    _write(result, summary, json_file, records_file)
    print_summary(console, summary, stopwatch.now() - began)
    if interrupt.received is not None:
        return 128 + interrupt.received
    return _SOME_FAILED if any(summary.total.outcomes[outcome] for outcome in BAD_OUTCOMES) else 0


async def _run_shown(
    job: Replay, clock: SystemClock | VirtualClock, screen: Screen, interrupt: _Interrupt
) -> ReplayResult:
    loop = asyncio.get_running_loop()
    heard = [number for number in _SIGNALS if _listen(loop, number, interrupt, screen)]
    showing = asyncio.ensure_future(_keep_showing(job, screen))
    try:
        return await (clock.run(job.run()) if isinstance(clock, VirtualClock) else job.run())
    finally:
        showing.cancel()
        await asyncio.wait([showing])
        for number in heard:
            loop.remove_signal_handler(number)


def _listen(loop: asyncio.AbstractEventLoop, number: signal.Signals, interrupt: _Interrupt, screen: Screen) -> bool:
    """Installs the handler of a signal; False where the platform or thread has none."""
    try:
        loop.add_signal_handler(number, interrupt, number, screen)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


async def _keep_showing(job: Replay, screen: Screen) -> None:
    clock = SystemClock()  # also when the replay's own time is virtual or faster
    while True:
        screen.show(job)
        await sleep(clock, screen.every_seconds)


class _Interrupt:
    """Drains on the first signal, cancels on the second."""

    def __init__(self, job: Replay) -> None:
        self._job = job
        self.received: signal.Signals | None = None

    def __call__(self, number: signal.Signals, screen: Screen) -> None:
        """Takes a signal."""
        if self.received is None:
            self.received = number
            self._job.stop()
            total = self._job.recorder.total
            left = total.running + total.waiting
            screen.say(f"stopping once all that was sent has ended (left: {left}); interrupt again to cancel them")
        else:
            self._job.cancel()


def _write(
    result: ReplayResult, summary: Summary, json_file: OutputFile | None, records_file: OutputFile | None
) -> None:
    if json_file is not None:
        json_file.write([msgspec.json.format(msgspec.json.encode(summary), indent=2), b"\n"])
    if records_file is not None:
        encoder = msgspec.json.Encoder()
        records_file.write(encoder.encode(record) + b"\n" for record in result.records)
