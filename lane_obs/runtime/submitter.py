"""The ways in: `submit` and its kin."""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from lane_obs.errors import ConfigError, InvalidCommand, LaneObsError
from lane_obs.runtime.draft import Draft
from lane_obs.runtime.options import NO_OPTIONS, Options, SubmitOptions, make_options
from lane_obs.runtime.stream import AHEAD, Stream
from lane_obs.runtime.work import discard, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping

    from lane_obs.command import Command
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.intake import Intake

T = TypeVar("T")


class Submitter:
    """Takes commands. Base of `CommandQueue`, which documents the whole."""

    _intake: Intake
    _dispatcher: Dispatcher

    @overload
    async def submit(
        self, lane: str, work: type[Command[T]], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    async def submit(
        self, lane: str, work: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    async def submit(
        self, lane: str, work: Command[T] | Coroutine[Any, Any, T], /, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    async def submit(
        self, lane: str, work: Callable[..., T], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    async def submit(
        self, lane: str, work: str, /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[Any]: ...
    async def submit(self, lane: str, work: Any, /, *args: Any, **options: Unpack[SubmitOptions]) -> CommandHandle[Any]:
        """Puts a command into a lane and returns its handle; waits only for room in a full lane.

        Args:
            lane: name of the lane.
            work: an async or sync function, a `Command` object or class, or a registered name. A coroutine object
                works too, but runs once only. Sync functions run in a thread.
            *args: positional arguments of the work; use `functools.partial` for others.
            **options: see `SubmitOptions`.

        Raises:
            UnknownLane: no such lane.
            InvalidCommand: the work cannot be run.
            UnknownCommand: nothing is registered under this name.
            ConfigError: an option that is not allowed.
            DuplicateId: a live command has this id.
            LaneFullError: the lane is full and rejects.
            ShutdownInProgress: the queue shuts down, also while waiting for room.
            LaneRemoved: the lane is being removed; as `UnknownLane`, which it is.
            WrongLoop: called from another loop or thread.
        """
        try:
            checked = make_options(options) if options else NO_OPTIONS
            placed = self._intake.submit(lane, work, args, checked)
        except BaseException:
            refuse(work)
            raise
        if not isinstance(placed, Draft):
            return placed
        if placed.home.is_durable:
            return await self._intake.durable.place(placed)  # type: ignore[no-any-return]
        return await self._intake.place_waiting(placed)

    @overload
    def submit_nowait(
        self, lane: str, work: type[Command[T]], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    def submit_nowait(
        self, lane: str, work: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    def submit_nowait(
        self, lane: str, work: Command[T] | Coroutine[Any, Any, T], /, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    def submit_nowait(
        self, lane: str, work: Callable[..., T], /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[T]: ...
    @overload
    def submit_nowait(
        self, lane: str, work: str, /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[Any]: ...
    def submit_nowait(
        self, lane: str, work: Any, /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> CommandHandle[Any]:
        """Like `submit`, but a full lane raises `LaneFullError` also where `submit` would wait.

        Raises:
            LaneObsError: as `submit`.
        """
        try:
            checked = make_options(options) if options else NO_OPTIONS
            placed = self._intake.submit(lane, work, args, checked)
        except BaseException:
            refuse(work)
            raise
        if isinstance(placed, Draft):
            error = _not_now(placed, self._intake)
            raise error
        return placed

    async def submit_many(
        self, lane: str, items: Iterable[Any] | AsyncIterable[Any], /, **options: Unpack[SubmitOptions]
    ) -> list[CommandHandle[Any]]:
        """Submits several commands to one lane, in order, and returns their handles in the same order.

        A collection, such as a list, is checked whole before anything is enqueued. An iterator or async iterator is
        drawn from as `submit_stream` does, which also keeps no handles.

        Args:
            lane: name of the lane.
            items: each a piece of work as `submit` takes it, or a tuple of work and its arguments.
            **options: as for `submit`, the same for all; `id` and `key` belong to one command and are refused.

        Raises:
            ConfigError: an option that is not allowed, or `id` or `key`.
            InvalidCommand: an item cannot be run.
            LaneObsError: as `submit`. If one item of a collection is bad, none is enqueued. When the lane rejects or
                the queue shuts down half-way, those before are enqueued and run.
            Exception: what an iterator raised. Whatever ends an iterator half-way, those before are enqueued and run;
                a note on the error says how many.
        """
        if isinstance(items, Collection):
            return await self._submit_all(lane, items, options)
        handles: list[CommandHandle[Any]] = []
        try:
            async for handle in self._stream(lane, items, options, AHEAD):
                handles.append(handle)
        except Exception as error:
            error.add_note(f"{len(handles)} commands before it were enqueued")
            raise
        return handles

    def submit_stream(
        self, lane: str, items: Iterable[Any] | AsyncIterable[Any], /, **options: Unpack[SubmitOptions]
    ) -> AsyncGenerator[CommandHandle[Any], None]:
        """Submits what an iterator gives, one by one, and gives each handle once its command is enqueued.

        Nothing is drawn while the lane is full and lets wait, nor while nobody asks for the next handle; the event loop
        goes on with other work in between. Durable commands are drawn up to 64 ahead, so that they share commits,
        from an async iterator one by one. An iterator that was given, such as a generator, is not closed.

        Args:
            lane: name of the lane.
            items: an iterable or async iterable of what `submit_many` takes.
            **options: as for `submit_many`.

        Returns:
            An async iterator of the handles; the submit goes as far as it is iterated.

        Raises:
            ConfigError: an option that is not allowed, or `id` or `key`.
            LaneObsError: while iterating, as `submit`; the commands before are enqueued and run.
            Exception: while iterating, what the iterator raised; likewise.
        """
        return self._stream(lane, items, options, 1 if isinstance(items, AsyncIterable) else AHEAD)

    def _stream(
        self, lane: str, items: Iterable[Any] | AsyncIterable[Any], options: Mapping[str, Any], ahead: int
    ) -> AsyncGenerator[CommandHandle[Any], None]:
        checked = _check_many([], options)
        return Stream(self._intake, self._dispatcher, lane, items, checked, ahead=ahead).handles()

    async def _submit_all(
        self, lane: str, items: Collection[Any], options: Mapping[str, Any]
    ) -> list[CommandHandle[Any]]:
        intake = self._intake
        pairs = [item if isinstance(item, tuple) else (item,) for item in items]
        drafts: list[Draft] = []
        handles: list[CommandHandle[Any]] = []
        try:
            checked = _check_many(pairs, options)
            intake.bind()
            if not pairs:
                intake.find_lane(lane, "")
            for work, *args in pairs:
                drafts.append(intake.prepare(lane, work, tuple(args), checked))
            if drafts and drafts[0].home.is_durable:
                return list(await intake.durable.place_many(drafts))
            for draft in drafts:
                handles.append(intake.place(draft) or await intake.place_waiting(draft))
        except BaseException:
            for draft in drafts[len(handles) :]:
                discard(draft.work)
            for work, *_ in filter(None, pairs[len(drafts) :]):
                refuse(work)
            raise
        return handles


def _not_now(draft: Draft, intake: Intake) -> LaneObsError:
    """Makes the error for a draft that could only be placed by waiting."""
    if draft.home.is_durable:
        discard(draft.work)
        return InvalidCommand(f"lane {draft.home.name!r} is durable: a submit waits for its commit; await submit()")
    return intake.full(draft)


def _check_many(pairs: list[tuple[Any, ...]], given: Mapping[str, Any]) -> Options:
    if () in pairs:
        raise InvalidCommand(f"item {pairs.index(())} is an empty tuple; give the work and its arguments")
    checked = make_options(given)
    if checked.id is not None or checked.key is not None:
        raise ConfigError("id" if checked.id else "key", checked.id or checked.key, "submit one by one to set it")
    return checked
