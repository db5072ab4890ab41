"""What tests of partitions share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.distributed import LocalBroker, PartitionedBroker
from lane_obs.errors import BrokerRefused, BrokerUnavailable

if TYPE_CHECKING:
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Receipt, Result, Turn
    from lane_obs.distributed.view import BrokerHealth

_ORDERED: Final = (
    # They know which of several commands is claimed first, which is decided in each partition for itself.
    "a_back_off_keeps_the_place",
    "a_bucket_limits",
    "a_cancel_tells_who_runs",
    "a_close_gives_back_at_once",
    "a_delay_keeps_the_place",
    "a_lane_has_a_maximum",
    "a_lane_keeps_order",
    "a_late_watcher_is_answered",
    "a_lost_lease_returns_the_command",
    "a_maximum_comes_and_goes",
    "a_partition_is_exclusive",
    "a_paused_lane_waits",
    "a_watcher_is_told",
    "age_boosts",
    "an_end_leaves_a_letter",
    "bytes_come_back",
    "deadlines_leave_what_runs",
    "equals_take_turns",
    "letters_are_removed",
    "letters_come_in_pages",
    "letters_give_way",
    "many_are_taken_in_order",
    "priority_decides",
    "progress_is_told",
    "stale_ends_are_refused",
    "the_queue_has_a_limit",
    "the_queue_has_a_maximum",
    "tokens_grow",
    "what_is_given_back_keeps_the_place",
)
_SMALL: Final = (
    # Their limits are too small for three shares, and are refused.
    "a_full_lane_drops_its_oldest",
    "a_full_lane_tells_of_room",
    "a_live_command_is_found",
    "a_look_changes_nothing",
    "a_lost_lease_frees_its_slots",
    "a_window_limits",
    "an_idle_member_gets_what_a_claim_gives",
    "an_idle_member_is_told_of_a_slot",
    "an_idle_member_is_told_of_work",
    "lanes_come_and_go",
    "partitions_are_of_a_lane",
    "policies_are_replaced",
    "reservations_hold",
    "sums_are_whole",
    "the_longest_ready_gives_way",
    "what_is_given_back_may_wait",
)
_WHOLE: Final = (
    # They have one partition take all of a limit, which each has a share of.
    "a_full_lane_rejects",
    "a_limit_is_for_the_head",
    "costs_count",
)
LEFT_OUT: Final = {*_ORDERED, *_SMALL, *_WHOLE}
"""Checks that three partitions cannot pass, for the reasons given."""


class OnTrial(PartitionedBroker):
    """A member whose heartbeats can be stopped."""

    _parts: Any

    def stop_beat(self) -> None:
        for part in self._parts:
            part.stop_beat()

    def start_beat(self) -> None:
        for part in self._parts:
            part.start_beat()


class Breakable(LocalBroker):
    """A broker in memory whose link can be cut: it waits as one at a server does, and the answer may get lost first."""

    def __init__(self, queue: str, **options: Any) -> None:
        super().__init__(queue, **options)
        self.back = asyncio.Event()
        self.back.set()
        self.gone = asyncio.Event()
        self.is_silent = False
        """Whether it does not answer, and nobody has noticed yet."""
        self.denies = False
        self.turns = 0
        self._told: Listener | None = None

    async def open(self, *args: Any, **options: Any) -> None:
        self._told = options["listener"]
        await super().open(*args, **options)

    def cut(self) -> None:
        self.back.clear()
        self.is_silent = False
        self._tell()

    def mend(self) -> None:
        self.back.set()
        self._tell()

    def _tell(self) -> None:
        if self._told is not None:
            self._told.on_state(self.health())

    def health(self) -> BrokerHealth:
        health = super().health()
        return (
            health
            if self.back.is_set() or self.is_silent
            else msgspec.structs.replace(health, ready=False, error="it is cut off")
        )

    async def turn(self, *args: Any) -> Turn:
        if self.denies:
            raise BrokerRefused("it takes nothing now")
        self.turns += 1
        turn = await super().turn(*args)
        await self._wait()
        return turn

    async def _wait(self) -> None:
        waits = [asyncio.ensure_future(self.back.wait()), asyncio.ensure_future(self.gone.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        if not self.back.is_set():
            raise BrokerUnavailable("the broker is closed")

    async def close(self) -> None:
        self.gone.set()
        await super().close()

    async def submit(self, *args: Any) -> list[Receipt]:
        if not self.back.is_set():
            raise BrokerUnavailable("it is cut off")
        return await super().submit(*args)

    async def watch(self, *args: Any) -> list[Result]:
        if not self.back.is_set():
            raise BrokerUnavailable("it is cut off")
        if self.denies:
            raise BrokerRefused("it takes nothing now")
        return await super().watch(*args)
