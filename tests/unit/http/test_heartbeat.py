"""The heartbeat of an event loop, seen from another thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError
from lane_obs.http import Heartbeat, Pulse

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Any, *args: object) -> Any:
        raise NotImplementedError


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what other threads ask of it. It turns only in `turn`, or in `run_forever`."""

    asked = 0

    def call_soon_threadsafe(  # type: ignore[override]  # any callback, without the type variables
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        self.asked += 1
        return super().call_soon_threadsafe(callback, *args, context=context)

    def turn(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()


@pytest.fixture
def loop() -> Iterator[CountingLoop]:
    made = CountingLoop()
    yield made
    made.close()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def heartbeat(loop: CountingLoop, watch: Watch) -> Heartbeat:
    return Heartbeat(lambda: loop, stale_after=10, clock=watch)


def test_a_loop_that_turns_is_alive(loop: CountingLoop, heartbeat: Heartbeat) -> None:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert heartbeat.check() == Pulse(alive=True, status="alive", age_seconds=0.0)
        assert heartbeat.check().status == "alive"
        assert loop.asked == 2
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)


def test_it_asks_nothing_of_the_loop_until_it_is_asked_itself(loop: CountingLoop, heartbeat: Heartbeat) -> None:
    loop.turn()
    assert loop.asked == 0
    heartbeat.check()
    assert loop.asked == 1


def test_a_loop_that_does_not_turn_is_late_then_stale_and_gets_one_question_only(
    loop: CountingLoop, heartbeat: Heartbeat, watch: Watch
) -> None:
    assert heartbeat.check() == Pulse(alive=True, status="late", age_seconds=0.0)
    watch.time += 9.5
    assert heartbeat.check() == Pulse(alive=True, status="late", age_seconds=9.5)
    watch.time += 0.5
    assert heartbeat.check() == Pulse(alive=False, status="stale", age_seconds=10.0)
    watch.time += 50
    assert heartbeat.check() == Pulse(alive=False, status="stale", age_seconds=60.0)
    assert loop.asked == 1


def test_a_stale_loop_that_turns_again_is_alive_again(loop: CountingLoop, heartbeat: Heartbeat, watch: Watch) -> None:
    heartbeat.check()
    watch.time += 20
    assert not heartbeat.check().alive
    loop.turn()
    after = heartbeat.check()  # a new question: the loop does not turn now
    assert after == Pulse(alive=True, status="late", age_seconds=0.0)
    assert loop.asked == 2


def test_many_threads_share_one_question(loop: CountingLoop, heartbeat: Heartbeat) -> None:
    found: list[Pulse] = []
    threads = [threading.Thread(target=lambda: found.append(heartbeat.check())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [pulse.status for pulse in found] == ["late"] * 8
    assert loop.asked == 1


def test_a_closed_loop_is_dead_also_when_it_owed_an_answer(loop: CountingLoop, heartbeat: Heartbeat) -> None:
    heartbeat.check()
    loop.close()
    assert heartbeat.check() == Pulse(alive=False, status="loop_closed", age_seconds=None)


def test_no_loop_yet_is_no_reason_to_be_killed() -> None:
    assert Heartbeat(lambda: None).check() == Pulse(alive=True, status="not_started", age_seconds=None)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "10", True])
def test_a_bad_stale_after_is_named(value: Any) -> None:
    with pytest.raises(ConfigError, match="stale_after"):
        Heartbeat(lambda: None, stale_after=value)
