"""`lane-obs worker`: processes that run an app's commands, and the one that looks after them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lane_obs.bus import Bus
from lane_obs.cli.folder import BAD_INPUT, complain
from lane_obs.clock import SystemClock
from lane_obs.errors import ConfigError, LaneObsError
from lane_obs.runtime.run import loop_factory
from lane_obs.worker import Child, Supervisor
from lane_obs.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.http import MetricsServer
    from lane_obs.http.merged import Worker
    from lane_obs.runtime.manager import QueueManager
    from lane_obs.worker import Slot

_HOST: Final = "127.0.0.1"
_MOST_PROCESSES: Final = 1_000
_OPTIONS: Final = {"port": "--metrics-port", "host": "--host"}


def worker_command(
    app: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="A QueueManager, or a function (async or not) that makes one.")
    ],
    *,
    processes: Annotated[int, typer.Option(min=1, max=_MOST_PROCESSES, metavar="N", help="How many processes.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Commands at once in each process; default the app's.")
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long a drain may take; default what the app says, or 30."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, metavar="PORT",
            help="Serve /metrics, /livez, /readyz and /stats of all processes there; 0 for any free port.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to serve on.")] = _HOST,
    channel: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:  # fmt: skip
    """Run the commands of an app's queue in processes that are kept running.

    SIGTERM or Ctrl-C drains; a second one makes the processes give back what they run, a third kills them. SIGHUP
    replaces them, one after the other. Log lines (JSON) go to standard error.

    Exit code: 0 all ended as told, with nothing left; 1 commands were left, or a process ended badly; 2 bad input, or
    the app cannot start.
    """  # noqa: DOC501 - this text is what --help shows
    if channel is not None:
        child = Child(app, Channel(channel), _serve, concurrency=concurrency, drain_timeout=drain_timeout)
        raise typer.Exit(child.run())
    if host != _HOST and metrics_port is None:
        complain(f"--host {host}: give --metrics-port too, as nothing else is served")
        raise typer.Exit(BAD_INPUT)
    options = {"--concurrency": concurrency, "--drain-timeout": drain_timeout}
    arguments = [app, *(str(word) for name, value in options.items() if value is not None for word in (name, value))]
    try:
        code = _supervise(processes, arguments, metrics_port, host)
    except LaneObsError as error:
        complain(_text(error))
        raise typer.Exit(BAD_INPUT) from error
    raise typer.Exit(code)


def _text(error: LaneObsError) -> str:
    if isinstance(error, ConfigError) and error.field in _OPTIONS:
        error = ConfigError(_OPTIONS[error.field], error.value, error.allowed)
    return str(error)


# --- the supervisor ---------------------------------------------------------------------------------------------


def _supervise(processes: int, arguments: Sequence[str], port: int | None, host: str) -> int:
    from lane_obs.http.merged import MergedMetrics
    from lane_obs.http.workers import WorkersServer
    from lane_obs.sinks.structlog import StructlogSink

    clock = SystemClock()
    bus = Bus(clock, [StructlogSink(level="debug")])
    slots: list[Slot] = []
    metrics = MergedMetrics(lambda: [_seen(slot) for slot in slots])
    server = None if port is None else WorkersServer(lambda: [_seen(slot) for slot in slots], metrics, port, host)

    async def main() -> int:
        supervisor = Supervisor(processes, arguments, clock, bus, on_last_words=metrics.note_last_words)
        slots[:] = supervisor.slots
        bus.bind(asyncio.get_running_loop())
        bus.start()
        try:
            if server is not None:
                server.start()
                typer.echo(f"metrics at {server.url}/metrics", err=True)
            code = await supervisor.run()
        finally:
            if server is not None:
                server.close()
            await bus.close()
        if supervisor.refusal is not None:
            complain(supervisor.refusal)
        return code

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def _seen(slot: Slot) -> Worker:
    from lane_obs.http.merged import Worker

    return Worker(slot.name, slot.run, slot.url, slot.state, dict(slot.restarted))


# --- a child ----------------------------------------------------------------------------------------------------


class _Served:
    """The pages of one queue, on a free port of loopback: who asks is the supervisor."""

    def __init__(self, server: MetricsServer, registry: object) -> None:
        self._server = server
        self._registry = registry
        self.url = server.url

    def metrics(self) -> str:
        from lane_obs.http.exposition import render
        from lane_obs.http.text import OPENMETRICS

        return render(self._registry, OPENMETRICS).text.decode()  # type: ignore[arg-type]

    def close(self) -> None:
        self._server.close()


def _serve(manager: QueueManager) -> _Served:
    """Shows a queue, with metrics also where the app has asked for none."""
    from lane_obs.http import MetricsServer
    from lane_obs.sinks.prometheus import PrometheusSink

    shown = next((sink for sink in manager.bus.sinks if isinstance(sink, PrometheusSink)), None)
    if shown is None:
        shown = PrometheusSink()
        shown.attach(manager)
        manager.bus.add(shown)
    server = MetricsServer(0, registry=shown.registry)
    server.attach(manager)
    server.start()
    return _Served(server, shown.registry)
