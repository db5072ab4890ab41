"""What anybody may ask of a queue, whether they submit, work or only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.record import Fact, FactKind
from lane_obs.distributed.redis.frame import decode
from lane_obs.distributed.redis.policy import pack_lanes
from lane_obs.distributed.redis.view import no_stats, to_found, to_letter, to_stats
from lane_obs.errors import UnknownLane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed.redis.inbox import Inbox
    from lane_obs.distributed.redis.session import Session
    from lane_obs.distributed.view import BrokerStats, Found, Letter

_PAGE: Final = 100
_BATCH: Final = 500


class Questions:
    """The part of `RedisBroker` that answers for the whole queue."""

    _session: Session
    _inbox: Inbox
    _wait: float
    _ttl: int
    _rate_limits: Sequence[RateLimit] = ()

    async def _ask(self, name: str, /, **request: Any) -> Any:
        return await self._session.ask(name, {**request, "ttl": self._ttl}, wait=self._wait)

    async def _is_there(self) -> bool:
        """Whether there is a queue: one who only looks makes none."""
        if not self._session.epoch:
            await self._session.join(wait=self._wait)
        return bool(self._session.epoch)

    async def declare(self, lanes: Mapping[str, LaneConfig]) -> None:
        """Puts the policies of lanes in force, new ones or others than before."""
        session = self._session
        packed = pack_lanes(lanes, self._rate_limits)
        session.wish["lanes"] = [lane for lane in session.wish["lanes"] if lane[0] not in lanes] + packed
        await self._ask("lanes", lanes=packed)
        await session.learn_names(wait=self._wait)

    async def forget_lane(self, name: str, /) -> bool:
        """Forgets a lane that has no live command, as `Broker.forget_lane` says."""
        if not await self._is_there():
            return False
        session = self._session
        done = bool(decode((await self._ask("forget", name=name))[0])[0])
        if done:
            session.wish["lanes"] = [lane for lane in session.wish["lanes"] if lane[0] != name]
            session.codes.pop(name, None)
        return done

    async def cancel(self, id: str, /) -> str:  # noqa: A002 - the name of the field
        """Cancels a command, as `Broker.cancel` says."""
        if not await self._is_there():
            return "unknown"
        answer = await self._ask("cancel", id=id)
        state, rows = decode(answer[0])
        self._inbox.tell_facts(rows, answer[1:])
        return str(state)

    async def find(self, id: str, /) -> Found | None:  # noqa: A002 - likewise
        """The live command of this id; `None` for none."""
        if not await self._is_there():
            return None
        answer = await self._ask("find", id=id)
        row = decode(answer[0])
        if not row:
            return None
        await self._session.know(row[:1], wait=self._wait)
        return to_found(id, row, answer[1], self._session.lanes)

    async def set_paused(self, lane: str, *, paused: bool) -> bool:
        """Pauses or resumes a lane; tells whether that changed anything.

        Raises:
            UnknownLane: no such lane.
        """
        session = self._session
        told = await self._is_there() and decode((await self._ask("pause", lane=lane, paused=paused))[0])
        if not told:
            await session.learn_names(wait=self._wait)
            raise UnknownLane(lane, session.codes)
        changed = bool(told[0])
        if changed:
            self._inbox.tell([Fact(FactKind.PAUSED if paused else FactKind.RESUMED, lane)])
        return changed

    async def stats(self) -> BrokerStats:
        """How the queue is."""
        return to_stats(await self._ask("stats")) if await self._is_there() else no_stats()

    async def letters(self, *, lane: str | None = None, limit: int = 100, after: str | None = None) -> list[Letter]:
        """Dead letters, oldest first, as `Broker.letters` says."""
        found: list[Letter] = []
        more = await self._is_there()
        while more and len(found) < limit:
            answer = await self._ask("letters", after=after or False, limit=_PAGE if lane else min(limit, _PAGE))
            ids, codes = decode(answer[0])
            await self._session.know(codes, wait=self._wait)
            page = [to_letter(id_, record, self._session.lanes) for id_, record in zip(ids, answer[1:], strict=True)]
            found += [letter for letter in page if lane is None or letter.lane == lane]
            more = bool(ids)
            after = ids[-1] if ids else after
        return found[:limit]

    async def requeue(self, ids: Sequence[str]) -> list[str]:
        """Makes dead letters commands again, with no attempt and no deadline; returns the ids of those there were."""
        done: list[str] = []
        if await self._is_there():
            for start in range(0, len(ids), _BATCH):
                done += decode((await self._ask("requeue", ids=list(ids[start : start + _BATCH])))[0])
        return done

    async def remove_letters(self, ids: Sequence[str] | None = None) -> int:
        """Forgets dead letters, `None` for all; returns how many there were."""
        if not await self._is_there():
            return 0
        count = 0
        if ids is not None:
            for start in range(0, len(ids), _BATCH):
                count += decode((await self._ask("remove", ids=list(ids[start : start + _BATCH])))[0])[0]
            return count
        while some := decode((await self._ask("remove", ids=False))[0])[0]:
            count += some
        return count
