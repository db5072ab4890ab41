"""A storage with only the seven methods does for a durable queue, also when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError
from lane_obs.errors import StorageError
from lane_obs.storage import (
    AddLetter,
    ClearLetters,
    LocalStorage,
    MemoryStorage,
    Remove,
    RemoveLetter,
    Save,
    SevenMethods,
    StorageHealth,
    Update,
    adapt,
)
from tests.unit.storage.support import command, letter

if TYPE_CHECKING:
    from lane_obs import VirtualClock


class Plain:
    """Seven methods, a list of the calls, and faults on request."""

    def __init__(self) -> None:
        self.commands: dict[str, Any] = {}
        self.letters: dict[str, Any] = {}
        self.calls: list[str] = []
        self.fails: set[str] = set()

    def _note(self, name: str, key: str = "") -> None:
        if name in self.fails:
            raise OSError(28, "No space left on device")
        self.calls.append(f"{name} {key}".strip())

    async def save_command(self, command: Any) -> None:
        self._note("save", command.id)
        self.commands[command.id] = command

    async def load_commands(self) -> list[Any]:
        self._note("load")
        return sorted(self.commands.values(), key=lambda stored: stored.seq)

    async def remove_command(self, command_id: str) -> None:
        self._note("remove", command_id)
        self.commands.pop(command_id, None)

    async def save_dead_letter(self, letter: Any) -> None:
        self._note("letter", letter.id)
        self.letters.pop(letter.id, None)
        self.letters[letter.id] = letter

    async def load_dead_letters(self) -> list[Any]:
        return list(self.letters.values())

    async def clear_dead_letters(self) -> None:
        self._note("clear letters")
        self.letters.clear()

    async def clear_all(self) -> None:
        self._note("clear all")
        self.commands.clear()
        self.letters.clear()


async def made(plain: Plain, clock: VirtualClock | None = None) -> SevenMethods:
    storage = SevenMethods(plain, clock=clock)
    await storage.open()
    plain.calls.clear()
    return storage


def test_what_can_do_all_is_left_as_it_is_and_what_lacks_a_method_is_refused() -> None:
    memory, local = MemoryStorage(), LocalStorage("anywhere")
    assert adapt(memory) is memory
    assert adapt(local) is local
    assert isinstance(adapt(Plain()), SevenMethods)
    with pytest.raises(ConfigError, match="save_command, load_commands"):
        adapt(object())  # type: ignore[arg-type]
    assert any("at once" in line for line in adapt(Plain()).cannot)
    assert local.cannot == ()


async def test_a_batch_first_saves_and_then_removes_so_that_a_crash_loses_nothing() -> None:
    plain = Plain()
    storage = await made(plain)
    await storage.apply([Save(command(1)), Save(command(2))])
    plain.calls.clear()
    await storage.apply(
        [Remove("c1"), AddLetter(letter(1)), Update(id="c2", state="running", attempt=1, updated_at=0.0)]
    )
    assert plain.calls == ["save c2", "letter c1", "remove c1"]
    plain.calls.clear()
    await storage.apply([RemoveLetter("c1"), Save(command(1))])
    assert plain.calls == ["save c1", "clear letters"]
    assert (list(plain.letters), sorted(plain.commands)) == ([], ["c1", "c2"])
    await storage.close()


async def test_changes_of_one_command_in_a_batch_are_one_call() -> None:
    plain = Plain()
    storage = await made(plain)
    await storage.apply([Save(command(1)), Update(id="c1", state="running", attempt=1, updated_at=0.0)])
    assert plain.calls == ["save c1"]
    assert plain.commands["c1"].attempt == 1
    await storage.close()


async def test_letters_beyond_the_limit_are_swept_now_and_then() -> None:
    plain = Plain()
    storage = await made(plain)
    for seq in range(1, 101):
        await storage.apply([AddLetter(letter(seq), limit=5)])
    assert len(await storage.load_dead_letters()) == 5
    assert len(plain.letters) <= 5 + 17
    assert plain.calls.count("clear letters") < 10
    await storage.apply([ClearLetters()])
    assert plain.letters == {}
    await storage.close()


async def test_what_it_finds_at_the_start_is_there() -> None:
    plain = Plain()
    plain.commands = {"c2": command(2), "c1": command(1)}
    plain.letters = {"c5": letter(5)}
    storage = await made(plain)
    assert [stored.seq for stored in await storage.load_commands()] == [1, 2]
    assert await storage.load_dead_letters() == [letter(5)]
    assert storage.health().last_seq == 2
    await storage.close()
    assert plain.calls == []


async def test_a_fault_refuses_new_commands_keeps_the_rest_and_is_told() -> None:
    plain = Plain()
    storage = await made(plain)
    told: list[StorageHealth] = []
    storage.on_state = told.append
    await storage.apply([Save(command(1)), Save(command(2))])
    plain.fails = {"save", "remove"}
    with pytest.raises(StorageError, match="No space left on device") as caught:
        await storage.apply([Save(command(3))])
    assert (caught.value.kept, caught.value.path) == (False, "Plain")
    with pytest.raises(StorageError) as caught:
        await storage.apply([Remove("c1")])
    assert caught.value.kept
    assert [health.ready for health in told] == [False]
    assert (storage.health().ready, storage.health().failures) == (False, 2)
    assert [stored.seq for stored in await storage.load_commands()] == [2]
    plain.fails = set()
    await storage.apply([Save(command(4))])
    assert [health.ready for health in told] == [False, True]
    assert sorted(plain.commands) == ["c2", "c4"]
    assert storage.health().kept == 0
    await storage.close()


async def test_what_failed_is_tried_again_by_itself_further_and_further_apart(clock: VirtualClock) -> None:
    plain = Plain()
    storage = await made(plain, clock)
    told: list[bool] = []
    storage.on_state = lambda health: told.append(health.ready)
    await storage.apply([Save(command(1)), Save(command(2))])
    plain.fails = {"remove"}
    with pytest.raises(StorageError) as caught:
        await storage.apply([Remove("c1")])
    assert caught.value.kept
    times, began = [], clock.now()
    for _ in range(8):
        failures = storage.health().failures
        while storage.health().failures == failures:
            await clock.advance(0.1)
        times.append(round(clock.now() - began, 1))
    assert times == [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 11.3, 16.3]
    plain.fails = set()
    await clock.advance(5)
    assert (told, storage.health().kept, list(plain.commands)) == ([False, True], 0, ["c2"])
    plain.fails = {"save"}
    with pytest.raises(StorageError):
        await storage.apply([Save(command(3))])
    plain.fails = set()
    await clock.advance(0.1)
    assert (told, list(plain.commands)) == ([False, True, False, True], ["c2"])
    await storage.close()


async def test_a_change_that_works_ends_the_tries(clock: VirtualClock) -> None:
    plain = Plain()
    storage = await made(plain, clock)
    plain.fails = {"letter"}
    with pytest.raises(StorageError):
        await storage.apply([AddLetter(letter(1))])
    plain.fails = set()
    await storage.apply([Save(command(1))])
    assert list(plain.letters) == ["c1"]
    plain.calls.clear()
    await clock.advance(60)
    assert plain.calls == []
    plain.fails = {"letter"}
    with pytest.raises(StorageError):
        await storage.apply([AddLetter(letter(2))])
    plain.fails = set()
    await storage.close()  # no timer is left
    assert list(plain.letters) == ["c1", "c2"]


async def test_a_requeue_that_fails_leaves_the_letter() -> None:
    plain = Plain()
    storage = await made(plain)
    await storage.apply([AddLetter(letter(1)), AddLetter(letter(2))])
    plain.fails = {"save"}
    with pytest.raises(StorageError):
        await storage.apply([RemoveLetter("c1"), Save(command(1))])
    assert await storage.load_dead_letters() == [letter(1), letter(2)]
    plain.fails = set()
    await storage.apply([Save(command(9))])
    assert sorted(plain.letters) == ["c1", "c2"]
    assert list(plain.commands) == ["c9"]
    await storage.close()


async def test_close_waits_and_tries_once_more_and_says_what_it_could_not_store() -> None:
    plain = Plain()
    storage = await made(plain)
    await storage.apply([Save(command(1))])
    plain.fails = {"remove"}
    future = storage.apply([Remove("c1")])
    with pytest.raises(StorageError):
        await storage.close()
    assert future.done()
    assert list(plain.commands) == ["c1"]


async def test_a_storage_that_cannot_be_loaded_does_not_open() -> None:
    plain = Plain()
    plain.fails = {"load"}
    with pytest.raises(StorageError, match="No space left"):
        await SevenMethods(plain).open()


class WithEnds(Plain):
    async def open(self) -> None:
        self._note("open")

    async def close(self) -> None:
        self._note("close")


async def test_it_may_have_an_open_and_a_close() -> None:
    plain = WithEnds()
    storage = SevenMethods(plain)
    await storage.open()
    await storage.close()
    await storage.close()
    assert plain.calls == ["open", "load", "close"]
