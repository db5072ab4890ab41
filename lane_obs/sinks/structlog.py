"""Writes events as log lines: JSON of its own, or through the user's structlog configuration."""

from __future__ import annotations

import contextvars
import io
import selectors
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from lane_obs.errors import ConfigError
from lane_obs.sinks import line as lines
from lane_obs.sinks.background import BackgroundSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from lane_obs.bus import Bus
    from lane_obs.config import Duration
    from lane_obs.events import LaneEvent

_BOUND: Final = ("command_id", "lane", "command_type", "attempt", "trace_id", "span_id", "worker")


class StructlogSink(BackgroundSink):
    """One JSON line for each command's end at `info`, failures and alerts at `warning` or `error`, the rest at `debug`.

    Lines are rendered and written by a thread of the sink's own, so a pipe that nobody reads blocks nobody else:
    what does not fit the buffer is dropped and counted in `dropped["full"]`, what cannot be written in
    `dropped["error"]`. Lines wait for `flush_interval`, warnings and errors do not. Where structlog is configured
    and no `file` is given, or with a `logger`, events go through that processor chain, from the same thread, and
    the sink itself writes nothing.

    Code inside a command finds `command_id`, `lane`, `command_type`, `attempt`, where the command is traced `trace_id`
    and `span_id`, and where the queue has a broker `worker`, bound to structlog's context variables.

    Args:
        file: binary stream for the lines, by default standard error. It is not closed.
        level: the least level written: `debug`, `info`, `warning` or `error`.
        redact: gets the dict of an event's own fields, the traceback's text included, and returns what to write of
            them. When it raises, the line has none of them, and `redact_failures` counts it.
        logger: a structlog logger to use in place of `file`.
        capacity: events that may wait, 1 or more.
        close_timeout: seconds that `close` waits for the buffer to empty.
        flush_interval: seconds for which lines are collected.

    Raises:
        ConfigError: a bad level, capacity or duration, a text stream, or both a file and a logger.
    """

    _urgent = lines.URGENT

    def __init__(
        self,
        file: BinaryIO | None = None,
        *,
        level: str = "info",
        redact: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        logger: Any = None,
        capacity: int = 50_000,
        close_timeout: Duration = 5.0,
        flush_interval: Duration = 0.05,
    ) -> None:
        self.wants = lines.kinds_from(level)
        if file is not None and logger is not None:
            raise ConfigError("logger", logger, "give a file or a logger, not both")
        self._redactor = lines.Redactor(redact)
        self._lines = _Lines(file, self._redactor, logger)
        super().__init__(self._lines, capacity, close_timeout, flush_interval=flush_interval)
        self._lines.dropped = self.dropped
        self._set_id, self._set_lane, self._set_type, self._set_attempt, *others = _setters()
        self._set_trace, self._set_span, self._set_worker = others

    @property
    def redact_failures(self) -> int:
        """Lines written without the event's own fields, because `redact` raised or gave what JSON cannot hold."""
        return self._redactor.failures

    def in_attempt(self, command: Any) -> None:
        """Binds the command to structlog's context variables, in the attempt's own context; it ends with that."""
        self._set_id(command.id)
        self._set_lane(command.lane)
        self._set_type(command.command_type)
        self._set_attempt(command.attempt)
        if (trace := command.trace) is not None:
            self._set_trace(trace.trace_hex)
            self._set_span(trace.span_hex)
        if (worker := self._lines.worker) is not None:
            self._set_worker(worker)


def _setters() -> list[Callable[[Any], object]]:
    """What `bind_contextvars` calls in the end; it looks each up by name, which takes four times as long."""
    bind = structlog.contextvars.bind_contextvars
    tokens = contextvars.Context().run(bind, **dict.fromkeys(_BOUND))
    return [tokens[key].var.set for key in _BOUND]


class _Lines:
    """The inner sink: renders a batch and writes it at once, or gives it to a logger. Only the thread calls it."""

    def __init__(self, file: Any, redactor: lines.Redactor, logger: Any) -> None:
        self._file = file  # held, as a buffer that is collected closes the stream below it
        self._logger = logger
        self._stream = None if logger is not None else _stream(file)
        self._redactor = redactor
        self._bus: Bus | None = None
        self.dropped: dict[str, int] = {}

    def attach(self, queue: Any) -> None:
        self._bus = queue.bus

    @property
    def worker(self) -> str | None:
        return None if self._bus is None else self._bus.worker

    def handle(self, events: Sequence[LaneEvent]) -> None:
        if self._logger is not None:
            self._log(_bound(self._logger), events)
        elif self._file is None and structlog.is_configured():
            self._log(_bound(_configured()), events)
        elif self._redactor:
            self._write([self._redacted(event) for event in events])
        else:
            self._write_plain(events)

    def close(self) -> None:
        """The stream is its user's, and each batch was flushed."""

    def _write_plain(self, events: Sequence[LaneEvent]) -> None:
        batch, worker = [], self.worker
        for event in events:
            batch.append(lines.line_of(event, worker))
            # A traceback takes as long as hundreds of lines; writing lets the event loop have its turn between two.
            if batch[-1].exception is not msgspec.UNSET:
                self._write(batch)
                batch = []
        if batch:
            self._write(batch)

    def _write(self, batch: list[Any]) -> None:
        try:
            data = _encoder.encode_lines(batch)
        except Exception:  # half of a surrogate pair in a message, or a value of `redact`'s: line by line then
            data = b"".join(map(self._encode, batch))
        _write_all(self._stream, data)

    def _encode(self, line: Any) -> bytes:
        fields = line if isinstance(line, dict) else _as_dict(line)
        try:
            return _encoder.encode(lines.clean(fields)) + b"\n"
        except Exception:  # only what `redact` gave can be that odd
            self._redactor.failures += 1
            return _encoder.encode({key: fields[key] for key in ("event", "level", "timestamp")}) + b"\n"

    def _redacted(self, event: LaneEvent) -> dict[str, Any]:
        form = lines.form_of(type(event))
        return {"event": form.event, "level": form.level, **self._redactor.fields_of(event, self.worker)}

    def _log(self, logger: Any, events: Sequence[LaneEvent]) -> None:
        """Logs each event; one that the chain raises at is counted and does not take the others with it."""
        failed = 0
        for event in events:
            try:
                self._log_one(logger, event)
            except Exception:
                failed += 1
                if failed == len(events):
                    raise
        if failed:
            self.dropped["error"] = self.dropped.get("error", 0) + failed

    def _log_one(self, logger: Any, event: LaneEvent) -> None:
        form = lines.form_of(type(event))
        if self._redactor:  # what is redacted has to be text, and the exception stays here
            fields = self._redactor.fields_of(event, self.worker)
        else:
            fields = lines.fields_of(event, self.worker)
            if (error := lines.error_of(event)) is not None:
                fields["exc_info"] = error
        getattr(logger, form.level)(form.event, **fields)


def _configured() -> Any:
    wrapper = structlog.get_config()["wrapper_class"]
    if isinstance(wrapper, type) and issubclass(wrapper, structlog.stdlib.AsyncBoundLogger):
        # It works on a running loop only, and would call the chain from yet another thread.
        return structlog.wrap_logger(None, wrapper_class=structlog.stdlib.BoundLogger)
    return structlog.get_logger()


def _bound(logger: Any) -> Any:
    return logger.sync_bl if isinstance(logger, structlog.stdlib.AsyncBoundLogger) else logger.bind()


def _as_dict(line: msgspec.Struct) -> dict[str, Any]:
    fields = {key: value for key, value in msgspec.structs.asdict(line).items() if value is not msgspec.UNSET}
    return {"event": line.__struct_config__.tag, **fields}


_encoder: Final = msgspec.json.Encoder(enc_hook=lines.text_of)


def _stream(file: Any) -> Any:
    """The stream to write to: below a buffer, whose lock a blocked thread would hold when the process exits.

    Raises:
        ConfigError: it takes no bytes.
    """
    if file is None:
        file = getattr(sys.stderr, "buffer", None)
    if file is None or isinstance(file, io.TextIOBase) or not hasattr(file, "write"):
        raise ConfigError("file", file, "give a binary stream such as sys.stdout.buffer")
    if isinstance(file, io.BufferedWriter):
        file.flush()
        return file.raw
    return file


def _write_all(stream: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        count = stream.write(left)
        if count is None and isinstance(stream, io.RawIOBase):
            _wait_for_room(stream)
            continue
        left = left[count:] if isinstance(count, int) else left[:0]
    stream.flush()


def _wait_for_room(stream: Any) -> None:
    """Waits for a pipe that someone has made non-blocking."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_WRITE)
        selector.select()
