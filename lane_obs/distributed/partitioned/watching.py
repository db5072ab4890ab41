"""Whom a member waits for: asked of the partitions that may have them, and asked again when one is back."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from typing import TYPE_CHECKING, Final

from lane_obs.clock import sleep
from lane_obs.distributed.denial import delay_after_denial
from lane_obs.distributed.partitioned.together import together
from lane_obs.distributed.record import Result
from lane_obs.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.clock import Clock
    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.port import Listener

_UNKNOWN: Final = "unknown"


@dataclasses.dataclass(slots=True)
class _Watch:
    """One command that is watched.

    Attributes:
        asked: partitions that have not answered.
        under_way: those of them that a question is on its way to.
        live: partitions where it lives.
        found: how an earlier command of its id, or this one, came to its end.
    """

    asked: set[Branch]
    under_way: set[Branch] = dataclasses.field(default_factory=set)
    live: set[Branch] = dataclasses.field(default_factory=set)
    found: Result | None = None


class Watching:
    """The watches of one member.

    Args:
        homes: gives the partitions that may have a command.
        listener: is told of ends.
        clock: all time.
    """

    def __init__(self, homes: Callable[[str], Sequence[Branch]], listener: Listener, clock: Clock) -> None:
        self._homes = homes
        self._listener = listener
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        """See `Broker.watch`. What a partition that cannot be asked knows is told once it can be.

        Raises:
            BrokerUnavailable: none can be reached.
        """
        by_branch: dict[Branch, list[str]] = {}
        for key in dict.fromkeys(ids):
            homes = self._homes(key)
            self._watches[key] = _Watch(set(homes))
            for branch in homes:
                by_branch.setdefault(branch, []).append(key)
        found: list[Result] = []

        async def ask(branch: Branch, keys: list[str]) -> None:
            found.extend(await self._ask(branch, keys))

        failed = await together((ask(branch, keys) for branch, keys in by_branch.items()), but=BrokerError)
        errors = [error for error in failed if isinstance(error, BrokerError)]
        if errors and len(errors) == len(by_branch):
            for key in ids:
                self._watches.pop(key, None)
            raise errors[0]
        for (branch, keys), error in zip(by_branch.items(), failed, strict=True):
            if isinstance(error, BrokerError):
                self._ask_until_answered(branch, keys)
        return found

    async def _ask(self, branch: Branch, keys: Sequence[str]) -> list[Result]:
        """Asks one partition; gives what is known for sure by then."""
        watches = [watch for key in keys if (watch := self._watches.get(key)) is not None]
        for watch in watches:
            watch.under_way.add(branch)
        try:
            ended = {result.id: result for result in await branch.reach(lambda broker: broker.watch(keys))}
        finally:
            for watch in watches:
                watch.under_way.discard(branch)
        sure: list[Result] = []
        for key in keys:
            watch = self._watches.get(key)
            if watch is None:  # it was told meanwhile, or is watched no more
                continue
            watch.asked.discard(branch)
            result = ended.get(key)
            if result is None:
                watch.live.add(branch)
            elif result.state != _UNKNOWN:
                watch.found = result
            if not watch.asked and not watch.live:
                del self._watches[key]
                sure.append(watch.found or Result(key, _UNKNOWN))
        return sure

    def take(self, results: Sequence[Result]) -> None:
        """Passes on what a partition tells; of a command that lives in two of them the first end counts."""
        told = [result for result in results if self._watches.pop(result.id, None) is not None]
        if told:
            self._listener.on_results(told)

    def renew(self, branch: Branch) -> None:
        """A partition is back: what it told meanwhile is lost."""
        keys = [
            key
            for key, watch in self._watches.items()
            if branch in watch.live or (branch in watch.asked and branch not in watch.under_way)
        ]
        for key in keys:
            self._watches[key].live.discard(branch)
            self._watches[key].asked.add(branch)
        if keys:
            self._ask_until_answered(branch, keys)

    def _ask_until_answered(self, branch: Branch, keys: Sequence[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._answered(branch, keys), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, branch: Branch, keys: Sequence[str]) -> None:
        tries = 0
        while keys := [key for key in keys if key in self._watches and branch in self._watches[key].asked]:
            try:
                sure = await self._ask(branch, keys)
            except BrokerError as error:  # a link that is broken, or a partition that denies it
                tries += 1
                await sleep(self._clock, delay_after_denial(tries, error))
            else:
                if sure:
                    self._listener.on_results(sure)

    async def unwatch(self, ids: Sequence[str]) -> None:
        """See `Broker.unwatch`."""
        by_branch: dict[Branch, list[str]] = {}
        for key in ids:
            watch = self._watches.pop(key, None)
            for branch in () if watch is None else watch.live | watch.asked:
                by_branch.setdefault(branch, []).append(key)
        await together(
            branch.reach(lambda broker, keys=keys: broker.unwatch(keys))  # type: ignore[misc]
            for branch, keys in by_branch.items()
        )

    async def close(self) -> None:
        """Ends what is under way."""
        self._watches.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
