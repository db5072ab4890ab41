"""The structlog sink: what a line says, at which level, and what code inside a command finds bound. Real files."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog

from lane_obs import Bus, ConfigError, LaneConfig, LaneEvent, LaneFullError, QueueManager, RetryPolicy, VirtualClock
from lane_obs import events as kinds
from lane_obs.events import EVENT_TYPES, TraceIds
from lane_obs.sinks.structlog import StructlogSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RETRY = RetryPolicy.fixed(1, 1.0)
BOUND = {"command_id", "lane", "command_type", "attempt"}


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.log"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, *events: LaneEvent, **options: Any) -> StructlogSink:
    """Writes events to a file and returns the closed sink."""
    with path.open("wb") as file:
        sink = StructlogSink(file, **options)
        sink.handle(events)
        sink.close()
    return sink


def example(kind: type[LaneEvent], seq: int = 1) -> LaneEvent:
    """An event with a value in each field that has no default."""
    values: dict[Any, Any] = {
        str: "x", int: 1, float: 0.5, bool: True, dict[str, str]: {"a": "b"}, dict[str, int]: {"a": 1},
        tuple[str, ...]: ("y", "z"),
    }  # fmt: skip
    fields = {
        field.name: values[field.type]
        for field in msgspec.structs.fields(kind)
        if field.required and field.name not in {"seq", "at", "wall"}
    }
    return kind(seq, 2.0, 3.25, **fields)


def traced(kind: type[LaneEvent]) -> LaneEvent:
    return msgspec.structs.replace(example(kind), trace=TraceIds(0xABC, 0x12))


def failed(error: BaseException, seq: int = 1) -> LaneEvent:
    text = str(error)
    return kinds.CommandFailed(seq, 2.0, 3.0, "id-1", "a", "f", 1, error_type="E", error=text, exception=error)


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def until(check: Callable[[], bool]) -> None:
    """Waits for what a thread does."""
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def fine() -> None:
    return


async def bad() -> None:
    raise ValueError("no such row")


async def hang() -> None:
    await asyncio.Event().wait()


WAYS_TO_END: list[tuple[Any, dict[str, Any]]] = [
    (fine, {}),
    (bad, {}),
    (bad, {"retry": RETRY}),
    (hang, {"timeout": 1.0}),
    (hang, {"deadline": 1.0}),
]


async def test_each_end_is_one_line_with_an_outcome_and_nothing_else_has_one(path: Path, clock: VirtualClock) -> None:
    with path.open("wb") as file:
        sink = StructlogSink(file, level="debug")
        async with QueueManager(
            {"a": LaneConfig(1, 1, max_pending=1, overflow="reject")}, sinks=[sink], clock=clock, dead_letters=10
        ) as manager:
            for work, options in WAYS_TO_END:
                handle = await manager.submit("a", work, id=f"{work.__name__}-{[*options]}", **options)
                await clock.run(asyncio.wait([asyncio.ensure_future(ended(handle))]))
            handle = await manager.submit("a", hang, id="cancelled")
            await manager.submit("a", hang, id="waits")
            with pytest.raises(LaneFullError):
                await manager.submit("a", fine)
            manager.cancel("waits")
            handle.cancel()
            await ended(handle)
    ends = [line for line in lines(path) if "outcome" in line]
    assert [(line["event"].removeprefix("queue.command."), line["level"], line["outcome"]) for line in ends] == [
        ("completed", "info", "ok"),
        ("failed", "error", "error"),
        ("failed", "error", "error"),
        ("timeout", "error", "timeout"),
        ("expired", "error", "expired"),
        ("cancelled", "info", "cancelled"),
        ("cancelled", "info", "cancelled"),
    ]
    assert len({line["command_id"] for line in ends}) == len(ends)
    others = {line["event"]: line for line in lines(path) if "outcome" not in line}
    assert others["queue.command.retry"]["level"] == "warning"
    assert others["queue.command.rejected"]["level"] == "warning"
    assert others["queue.command.dead_lettered"]["level"] == "debug"
    by_outcome = {line["outcome"]: line for line in ends}
    assert by_outcome["timeout"]["duration_s"] == 1.0
    assert by_outcome["error"]["error_type"] == "ValueError"
    assert "exception" in by_outcome["expired"]
    assert "exception" not in by_outcome["cancelled"]


def test_the_line_of_an_end_has_just_the_keys_that_are_documented(path: Path) -> None:
    write(path, example(kinds.CommandCompleted), traced(kinds.CommandCompleted), traced(kinds.CommandFailed))
    plain, with_trace, failure = lines(path)
    keys = {"event", "level", "timestamp", *BOUND, "outcome", "queue_wait_s", "duration_s"}
    assert plain.keys() == keys
    assert with_trace.keys() == keys | {"trace_id", "span_id"}
    assert failure.keys() == keys | {"trace_id", "span_id", "error_type", "error"}


def test_trace_ids_are_those_of_the_event_in_hex(path: Path) -> None:
    write(path, traced(kinds.CommandCompleted), traced(kinds.LoopBlocked), traced(kinds.CommandStarted), level="debug")
    assert {(line["trace_id"], line["span_id"]) for line in lines(path)} == {("0" * 29 + "abc", "0" * 14 + "12")}


async def ended(handle: Any) -> None:
    try:
        await handle
    except Exception:
        return


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.key)
def test_every_kind_of_event_can_be_rendered(kind: type[LaneEvent], path: Path) -> None:
    sink = write(path, example(kind), level="debug")
    (line,) = lines(path)
    assert list(line)[:2] == ["event", "level"]
    assert (line["event"], line["timestamp"]) == (kind.key, 3.25)
    assert "exception" not in line
    assert sink.dropped == {}


def test_the_level_of_every_kind_is_as_documented(path: Path) -> None:
    write(path, *(example(kind, seq) for seq, kind in enumerate(EVENT_TYPES)), level="debug")
    by_level: dict[str, set[str]] = {}
    for line in lines(path):
        by_level.setdefault(line["level"], set()).add(line["event"].removeprefix("queue."))
    assert by_level["info"] == {
        "command.completed", "command.cancelled", "alert.pending", "alert.resolved", "alert.cleared",
        "recovery.complete", "storage.back", "lane.throttled", "lane.added", "lane.removed", "broker.up",
        "broker.lead",
    }  # fmt: skip
    assert by_level["error"] == {
        "command.failed", "command.timeout", "command.expired", "sink.disabled", "storage.failed", "recovery.failed",
        "broker.down",
    }  # fmt: skip
    assert by_level["warning"] == {
        "command.retry", "command.rejected", "command.stuck", "command.kept", "dead_letter.evicted", "lane.pressure",
        "sink.failed", "command.returned", "command.lease_lost", "command.stale",
        "alert.firing", "alert.notification_failed", "alert.notification_dropped", "loop.blocked",
    }  # fmt: skip
    assert sum(map(len, by_level.values())) == len(EVENT_TYPES)


@pytest.mark.parametrize(("level", "count"), [("debug", len(EVENT_TYPES)), ("info", 33), ("warning", 21), ("error", 7)])
async def test_events_below_the_level_are_not_even_made(level: str, count: int, path: Path) -> None:
    with path.open("wb") as file:
        sink = StructlogSink(file, level=level)
        bus = Bus(VirtualClock(), [sink])
        bus.bind(asyncio.get_running_loop())
        for kind in EVENT_TYPES:
            values = msgspec.structs.astuple(example(kind))
            bus.emit(kind, *values[3 : 3 + required(kind)])
        await bus.close()
        assert bus.stats()[0].events == len(lines(path)) == count


def required(kind: type[LaneEvent]) -> int:
    return sum(field.required for field in msgspec.structs.fields(kind)) - 3


def test_a_retry_tells_why_and_how_long_the_attempt_took(path: Path) -> None:
    write(path, kinds.CommandRetry(1, 2.0, 3.0, "id-1", "a", "f", 1, "timeout", 2.5, 0.5))
    (line,) = lines(path)
    assert (line["reason"], line["delay_s"], line["duration_s"]) == ("timeout", 2.5, 0.5)
    assert "outcome" not in line


def test_a_blocked_loop_shows_how_long_and_the_stack(path: Path) -> None:
    write(path, kinds.LoopBlocked(1, 2.0, 3.0, 0.75, "id-1", "a", "f", ("x.py:1 in f", "x.py:2 in g")))
    (line,) = lines(path)
    assert (line["level"], line["duration_s"], line["command_id"]) == ("warning", 0.75, "id-1")
    assert line["stack"] == ["x.py:1 in f", "x.py:2 in g"]


def test_a_failure_shows_its_traceback_and_cause(path: Path) -> None:
    error = raised(ValueError("outer"))
    error.__cause__ = raised(KeyError("inner"))
    write(path, failed(error))
    (line,) = lines(path)
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("ValueError: outer")
    assert "KeyError: 'inner'" in line["exception"]
    assert "in raised" in line["exception"]


def test_a_traceback_that_is_too_long_keeps_its_end(path: Path) -> None:
    write(path, failed(raised(ValueError("x" * 100_000 + "end"))))
    (line,) = lines(path)
    assert len(line["exception"]) == 8_000
    assert line["exception"].endswith("xend")


def test_an_exception_that_cannot_be_shown_costs_no_line(path: Path) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    write(path, kinds.CommandFailed(1, 2.0, 3.0, "id-1", "a", "f", 1, exception=raised(Odd())))
    assert "Odd" in lines(path)[0]["exception"]


async def test_a_huge_message_makes_a_line_of_bounded_length(path: Path) -> None:
    async def loud() -> None:
        raise ValueError("x" * 10_000_000)

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)]) as manager:
            await ended(await manager.submit("a", loud))
    assert len(lines(path)) == 1
    assert len(path.read_bytes()) < 12_000


def test_a_text_that_is_not_unicode_costs_no_line(path: Path) -> None:
    odd = kinds.CommandCompleted(3, 2.0, 3.0, "id-\ud800", "a", "f", 1)
    sink = write(path, failed(raised(ValueError("file \udcff"))), example(kinds.CommandCompleted, 2), odd)
    first, second, third = lines(path)
    assert first["error"] == "file \\udcff"
    assert first["exception"].endswith("ValueError: file \\udcff")
    assert second["command_id"] == "x"
    assert third["command_id"] == "id-\\ud800"
    assert sink.dropped == {}


def test_redact_may_change_and_drop_fields_but_not_the_head(path: Path) -> None:
    def redact(fields: dict[str, Any]) -> dict[str, Any]:
        assert "secret" in fields["exception"]
        return {"lane": fields["lane"], "error": "***", "event": "forged", "level": "debug"}

    sink = write(path, failed(raised(ValueError("secret"))), redact=redact)
    (line,) = lines(path)
    head = {"event": "queue.command.failed", "level": "error", "timestamp": 3.0}
    assert line == head | {"lane": "a", "error": "***"}
    assert sink.redact_failures == 0


@pytest.mark.parametrize("redact", [lambda fields: fields["missing"], lambda _fields: None])
def test_a_redact_that_fails_costs_the_fields_and_is_counted(redact: Callable[..., Any], path: Path) -> None:
    sink = write(path, failed(raised(ValueError("secret"))), redact=redact)
    assert lines(path) == [{"event": "queue.command.failed", "level": "error", "timestamp": 3.0}]
    assert (sink.redact_failures, sink.dropped) == (1, {})


def test_redact_may_give_what_json_does_not_know(path: Path) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    write(path, example(kinds.CommandCompleted), redact=lambda _fields: {"a": path, "b": 2**80, "c": Odd()})
    assert lines(path)[0]["b"] == 2**80
    assert str(path) in lines(path)[0]["a"]


def test_redact_may_give_what_cannot_be_written_at_all(path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    sink = write(path, example(kinds.CommandCompleted), redact=lambda _fields: endless)
    assert lines(path) == [{"event": "queue.command.completed", "level": "info", "timestamp": 3.25}]
    assert (sink.redact_failures, sink.dropped) == (1, {})


def test_an_exception_whose_traceback_cannot_be_made_costs_no_line(path: Path) -> None:
    class Odd(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise RuntimeError("no cause")

    write(path, kinds.CommandFailed(1, 2.0, 3.0, "id-1", "a", "f", 1, exception=Odd()))
    assert lines(path)[0]["exception"] == "Odd: <traceback unavailable: RuntimeError>"


def test_bad_arguments_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="level"):
        StructlogSink(level="loud")
    with path.open("w") as text, pytest.raises(ConfigError, match="binary"):
        StructlogSink(text)  # type: ignore[arg-type]
    with path.open("wb") as file, pytest.raises(ConfigError, match="not both"):
        StructlogSink(file, logger=structlog.get_logger())


def test_standard_error_is_the_default(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = StructlogSink()
    sink.handle([example(kinds.CommandCompleted)])
    sink.close()
    assert json.loads(capfdbinary.readouterr().err)["event"] == "queue.command.completed"


def test_a_configured_chain_gets_the_events_and_the_sink_writes_nothing(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sink = StructlogSink()  # configured after it was made: the chain counts all the same
    with path.open("wb") as file:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                lambda _logger, _name, fields: {**fields, "mine": True},
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=lambda fields, **_: msgspec.json.encode(fields)),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.BytesLoggerFactory(file),
        )
        sink.handle([example(kinds.CommandCompleted), failed(raised(ValueError("no such row")), 2)])
        sink.close()
    (line,) = lines(path)  # their level is above ours
    assert (line["event"], line["level"], line["mine"]) == ("queue.command.failed", "error", True)
    assert line["exception"].endswith("ValueError: no such row")
    assert capfdbinary.readouterr().err == b""


def test_a_logger_given_is_used_and_one_bad_event_costs_itself_only(path: Path) -> None:
    def picky(_logger: Any, _name: str, fields: Any) -> Any:
        if fields["attempt"] == 2:
            raise KeyError("attempt")
        return fields

    with path.open("wb") as file:
        logger = structlog.wrap_logger(
            structlog.BytesLogger(file),
            processors=[picky, lambda _logger, _name, fields: msgspec.json.encode(fields)],
        )
        sink = StructlogSink(logger=logger)
        sink.handle([kinds.CommandCompleted(n, 2.0, 3.0, "id-1", "a", "f", n) for n in (1, 2, 3)])
        sink.close()
    assert [line["attempt"] for line in lines(path)] == [1, 3]
    assert sink.dropped == {"error": 1}


def test_what_a_configured_chain_gets_is_redacted_too(path: Path) -> None:
    with path.open("wb") as file:
        structlog.configure(
            processors=[structlog.processors.format_exc_info, lambda _l, _n, fields: msgspec.json.encode(fields)],
            logger_factory=structlog.BytesLoggerFactory(file),
        )
        sink = StructlogSink(redact=lambda fields: {"lane": fields["lane"]})
        sink.handle([failed(raised(ValueError("secret")))])
        sink.close()
    assert lines(path) == [{"event": "queue.command.failed", "lane": "a", "timestamp": 3.0}]


def test_a_configuration_changed_while_it_runs_counts_from_the_next_batch(path: Path) -> None:
    def level(least: int) -> None:
        structlog.configure(
            processors=[lambda _l, _n, fields: msgspec.json.encode(fields)],
            wrapper_class=structlog.make_filtering_bound_logger(least),
            logger_factory=structlog.BytesLoggerFactory(file),
        )

    with path.open("wb") as file:
        sink = StructlogSink(flush_interval=0)
        for least in (logging.ERROR, logging.INFO):
            level(least)
            sink.handle([example(kinds.CommandCompleted)])
            until(lambda: not sink.pending)
        sink.close()
    assert len(lines(path)) == 1


def test_a_stamp_of_the_chains_own_does_not_replace_the_time_of_the_event(path: Path) -> None:
    with path.open("wb") as file:
        logger = structlog.wrap_logger(
            structlog.BytesLogger(file),
            processors=[
                structlog.processors.MaybeTimeStamper(),
                lambda _logger, _name, fields: msgspec.json.encode(fields),
            ],
        )
        sink = StructlogSink(logger=logger)
        sink.handle([example(kinds.CommandCompleted)])
        sink.close()
    assert lines(path)[0]["timestamp"] == 3.25


@pytest.mark.parametrize("given", [False, True], ids=["configured", "given"])
async def test_an_asynchronous_logger_is_called_without_its_thread_pool(given: bool, path: Path) -> None:
    with path.open("wb") as file:
        structlog.configure(
            processors=[lambda _logger, _name, fields: msgspec.json.encode(fields)],
            logger_factory=structlog.BytesLoggerFactory(file),
            wrapper_class=structlog.stdlib.AsyncBoundLogger,
        )
        sink = StructlogSink(logger=structlog.get_logger().bind(mine=True) if given else None)
        sink.handle([example(kinds.CommandCompleted)])
        sink.close()
    assert [line.get("mine") for line in lines(path)] == [True if given else None]
    assert sink.dropped == {}


def test_a_chain_that_drops_events_drops_ours(path: Path) -> None:
    def drop(_logger: Any, _name: str, _fields: Any) -> Any:
        raise structlog.DropEvent

    with path.open("wb") as file:
        sink = StructlogSink(logger=structlog.wrap_logger(structlog.BytesLogger(file), processors=[drop]))
        sink.handle([example(kinds.CommandCompleted)])
        sink.close()
    assert (path.read_bytes(), sink.dropped) == (b"", {})


# Inside a command: `in_attempt`.


async def seen_by(work: Callable[..., Any], clock: VirtualClock, path: Path, **options: Any) -> None:
    """Runs `work` once to its end and checks that the submitter has nothing bound."""
    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)], clock=clock) as manager:
            handle = await manager.submit("a", work, id="one", **options)
            await clock.run(ended(handle))
            assert structlog.contextvars.get_contextvars() == {}
            after: list[dict[str, Any]] = []

            async def next_one() -> None:
                after.append(structlog.contextvars.get_contextvars())

            await (await manager.submit("a", next_one, id="two"))
            assert [(bound["command_id"], bound["attempt"]) for bound in after] == [("two", 1)]
            assert after[0].keys() == BOUND


def bound() -> dict[str, Any]:
    return structlog.contextvars.get_contextvars()


@pytest.mark.both_loops
async def test_inside_an_async_command_its_names_are_bound(clock: VirtualClock, path: Path) -> None:
    seen: list[dict[str, Any]] = []

    async def work() -> None:
        seen.append(bound())

    await seen_by(work, clock, path)
    assert [(s["command_id"], s["lane"], s["attempt"]) for s in seen] == [("one", "a", 1)]
    assert seen[0]["command_type"].endswith("work")


@pytest.mark.both_loops
async def test_inside_a_sync_command_its_names_are_bound(path: Path) -> None:
    def work() -> dict[str, Any]:
        return bound()

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)]) as manager:
            first = await (await manager.submit("a", work, id="one"))
            second = await (await manager.submit("a", work, id="two"))
            assert bound() == {}
    assert (first["command_id"], second["command_id"]) == ("one", "two")


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("work", "options"),
    [(bad, {}), (hang, {"timeout": 1.0}), (hang, {"deadline": 1.0})],
    ids=["fail", "time", "expire"],
)
async def test_a_command_that_ends_badly_leaves_nothing_bound(
    work: Any, options: dict[str, Any], clock: VirtualClock, path: Path
) -> None:
    await seen_by(work, clock, path, **options)
    assert lines(path)[0]["command_id"] == "one"


@pytest.mark.both_loops
async def test_each_attempt_of_a_retried_command_has_its_own_number_bound(clock: VirtualClock, path: Path) -> None:
    seen: list[int] = []

    async def work() -> None:
        seen.append(bound()["attempt"])
        structlog.contextvars.bind_contextvars(mine=True)
        raise ValueError("again")

    await seen_by(work, clock, path, retry=RETRY)
    assert seen == [1, 2]


@pytest.mark.both_loops
async def test_what_the_submitter_has_bound_is_kept_beside_it(path: Path) -> None:
    async def work() -> dict[str, Any]:
        return bound()

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)]) as manager:
            with structlog.contextvars.bound_contextvars(request="r-1"):
                seen = await (await manager.submit("a", work))
                assert bound() == {"request": "r-1"}
    assert seen.keys() == {"request", *BOUND}


@pytest.mark.both_loops
async def test_a_command_cancelled_while_it_runs_leaves_nothing_bound(path: Path) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await hang()

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)]) as manager:
            handle = await manager.submit("a", work)
            await begun.wait()
            handle.cancel()
            await ended(handle)
            assert bound() == {}
    assert [line["outcome"] for line in lines(path)] == ["cancelled"]


@pytest.mark.both_loops
async def test_a_traced_command_has_its_trace_bound_and_the_next_one_has_not(path: Path) -> None:
    class Tracer:
        wants = ()

        def handle(self, events: Any) -> None:
            """Takes nothing."""

        def close(self) -> None:
            """Has nothing."""

        def at_start(self, command: Any) -> None:
            if command.id == "one":
                command.trace = TraceIds(0xABC, 0x10 + command.attempt)

    seen: list[dict[str, Any]] = []

    async def work() -> None:
        seen.append(bound())

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[Tracer(), StructlogSink(file)]) as manager:
            await (await manager.submit("a", work, id="one"))
            await (await manager.submit("a", work, id="two"))
            assert bound() == {}
    assert (seen[0]["trace_id"], seen[0]["span_id"]) == ("0" * 29 + "abc", "0" * 14 + "11")
    assert seen[1].keys() == BOUND
    assert [line.get("span_id") for line in lines(path)] == ["0" * 14 + "11", None]


async def test_what_a_command_logs_through_structlog_says_which_command_it_was(path: Path) -> None:
    with path.open("wb") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                lambda _logger, _name, fields: msgspec.json.encode(fields),
            ],
            logger_factory=structlog.BytesLoggerFactory(file),
        )

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            structlog.get_logger().info("inside", number=number)

        async with QueueManager({"a": LaneConfig(1, 4)}, sinks=[StructlogSink()]) as manager:
            for handle in [await manager.submit("a", work, n, id=f"id-{n}") for n in range(8)]:
                await handle
    inside = [line for line in lines(path) if line["event"] == "inside"]
    ends = [line for line in lines(path) if line["event"] == "queue.command.completed"]
    assert {(line["number"], line["command_id"], line["lane"]) for line in inside} == {
        (n, f"id-{n}", "a") for n in range(8)
    }
    assert {line["command_id"] for line in ends} == {f"id-{n}" for n in range(8)}


async def test_a_command_may_bind_our_names_anew(path: Path) -> None:
    async def work() -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(lane="mine")
        structlog.contextvars.unbind_contextvars("attempt")
        return bound()

    with path.open("wb") as file:
        async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[StructlogSink(file)]) as manager:
            seen = await (await manager.submit("a", work))
    assert seen["lane"] == "mine"
    assert seen.keys() == BOUND - {"attempt"}
