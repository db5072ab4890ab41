"""The delivery: nobody waits for a notifier, and every alert that it was offered is accounted for. In virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import Bus, ConfigError, MemorySink, RetryAfter, VirtualClock
from lane_obs.clock import sleep
from lane_obs.monitor.alert import Alert, AlertState
from lane_obs.monitor.delivery import Delivery
from lane_obs.monitor.notify import CallbackNotifier, NotificationRefused
from lane_obs.monitor.waiting import Waiting
from tests.conftest import run_clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRING, RESOLVED = AlertState.FIRING, AlertState.RESOLVED


def alert(lane: str = "a", state: str = "firing", *, value: float = 1.0, severity: str = "warning") -> Alert:
    return Alert(
        "LaneReadyDepthHigh", "ready_depth", severity, AlertState(state), "q", lane, value, 0.5, 10.0, 20.0,
        30.0 if state == "resolved" else None, "too much", "really", "https://runbook#ready-depth",
    )  # fmt: skip


class Notes:
    """A notifier that notes when it is told what, and then does as it is told."""

    def __init__(self, clock: VirtualClock, *acts: Callable[[], Any] | None, batch_size: int = 64) -> None:
        self.name = "notes"
        self.batch_size = batch_size
        self.clock = clock
        self.acts = list(acts)
        self.told: list[tuple[float, list[tuple[str | None, str]]]] = []
        self.closed = 0
        self.began = clock.now()

    async def notify(self, alerts: Sequence[Alert]) -> None:
        self.told.append((self.clock.now() - self.began, [(alert.lane, str(alert.state)) for alert in alerts]))
        act = self.acts.pop(0) if self.acts else None
        if act is not None:
            result = act()
            if asyncio.iscoroutine(result):
                await result

    async def close(self) -> None:
        self.closed += 1

    @property
    def all(self) -> list[tuple[str | None, str]]:
        return [one for _, batch in self.told for one in batch]

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.told]


def fail(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


class Stubborn:
    """Ignores its cancellation until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.cancelled = 0

    async def __call__(self) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


class Place:
    """A bus with a sink, and the deliveries made on it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.sink = MemorySink()
        self.bus = Bus(clock, [self.sink])

    def delivery(self, notifier: Any, **options: Any) -> Delivery:
        made = Delivery(notifier, self.clock, self.bus, **{"seed": 1, **options})
        made.start()
        return made

    @property
    def events(self) -> list[tuple[Any, ...]]:
        self.bus.flush()
        return [(event.key.rpartition(".")[2], *event.payload.values()) for event in self.sink.events]


@pytest.fixture
def place(clock: VirtualClock) -> Place:
    return Place(clock)


def balance(delivery: Delivery) -> None:
    counts = delivery.counts
    settled = counts["sent"] + counts["failed"] + counts["dropped"] + counts["replaced"]
    assert counts["offered"] == settled + delivery.pending, counts


# --- telling ----------------------------------------------------------------------------------------------------


async def test_what_is_offered_is_told_at_once_and_in_order(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock)
    delivery = place.delivery(notes)
    delivery.offer([alert("a"), alert("b"), alert("a", severity="critical")])
    assert delivery.pending == 3
    await clock.advance(0)
    assert notes.told == [(0, [("a", "firing"), ("b", "firing"), ("a", "firing")])]
    delivery.offer([alert("a", "resolved")])
    await clock.advance(0)
    assert notes.told[1:] == [(0, [("a", "resolved")])]
    assert place.events == [("notified", "notes", 3, 1), ("notified", "notes", 1, 1)]
    assert (delivery.pending, delivery.counts["sent"]) == (0, 4)
    await delivery.close()
    assert notes.closed == 1


async def test_only_alerts_that_fire_or_are_resolved_are_taken(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock)
    delivery = place.delivery(notes)
    delivery.offer([])
    delivery.offer([alert("a", "pending"), alert("b", "ok")])
    await clock.advance(0)
    assert (notes.told, delivery.counts["offered"]) == ([], 0)
    await delivery.close()


async def test_batches_are_as_large_as_the_notifier_wants(clock: VirtualClock, place: Place) -> None:
    notes, many = Notes(clock, batch_size=2), Notes(clock)
    del many.batch_size
    one, other = place.delivery(notes), place.delivery(many)
    for delivery in (one, other):
        delivery.offer([alert(str(number)) for number in range(70)])
    await clock.advance(0)
    assert [len(batch) for _, batch in notes.told] == [2] * 35
    assert [len(batch) for _, batch in many.told] == [64, 6]
    await one.close()
    await other.close()


async def test_a_plain_function_will_do_as_notify(clock: VirtualClock, place: Place) -> None:
    told: list[Alert] = []

    class Plain:
        def notify(self, alerts: Sequence[Alert]) -> None:
            told.extend(alerts)

        def close(self) -> None:
            told.clear()

    delivery = place.delivery(Plain())
    delivery.offer([alert()])
    await clock.advance(0)
    assert (len(told), place.events) == (1, [("notified", "Plain", 1, 1)])
    await delivery.close()
    assert told == []


async def test_the_notifier_sees_nothing_of_the_context_in_which_an_alert_was_found(
    clock: VirtualClock, place: Place
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []
    variable.set("the monitor's")
    delivery = place.delivery(CallbackNotifier(lambda _: seen.append(variable.get())))
    delivery.offer([alert()])
    await clock.advance(0)
    await delivery.close()
    assert seen == ["nothing"]


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        (["a firing", "a firing"], [["a firing"]]),
        (["a firing", "b firing", "a firing"], [["a firing", "b firing"]]),
        (["a firing", "a resolved"], [["a firing"], ["a resolved"]]),
        (["a firing", "b firing", "a resolved"], [["a firing", "b firing"], ["a resolved"]]),
        (["a firing", "a resolved", "b firing"], [["a firing"], ["a resolved", "b firing"]]),
        (["a firing", "a resolved", "a firing"], [["a firing"]]),
        (["a firing", "a resolved", "a firing", "a resolved"], [["a firing"], ["a resolved"]]),
        (["a resolved", "a resolved"], [["a resolved"]]),
        (["a resolved", "a firing"], [["a firing"]]),
    ],
)
async def test_the_newest_state_is_told_but_no_end_without_its_beginning(
    clock: VirtualClock, place: Place, offered: list[str], told: list[list[str]]
) -> None:
    notes = Notes(clock)
    delivery = Delivery(notes, clock, place.bus)
    for word in offered:  # nothing is told before the start
        delivery.offer([alert(*word.split())])
    delivery.start()
    await clock.advance(0)
    assert [[" ".join(map(str, one)) for one in batch] for _, batch in notes.told] == told
    assert delivery.counts["replaced"] == len(offered) - len(notes.all)
    balance(delivery)
    await delivery.close()


async def test_the_newest_value_is_told(clock: VirtualClock, place: Place) -> None:
    told: list[float] = []
    delivery = Delivery(CallbackNotifier(lambda alert: told.append(alert.value)), clock, place.bus)
    for value in (1.0, 2.0, 3.0):
        delivery.offer([alert(value=value)])
    delivery.start()
    await clock.advance(0)
    await delivery.close()
    assert told == [3.0]


async def test_an_end_takes_the_place_of_a_repetition(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, None, lambda: sleep(clock, 5))
    delivery = place.delivery(notes)
    delivery.offer([alert("a")])
    await clock.advance(0)  # told that a fires
    delivery.offer([alert("b")])
    await clock.advance(0)  # being told for 5 s
    delivery.offer([alert("a")])
    delivery.offer([alert("a", "resolved")])
    await clock.advance(5)
    assert notes.all == [("a", "firing"), ("b", "firing"), ("a", "resolved")]
    delivery.offer([alert("a")])
    delivery.offer([alert("a", "resolved")])  # of the second time nobody has heard yet
    await clock.advance(0)
    assert notes.all[3:] == [("a", "firing"), ("a", "resolved")]
    balance(delivery)
    await delivery.close()


# --- failing ----------------------------------------------------------------------------------------------------


async def test_the_delays_are_exactly_those_of_full_jitter(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, *[fail(OSError("no route"))] * 9)
    delivery = place.delivery(notes, attempts=9, first_delay=1, max_delay=20, seed=7)
    delivery.offer([alert("a"), alert("b")])
    await clock.run(sleep(clock, 200))
    rng, at, expected = random.Random(7), 0.0, [0.0]
    for number in range(8):
        at += min(20, 2**number) * rng.random()
        expected.append(at)
    assert notes.times == pytest.approx(expected, abs=1e-6)
    retried = [("notification_failed", "notes", 2, number, "OSError", "no route", False) for number in range(1, 9)]
    assert place.events == [*retried, ("notification_failed", "notes", 2, 9, "OSError", "no route", True)]
    assert delivery.counts == {"offered": 2, "sent": 0, "retried": 16, "failed": 2, "dropped": 0, "replaced": 0}
    await delivery.close()


async def test_a_notifier_that_recovers_is_told_of_all(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, fail(OSError()), fail(OSError()))
    delivery = place.delivery(notes)
    delivery.offer([alert("a")])
    await clock.advance(0)
    delivery.offer([alert("b")])
    await clock.run(sleep(clock, 10))
    assert notes.all == [("a", "firing")] * 3 + [("b", "firing")]
    assert place.events[-2:] == [("notified", "notes", 1, 3), ("notified", "notes", 1, 1)]
    await delivery.close()


@pytest.mark.parametrize(("asked", "waited"), [(7, 7), (0, 0), (10**6, 60)])
async def test_a_notifier_may_say_when_to_come_back_within_bounds(
    clock: VirtualClock, place: Place, asked: float, waited: float
) -> None:
    notes = Notes(clock, fail(RetryAfter(asked)))
    delivery = place.delivery(notes)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 61))
    assert notes.times == [0, waited]
    await delivery.close()


async def test_what_is_refused_is_not_tried_again(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, fail(NotificationRefused("no such channel")))
    delivery = place.delivery(notes)
    delivery.offer([alert("a")])
    await clock.run(sleep(clock, 100))
    delivery.offer([alert("b")])
    await clock.advance(0)
    assert notes.all == [("a", "firing"), ("b", "firing")]
    assert place.events == [
        ("notification_failed", "notes", 1, 1, "NotificationRefused", "no such channel", True),
        ("notified", "notes", 1, 1),
    ]
    await delivery.close()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@pytest.mark.both_loops
async def test_what_is_no_plain_error_ends_neither_the_loop_nor_the_delivery(
    clock: VirtualClock, place: Place, error: BaseException
) -> None:
    notes = Notes(clock, fail(error))
    delivery = place.delivery(notes)
    delivery.offer([alert("a")])
    await clock.advance(0)
    delivery.offer([alert("b")])
    await clock.run(sleep(clock, 10))
    assert notes.all == [("a", "firing"), ("b", "firing")]
    assert place.events[0][4::2] == (type(error).__name__, True)
    await delivery.close()


@pytest.mark.both_loops
async def test_a_notifier_that_cancels_itself_has_failed(clock: VirtualClock, place: Place) -> None:
    def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def cancel_and_wait() -> None:
        cancel()
        await hang()

    notes = Notes(clock, fail(asyncio.CancelledError()), cancel, cancel_and_wait)
    delivery = place.delivery(notes)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 10))
    assert [event[0] for event in place.events] == [*["notification_failed"] * 3, "notified"]
    assert {event[4] for event in place.events[:3]} == {"CancelledError"}
    await delivery.close()


async def test_the_message_of_an_error_that_cannot_be_shown_does_no_harm(clock: VirtualClock, place: Place) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ValueError

    notes = Notes(clock, fail(Unspeakable()))
    delivery = place.delivery(notes)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 10))
    assert place.events[0][4:6] == ("Unspeakable", "<message unavailable: ValueError>")
    await delivery.close()


async def test_failures_and_losses_are_logged_once_each(
    clock: VirtualClock, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(clock, *[fail(OSError("no route"))] * 20)
    with caplog.at_level(logging.DEBUG, "lane_obs.monitor"):
        delivery = place.delivery(notes, attempts=3, capacity=1)
        for _ in range(3):
            delivery.offer([alert(lane) for lane in "abcd"])
            await clock.run(sleep(clock, 30))
        await delivery.close()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "notifier notes: alerts are dropped (full); further ones are only counted"),
        ("WARNING", "notifier notes failed; further failures are only counted"),
    ]
    assert "no route" in caplog.text


# --- hanging ----------------------------------------------------------------------------------------------------


async def test_a_try_has_its_time_and_no_more(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, hang, hang)
    delivery = place.delivery(notes, timeout=3, first_delay=0)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 30))
    assert notes.times == [0, 3, 6]
    assert place.events == [
        ("notification_failed", "notes", 1, 1, "TimeoutError", "not done after 3 s", False),
        ("notification_failed", "notes", 1, 2, "TimeoutError", "not done after 3 s", False),
        ("notified", "notes", 1, 3),
    ]
    await delivery.close()


async def test_the_time_is_the_notifiers_own_where_it_has_one(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, hang)
    notes.timeout = 4  # type: ignore[attr-defined]
    delivery = place.delivery(notes, first_delay=0)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 30))
    assert notes.times == [0, 4]
    await delivery.close()


async def test_what_was_told_when_the_time_was_over_counts_as_told(clock: VirtualClock, place: Place) -> None:
    async def finish_anyway() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            return

    notes = Notes(clock, finish_anyway)
    delivery = place.delivery(notes)
    delivery.offer([alert()])
    await clock.run(sleep(clock, 30))
    assert place.events == [("notified", "notes", 1, 1)]
    await delivery.close()


async def test_a_notifier_that_hangs_holds_up_no_other(clock: VirtualClock, place: Place) -> None:
    hanging, well = Notes(clock, *[hang] * 50), Notes(clock)
    deliveries = [place.delivery(hanging, attempts=2), place.delivery(well)]
    for number in range(20):
        for delivery in deliveries:
            delivery.offer([alert(str(number))])
        await clock.advance(1)
    assert len(well.all) == 20
    assert deliveries[0].pending == 20
    for delivery in deliveries:
        await clock.run(delivery.close())
        balance(delivery)
    assert deliveries[0].counts["failed"] + deliveries[0].counts["dropped"] == 20


async def test_a_notifier_that_ignores_its_cancellation_is_tried_no_more_until_it_has_ended(
    clock: VirtualClock, place: Place
) -> None:
    stubborn = Stubborn()
    notes = Notes(clock, stubborn)
    delivery = place.delivery(notes, timeout=5, attempts=3, first_delay=0)
    delivery.offer([alert("a")])
    await clock.run(sleep(clock, 60))
    assert [event[3:] for event in place.events] == [
        (1, "TimeoutError", "not done after 5 s, nor when it was cancelled", False),
        (2, "NotificationError", "an earlier try has not ended; it does not listen to its cancellation", False),
        (3, "NotificationError", "an earlier try has not ended; it does not listen to its cancellation", True),
    ]
    assert notes.times == [0]
    stubborn.let_go.set()
    await clock.advance(0)
    delivery.offer([alert("b")])
    await clock.advance(0)
    assert notes.all == [("a", "firing"), ("b", "firing")]
    balance(delivery)
    await delivery.close()


async def test_closing_leaves_behind_only_what_ignores_its_cancellation_and_says_so(
    clock: VirtualClock, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = Stubborn()
    delivery = place.delivery(Notes(clock, stubborn))
    delivery.offer([alert()])
    await clock.advance(0)
    before = clock.now()
    await clock.run(delivery.close(2))
    assert clock.now() - before == 3
    assert "notifier notes does not listen to its cancellation" in caplog.text
    assert (delivery.counts["dropped"], stubborn.cancelled) == (1, 1)
    stubborn.let_go.set()
    await clock.advance(0)


# --- bounds -----------------------------------------------------------------------------------------------------


async def test_when_too_many_wait_the_oldest_go_and_are_counted(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, lambda: sleep(clock, 5))
    delivery = place.delivery(notes, capacity=3)
    delivery.offer([alert("first")])
    await clock.advance(0)
    delivery.offer([alert(str(number)) for number in range(5)])
    delivery.offer([alert("4"), alert("5")])  # 4 waits already, 5 pushes out 2
    assert delivery.pending == 4
    assert place.events == [
        ("notification_dropped", "notes", 2, "full"),
        ("notification_dropped", "notes", 1, "full"),
    ]
    await clock.advance(5)
    assert [lane for lane, _ in notes.all] == ["first", "3", "4", "5"]
    balance(delivery)
    await delivery.close()


async def test_a_storm_is_taken_in_little_time_and_room(clock: VirtualClock, place: Place) -> None:
    delivery = place.delivery(Notes(clock, hang), capacity=100)
    for _ in range(3):
        delivery.offer([alert(str(number), "resolved") for number in range(20_000)])
    assert delivery.pending == 100
    await clock.run(delivery.close(0))
    assert delivery.counts["dropped"] == 60_000


def test_what_it_knows_of_what_was_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lane_obs.monitor.waiting._MOST_TOLD", 10)
    waiting = Waiting(5)
    for number in range(100):
        waiting.settle([alert(str(number))], told=True)
    assert len(waiting._told) == 10


# --- the end ----------------------------------------------------------------------------------------------------


async def test_closing_tells_what_waits(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, batch_size=1)
    delivery = place.delivery(notes)
    delivery.offer([alert(str(number)) for number in range(10)])
    await delivery.close()
    assert (len(notes.all), delivery.pending, notes.closed) == (10, 0, 1)
    delivery.offer([alert("late")])
    assert place.events[-1] == ("notification_dropped", "notes", 1, "closed")
    balance(delivery)


async def test_closing_waits_no_longer_than_it_may(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, hang, batch_size=2)
    delivery = place.delivery(notes)
    delivery.offer([alert(str(number)) for number in range(5)])
    await clock.advance(0)
    before = clock.now()
    await clock.run(delivery.close(2.5))
    assert clock.now() - before == 2.5
    assert place.events == [("notification_dropped", "notes", 5, "closed")]
    assert notes.closed == 1
    balance(delivery)


async def test_closing_does_not_wait_for_the_next_try(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, fail(RetryAfter(60)))
    delivery = place.delivery(notes)
    delivery.offer([alert()])
    await clock.advance(1)
    before = clock.now()
    await clock.run(delivery.close())
    assert (clock.now(), notes.all) == (before, [("a", "firing")] * 2)
    assert place.events[-1] == ("notified", "notes", 1, 2)


async def test_what_waits_when_it_was_never_started_is_dropped(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock)
    delivery = Delivery(notes, clock, place.bus)
    delivery.offer([alert()])
    await delivery.close()
    assert (notes.told, notes.closed) == ([], 1)
    assert place.events == [("notification_dropped", "notes", 1, "closed")]


async def test_closing_can_be_called_again_and_at_the_same_time(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock, lambda: sleep(clock, 3))
    delivery = place.delivery(notes)
    delivery.start()
    delivery.offer([alert()])
    await clock.run(asyncio.gather(delivery.close(), delivery.close()))
    await delivery.close()
    assert (notes.closed, delivery.counts["sent"]) == (1, 1)


async def test_a_close_that_is_cancelled_leaves_nothing_at_work(clock: VirtualClock, place: Place) -> None:
    delivery = place.delivery(Notes(clock, hang))
    delivery.offer([alert()])
    await clock.advance(0)
    closing = asyncio.ensure_future(delivery.close())
    await clock.advance(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await clock.advance(0)
    assert delivery.counts["dropped"] == 1


async def test_what_is_closed_is_not_started_again(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock)
    delivery = place.delivery(notes)
    await delivery.close()
    delivery.start()
    delivery.offer([alert()])
    await clock.advance(0)
    assert (notes.all, delivery.counts["dropped"]) == ([], 1)


async def test_a_bug_of_ours_is_told_and_what_comes_after_it_is_counted(
    clock: VirtualClock, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(clock)
    delivery = place.delivery(notes)
    del delivery._rng  # something that must not happen
    notes.acts = [fail(OSError())]
    delivery.offer([alert("a")])
    await clock.advance(0)
    assert "the delivery to notifier notes has failed" in caplog.text
    delivery.offer([alert("b")])
    assert delivery.counts["dropped"] == 2
    balance(delivery)
    await delivery.close()
    assert notes.closed == 1


@pytest.mark.parametrize("state", ["idle", "telling", "backing off"])
async def test_a_loop_that_ends_without_close_finds_all_counted(clock: VirtualClock, place: Place, state: str) -> None:
    before = asyncio.all_tasks()
    notes = Notes(clock, hang if state == "telling" else fail(RetryAfter(60)))
    delivery = place.delivery(notes)
    if state != "idle":
        delivery.offer([alert()])
    await clock.advance(1)
    for task in asyncio.all_tasks() - before:  # as asyncio.run does at its end
        task.cancel()
    await clock.advance(0)
    assert asyncio.all_tasks() == before
    assert delivery.counts["dropped"] == (state != "idle")
    balance(delivery)
    await delivery.close()
    assert notes.closed == 1


@pytest.mark.parametrize("way", ["raises", "exits", "hangs"])
async def test_a_notifier_that_cannot_be_closed_holds_nothing_up(
    clock: VirtualClock, place: Place, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Notes):
        async def close(self) -> None:
            if way == "hangs":
                await hang()
            raise OSError if way == "raises" else SystemExit

    delivery = place.delivery(Bad(clock))
    before = clock.now()
    await clock.run(delivery.close())
    assert clock.now() - before == (10 if way == "hangs" else 0)
    assert "notifier notes failed to close" in caplog.text


# --- wrong use --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": 1.5}, "attempts"),
        ({"timeout": 0}, "timeout"),
        ({"first_delay": -1}, "first_delay"),
        ({"max_delay": math.nan}, "max_delay"),
        ({"seed": "x"}, "seed"),
        ({"clock": None}, "clock"),
        ({"bus": None}, "bus"),
        ({"notifier": None}, "notifier"),
        ({"notifier": Notes}, "notifier"),
    ],
)
def test_a_wrong_argument_is_named(clock: VirtualClock, options: dict[str, Any], field: str) -> None:
    given = {"notifier": Notes(clock), "clock": clock, "bus": Bus(clock), **options}
    with pytest.raises(ConfigError, match=f"^{field}: "):
        Delivery(**given)


@pytest.mark.parametrize(
    ("attribute", "value"), [("name", "\n"), ("batch_size", 0), ("timeout", -1), ("refresh_seconds", 0)]
)
def test_a_wrong_attribute_of_the_notifier_is_named(clock: VirtualClock, attribute: str, value: Any) -> None:
    notes = Notes(clock)
    setattr(notes, attribute, value)
    with pytest.raises(ConfigError, match=f"^{attribute}: "):
        Delivery(notes, clock, Bus(clock))


async def test_how_often_it_wants_to_hear_again_is_the_notifiers_to_say(clock: VirtualClock, place: Place) -> None:
    notes = Notes(clock)
    assert Delivery(notes, clock, place.bus).refresh_seconds is None
    notes.refresh_seconds = 30  # type: ignore[attr-defined]
    assert Delivery(notes, clock, place.bus).refresh_seconds == 30


# --- whatever happens -------------------------------------------------------------------------------------------

LANES = st.sampled_from("abcd")
OFFERS = st.lists(st.tuples(LANES, st.sampled_from(["firing", "resolved"])), max_size=6)
STEPS = st.lists(st.one_of(OFFERS, st.floats(0, 30)), max_size=30)
ACTS = st.lists(st.sampled_from(["well", "well", "fail", "refuse", "hang", "slow", "exit", "late"]), max_size=40)


async def act_out(
    steps: list[Any], acts: list[str], capacity: int, batch_size: int, end: float | None
) -> tuple[Notes, Delivery]:
    clock = VirtualClock()
    ways: dict[str, Any] = {
        "well": None,
        "fail": fail(OSError()),
        "refuse": fail(NotificationRefused()),
        "hang": hang,
        "slow": lambda: sleep(clock, 3),
        "exit": fail(SystemExit()),
        "late": fail(RetryAfter(90)),
    }
    notes = Notes(clock, *[ways[act] for act in acts], batch_size=batch_size)
    place = Place(clock)
    delivery = place.delivery(notes, capacity=capacity, attempts=3)
    for step in steps:
        if isinstance(step, list):
            delivery.offer([alert(*one) for one in step])
        else:
            await clock.advance(step)
        balance(delivery)
        assert delivery.pending <= capacity + batch_size
    if end is None:
        await clock.run(sleep(clock, 10_000))
        assert delivery.pending == 0
    await clock.run(delivery.close(end or 0))
    assert clock.pending == 0
    # What events tell is what was counted.
    told = {"notified": "sent", "notification_dropped": "dropped"}
    sums = dict.fromkeys(("sent", "retried", "failed", "dropped"), 0)
    for name, _, alerts, *rest in place.events:
        sums[told.get(name) or ("failed" if rest[-1] else "retried")] += alerts
    assert sums == {name: delivery.counts[name] for name in sums}
    return notes, delivery


@settings(max_examples=80, deadline=None)
@given(STEPS, ACTS, st.integers(1, 6), st.integers(1, 4), st.one_of(st.none(), st.floats(0, 20)))
def test_nothing_that_is_offered_goes_unaccounted_for(
    steps: list[Any], acts: list[str], capacity: int, batch_size: int, end: float | None
) -> None:
    _, delivery = run_clean(act_out, steps=steps, acts=acts, capacity=capacity, batch_size=batch_size, end=end)
    assert delivery.pending == 0
    balance(delivery)


@settings(max_examples=50, deadline=None)
@given(STEPS, st.lists(st.sampled_from(["well", "slow"]), max_size=40), st.integers(1, 4))
def test_where_there_is_room_the_last_state_is_told_and_no_end_without_its_beginning(
    steps: list[Any], acts: list[str], batch_size: int
) -> None:
    notes, _ = run_clean(act_out, steps=steps, acts=acts, capacity=100, batch_size=batch_size, end=None)
    offered = [one for step in steps if isinstance(step, list) for one in step]
    for lane in "abcd":
        given_states = [state for name, state in offered if name == lane]
        told = [state for name, state in notes.all if name == lane]
        assert told[-1:] == given_states[-1:]
        if "firing" in given_states and told[0] == "resolved":
            assert given_states[0] == "resolved"
