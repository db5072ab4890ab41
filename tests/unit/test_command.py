"""Names of work: the registry, the decorator and what a piece of work is called."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import Command, ConfigError, DuplicateCommandType, UnknownCommand, command
from lane_obs.command import registry, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def register() -> Iterator[Callable[[str], Any]]:
    """The decorator, with every name forgotten after the test."""
    names: list[str] = []

    def named(name: str) -> Any:
        names.append(name)
        return command(name)

    yield named
    for name in names:
        registry.remove(name)
    for work in (fetch, other):
        vars(work).pop("__lane_command__", None)


def fetch(url: str) -> str:
    return url


def other(url: str) -> str:
    return url


def test_a_registered_function_is_found_by_its_name_and_given_back_unchanged(register: Any) -> None:
    assert register("test.fetch")(fetch) is fetch
    assert registry.find("test.fetch") is fetch
    assert type_name(fetch) == "test.fetch"


def test_a_name_belongs_to_one_function(register: Any) -> None:
    register("test.fetch")(fetch)
    with pytest.raises(DuplicateCommandType, match=r"'test\.fetch' is registered as .*\.fetch; .*\.other needs"):
        register("test.fetch")(other)
    assert registry.find("test.fetch") is fetch


def test_the_same_function_may_be_registered_again(register: Any) -> None:
    register("test.fetch")(fetch)
    assert register("test.fetch")(fetch) is fetch


def test_an_unknown_name_lists_the_known_ones(register: Any) -> None:
    register("test.fetch")(fetch)
    with pytest.raises(UnknownCommand, match=r"no command is registered as 'test\.fetsh'; registered: .*'test\.fetch'"):
        registry.find("test.fetsh")


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "\x00", "x" * 201, 5, None])
def test_a_name_is_1_to_200_printable_characters(register: Any, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^command name: .* give 1 to 200 printable characters"):
        register(name)


def test_a_command_class_must_say_how_to_execute() -> None:
    class Nothing(Command[int]):
        pass

    with pytest.raises(TypeError, match="execute"):
        Nothing()  # type: ignore[abstract]


class Fetch(Command[str]):
    async def execute(self) -> str:
        return "x"


class Named(Command[str]):
    command_type = "named"

    async def execute(self) -> str:
        return "x"


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (fetch, "fetch"),
        (functools.partial(functools.partial(fetch, "a"), "b"), "fetch"),
        (Fetch(), "Fetch"),
        (Named(), "named"),
        (Fetch, "Fetch"),
        (Fetch().execute, "Fetch.execute"),
        (len, "len"),
    ],
)
def test_work_is_named_after_its_function_or_class(work: Any, name: str) -> None:
    assert type_name(work) == name


def test_a_registered_class_names_its_objects(register: Any) -> None:
    class Job(Command[int]):
        async def execute(self) -> int:
            return 1

    register("test.job")(Job)
    assert type_name(Job()) == "test.job"


def test_a_partial_of_a_registered_function_has_its_name(register: Any) -> None:
    register("test.fetch2")(other)
    assert type_name(functools.partial(other, "a")) == "test.fetch2"


def test_a_long_name_is_cut_to_200_characters() -> None:
    def work() -> None: ...

    work.__qualname__ = "w" * 500
    assert type_name(work) == "w" * 200
