"""`lane-obs replay`: recorded traffic through the real queue."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from lane_obs.cli.observe import Hold, OtlpProtocol, Watching, losses, watched
from lane_obs.cli.output import is_open_as, output_file
from lane_obs.cli.report import print_summary
from lane_obs.cli.screen import make_console, make_screen
from lane_obs.clock import SystemClock, VirtualClock, sleep
from lane_obs.config import QueueConfig, load_lanes
from lane_obs.errors import ConfigError, LaneObsError
from lane_obs.runtime.run import loop_factory, told_to_stop
from lane_obs.simulation.fit import fit
from lane_obs.simulation.record import BAD_OUTCOMES
from lane_obs.simulation.replay import Replay
from lane_obs.simulation.summary import summarize
from lane_obs.simulation.trace import read_trace

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Iterator

    from lane_obs.cli.output import OutputFile
    from lane_obs.cli.screen import PipeConsole
    from lane_obs.simulation.replay import ReplayResult
    from lane_obs.simulation.summary import Summary
    from lane_obs.simulation.trace import Trace

_BAD_INPUT: Final = 2
_SOME_FAILED: Final = 1
_SHOWN_ROWS: Final = 20


def replay_command(  # noqa: PLR0913 - typer makes the options of the arguments
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
    metrics_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Serve /metrics on this port of 127.0.0.1; 0 for any free one.")
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Serve metrics on after the end, until Ctrl-C.")] = False,
    otlp_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Send spans to this OTLP receiver.")] = None,
    otlp_protocol: Annotated[OtlpProtocol | None, typer.Option(help="How to send them.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Append a JSON line a command, and for alerts.")] = None,
) -> None:
    """Send recorded traffic through the queue, each command at its time.

    Exit code: 0 all succeeded, 1 some failed for good, 2 bad input, 130 after Ctrl-C (the first one drains).
    """  # noqa: DOC501 - this text is what --help shows
    try:
        clock = _make_clock(speed, virtual=virtual)
        watching = Watching(metrics_port, otlp_endpoint, otlp_protocol, log_file, hold)
        outputs = {"--json": json, "--records": records, "--log-file": log_file}
        _check_distinct({"TRACE": trace, "--lanes": lanes, **outputs})
        config = _load(lanes)
        rows = read_trace(
            trace, prefill_seconds=prefill_seconds, decode_seconds=decode_seconds, skip_bad_rows=skip_bad_rows
        )
        rows = fit(rows, config, skip_bad_rows=skip_bad_rows)
        # Who writes to /dev/stdout, for another program to read, wants nothing else there.
        console = make_console(sys.stderr if any(p and is_open_as(p) for p in outputs.values()) else sys.stdout)
        with (
            output_file("--json", json) as json_file,
            output_file("--records", records) as records_file,
            watched(watching, partial(console.print, markup=False, soft_wrap=True)) as sinks,
        ):
            _report_skipped(rows)
            job = Replay(rows, config, clock, seed=seed, sinks=sinks)
            code = _Run(job, clock, console, (json_file, records_file), Hold() if hold else None).run()
    except (LaneObsError, OSError) as error:
        _complain(error)
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


def _complain(error: Exception) -> None:
    typer.echo(f"lane-obs: {_in_one_line(error)}", err=True)


def _in_one_line(error: Exception) -> str:
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(text.splitlines())


# --- run --------------------------------------------------------------------------------------------------------


class _Run:
    """One replay with what the user sees of it."""

    def __init__(
        self,
        job: Replay,
        clock: SystemClock | VirtualClock,
        console: PipeConsole,
        files: tuple[OutputFile | None, OutputFile | None],
        hold: Hold | None,
    ) -> None:
        self._job = job
        self._clock = clock
        self._console = console
        self._screen = make_screen(console)
        self._files = files
        self._hold = hold
        self._interrupted: signal.Signals | None = None

    def run(self) -> int:
        """Runs the replay, writes the files, prints the summary, and returns the exit code."""
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                code = runner.run(self._main())
        finally:
            self._screen.close()
        for loss in losses(self._job.sink_stats()):
            typer.echo(loss, err=True)
        return code

    async def _main(self) -> int:
        stopwatch = SystemClock()
        began = stopwatch.now()
        with told_to_stop(self._interrupt):
            try:
                await self._play()
                self._screen.close()
                code = self._tell(stopwatch.now() - began)
                if self._hold is not None and self._interrupted is None:
                    self._screen.say("serving on; interrupt to end")
                    await self._hold.wait()
            finally:
                await self._job.close()
        return code

    async def _play(self) -> None:
        showing = asyncio.ensure_future(self._keep_showing())
        try:
            play = self._job.play()
            await (self._clock.run(play) if isinstance(self._clock, VirtualClock) else play)
        finally:
            showing.cancel()
            await asyncio.wait([showing])

    async def _keep_showing(self) -> None:
        clock = SystemClock()  # also when the replay's own time is virtual or faster
        while True:
            self._screen.show(self._job)
            await sleep(clock, self._screen.every_seconds)

    def _interrupt(self, number: signal.Signals) -> None:
        """Drains on the first signal, cancels on the second; ends a hold."""
        if self._hold is not None and self._hold.is_on:
            self._hold.end()
        elif self._interrupted is None:
            self._interrupted = number
            self._job.stop()
            total = self._job.recorder.total
            left = total.running + total.waiting
            text = f"stopping once all that was sent has ended (left: {left}); interrupt again to cancel them"
            self._screen.say(text)
        else:
            self._job.cancel()

    def _tell(self, seconds: float) -> int:
        """Writes the files, prints the summary, and returns the exit code."""
        result = self._job.result()
        summary = summarize(result, self._job.trace, self._job.config)
        errors = _write(result, summary, self._files)
        print_summary(self._console, summary, seconds)
        if (failure := self._console.failure) is not None:
            errors.append(OSError(failure.errno, failure.strerror, "standard output"))
        for error in errors:
            _complain(error)
        if errors:
            return _BAD_INPUT
        if self._interrupted is not None:
            return 128 + self._interrupted
        return _SOME_FAILED if any(summary.total.outcomes[outcome] for outcome in BAD_OUTCOMES) else 0


def _write(result: ReplayResult, summary: Summary, files: tuple[OutputFile | None, OutputFile | None]) -> list[OSError]:
    """Writes the files that were asked for, and returns what went wrong: one that fails must not cost the other."""
    errors = []
    for file, chunks in zip(files, (_summary_json(summary), _record_lines(result)), strict=True):
        try:
            if file is not None:
                file.write(chunks)
        except OSError as error:
            errors.append(error)
    return errors


def _summary_json(summary: Summary) -> Iterable[bytes]:
    return [msgspec.json.format(msgspec.json.encode(summary), indent=2), b"\n"]


def _record_lines(result: ReplayResult) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    return (encoder.encode(record) + b"\n" for record in result.records)
