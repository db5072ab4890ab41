"""A member's place in its queue: joins it, asks it, and joins it again where it was forgotten."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.redis.frame import decode, encode
from lane_obs.distributed.redis.program import load
from lane_obs.errors import BrokerMismatch, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from lane_obs.distributed.redis.keys import Keys
    from lane_obs.distributed.redis.link import Link
    from lane_obs.distributed.redis.program import Program

VERSION: Final = 1
"""Schema version of what is stored."""
_FORGOTTEN: Final = "unknown"
"""What a lane is called whose name is gone, as metrics call one that nobody knows."""
OTHER_QUEUE, NOT_REGISTERED, NO_QUEUE = 0, 1, 2
"""What scripts answer where the member is not in the queue that it means."""

_numbers = itertools.count(1)


class Session:
    """What a member is known by, and what it knows of the queue.

    Args:
        keys: of the queue.
        on_forgotten: is called when the queue has forgotten this member: what it held is not its own any more. It gets
            the answers of the script that took it from it.

    Attributes:
        member: its id for people.
        code: its code in the queue.
        epoch: the queue's code; empty before it has joined, or where there is no queue.
        lanes: names of lanes by their codes.
        codes: the other way round.
    """

    def __init__(self, keys: Keys, on_forgotten: Callable[[list[Any]], None]) -> None:
        self.keys = keys
        self.member = f"{socket.gethostname()}:{os.getpid()}:{next(_numbers)}"
        self.code = secrets.token_urlsafe(6)
        self.epoch = ""
        self.lanes: dict[int, str] = {}
        self.codes: dict[str, int] = {}
        self.link: Link | None = None
        self.last_token = 0
        """The last one when it joined: what was claimed for it before is lost."""
        self.wish: dict[str, Any] = {}
        """What it joins with."""
        self._on_forgotten = on_forgotten
        self._lock = asyncio.Lock()
        self._joins = 0

    async def join(self, *, wait: float | None) -> None:
        """Joins the queue.

        Raises:
            BrokerMismatch: it belongs to another version.
        """
        await self._join(self.wish, wait)

    async def _join(self, wish: dict[str, Any], wait: float | None) -> None:
        wish = {**wish, "epoch": secrets.token_urlsafe(6)}
        answer = await self._run(load("open"), [self.code, "", encode(wish)], wait)
        if answer == NO_QUEUE:
            self.epoch = ""
            return
        if len(answer) == 2:
            found = answer[1].decode()
            text = f"{self.keys.channel('')} has version {found} of the schema, this library has {VERSION}"
            raise BrokerMismatch(text)
        self._take_names(answer)
        self.last_token = decode(answer[0])[2]
        self._joins += 1

    async def learn_names(self, *, wait: float | None) -> None:
        """Asks for the lanes anew, where there is a queue."""
        if self.epoch:
            self._take_names(await self.ask("names", {}, wait=wait))

    def _take_names(self, answer: Sequence[bytes]) -> None:
        epoch, names, *_ = decode(answer[0])
        self.epoch = epoch
        codes = {name: int(code) for name, code in zip(names[::2], names[1::2], strict=True)}
        self.codes = {name: code for name, code in codes.items() if code > 0}
        self.lanes = {abs(code): name for name, code in codes.items()}

    async def ask(
        self, name: str, request: dict[str, Any], *blobs: bytes, wait: float | None, held_by: str | None = None
    ) -> Any:
        """Runs a script.

        Args:
            name: which.
            request: what it is asked.
            blobs: bytes that go with it.
            wait: seconds for it, `None` for as long as the link is open.
            held_by: the member whose `held` it looks into; `None` for this one.
        """
        return await self.send(load(name), [encode(request), *blobs], wait=wait, held_by=held_by)

    async def send(
        self,
        program: Program,
        parts: list[bytes],
        *,
        wait: float | None,
        held_by: str | None = None,
        again: Callable[[], list[bytes]] | None = None,
    ) -> Any:
        """Runs a script with what `ask` would pack.

        Args:
            program: the script.
            parts: what it is asked, and bytes.
            wait: of `ask`.
            held_by: of `ask`.
            again: gives the parts for a member that was forgotten meanwhile, so that the script may have run before.

        Raises:
            BrokerUnavailable: there is no queue, and this member makes none.
        """
        while True:
            joins = self._joins
            answer = await self._run(program, [self.code, self.epoch, *parts], wait, held_by)
            if type(answer) is not int:
                return answer
            await self._join_again(answer, joins, wait)
            if again is not None:
                parts = again()
            if not self.epoch:
                raise BrokerUnavailable(f"there is no queue {self.keys.channel('')[:-1]}")

    async def ask_once(self, name: str, request: dict[str, Any], *, wait: float) -> Any:
        """Runs a script; `None` where the queue does not know this member."""
        answer = await self._run(load(name), [self.code, self.epoch, encode(request)], wait)
        return None if type(answer) is int else answer

    async def know(self, codes: Collection[int], *, wait: float | None) -> None:
        """Sees to it that these lanes have names. One that was forgotten since it was told of has none any more."""
        if any(code not in self.lanes for code in codes):
            await self.learn_names(wait=wait)
            for code in codes:
                self.lanes.setdefault(code, _FORGOTTEN)

    async def _run(self, program: Program, args: list[Any], wait: float | None, held_by: str | None = None) -> Any:
        if self.link is None:
            raise BrokerUnavailable("the broker is not open")
        keys = self.keys.of(program.keys, self.code if held_by is None else held_by)
        return await self.link.run(program.script, keys, args, wait=wait)

    async def _join_again(self, answer: int, joins: int, wait: float | None) -> None:
        async with self._lock:
            if self._joins != joins:
                return
            wish, told = self.wish, []
            if answer == NOT_REGISTERED:
                told = await self._give_up_held(wait)
                self.wish["looks"] = False
                wish = {**self.wish, "lanes": []}  # others may have given lanes new policies meanwhile
            await self._join(wish, wait)
            self._on_forgotten(told)

    async def _give_up_held(self, wait: float | None) -> list[Any]:
        """Has the commands that this member held taken from it, should nobody have done so yet; returns answers."""
        request = encode({"member": self.code, "ttl": self.wish["ttl"]})
        answers: list[Any] = []
        more = True
        while more:
            answer = await self._run(load("sweep"), [self.code, self.epoch, request], wait)
            if type(answer) is int:
                break
            more = decode(answer[0])[0]
            answers.append(answer)
        return answers
