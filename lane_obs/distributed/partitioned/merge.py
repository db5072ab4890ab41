"""What all partitions are together: their statistics, and their dead letters in one order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from lane_obs.distributed.view import BrokerStats, LaneDepth, Member

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.view import Letter


def merge_stats(parts: Sequence[BrokerStats]) -> BrokerStats:
    """The whole queue: counts and limits are sums, ages the oldest, and a lane is paused where all of it is."""
    names = dict.fromkeys(name for part in parts for name in part.lanes)
    ended: Counter[str] = Counter()
    for part in parts:
        ended.update(part.ended)
    return BrokerStats(
        lanes={name: _merge_lane([part.lanes[name] for part in parts if name in part.lanes]) for name in names},
        members=_merge_members(member for part in parts for member in part.members),
        max_concurrency=_total(part.max_concurrency for part in parts),
        submitted=sum(part.submitted for part in parts),
        ended={state: ended[state] for state in ended},
        returned=sum(part.returned for part in parts),
        letters=sum(part.letters for part in parts),
        evicted=sum(part.evicted for part in parts),
        version=max(part.version for part in parts),
    )


def _merge_lane(parts: Sequence[LaneDepth]) -> LaneDepth:
    ages = [part.oldest_ready_age for part in parts if part.oldest_ready_age is not None]
    return LaneDepth(
        ready=sum(part.ready for part in parts),
        delayed=sum(part.delayed for part in parts),
        backoff=sum(part.backoff for part in parts),
        running=sum(part.running for part in parts),
        dead=sum(part.dead for part in parts),
        oldest_ready_age=max(ages, default=None),
        paused=all(part.paused for part in parts),
        priority=parts[0].priority,
        min_concurrency=sum(part.min_concurrency for part in parts),
        max_concurrency=sum(part.max_concurrency for part in parts),
        max_pending=_total(part.max_pending for part in parts),
    )


def _merge_members(members: Iterable[Member]) -> list[Member]:
    """One that is a member of several partitions under one name is one."""
    merged: dict[str, Member] = {}
    for member in members:
        known = merged.get(member.id)
        if known is not None:
            running, left = known.running + member.running, min(known.lease_left, member.lease_left)
            member = msgspec.structs.replace(member, running=running, lease_left=left)
        merged[member.id] = member
    return list(merged.values())


def _total(limits: Iterable[int | None]) -> int | None:
    total = 0
    for limit in limits:
        if limit is None:
            return None
        total += limit
    return total


class LetterMerge:
    """Dead letters of all partitions, oldest first.

    A page begins after a letter of which only the id is known, so all before it are read again.

    Args:
        branches: the partitions.
        lane: only those of this lane; `None` for all.
        page: how many are asked for at once.
    """

    def __init__(self, branches: Sequence[Branch], lane: str | None, page: int) -> None:
        self._sources = [_Source(branch, lane, page) for branch in branches]

    async def take(self, limit: int, after: str | None) -> list[Letter]:
        """At most `limit` of them, after the letter of id `after`; after one that is gone comes nothing."""
        found: list[Letter] = []
        is_there = after is None
        while len(found) < limit and (letter := await self._next()) is not None:
            if is_there:
                found.append(letter)
            is_there = is_there or letter.id == after
        return found

    async def _next(self) -> Letter | None:
        for source in self._sources:
            await source.fill()
        filled = [source for source in self._sources if source.letters]
        if not filled:
            return None
        return min(filled, key=lambda source: source.letters[-1].failed_at).letters.pop()


class _Source:
    """The letters of one partition, a page at a time."""

    def __init__(self, branch: Branch, lane: str | None, page: int) -> None:
        self._branch = branch
        self._lane = lane
        self._page = page
        self._after: str | None = None
        self._is_over = False
        self.letters: list[Letter] = []
        """Those that were read and not taken, the oldest last."""

    async def fill(self) -> None:
        """Reads on where nothing is left."""
        if self.letters or self._is_over:
            return
        lane, page, after = self._lane, self._page, self._after
        read = await self._branch.reach(lambda broker: broker.letters(lane=lane, limit=page, after=after))
        self._is_over = len(read) < page
        self._after = read[-1].id if read else after
        self.letters = read[::-1]
