"""Lanes read from TOML: every field, and every kind of mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import DEFAULT_LANES, CommandTimeout, ConfigError, Jitter, LaneConfig, Overflow, RetryPolicy, load_lanes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lane_obs import QueueConfig

    Load = Callable[[str | bytes], QueueConfig]


class Flaky(Exception):
    """An exception type that a file can name."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str | bytes) -> QueueConfig:
        path = tmp_path / "lanes.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_lanes(path)

    return write_and_load


FULL = f"""
max_concurrency = 32

[lanes.api]
min_concurrency = 1
max_concurrency = 5
priority = -2
timeout = 30
max_pending = 1000
overflow = "reject"
pressure_threshold = 500

[lanes.api.retry]
max_retries = 3
initial_delay = 0.5
max_delay = 10
multiplier = 3
jitter = "none"
retry_on = ["TimeoutError", "CommandTimeout", "{__name__}:Flaky"]
give_up_on = ["KeyError"]

[lanes.batch]
"""


def test_every_field_can_be_set(load: Load) -> None:
    config = load(FULL)
    assert config.max_concurrency == 32
    assert list(config.lanes) == ["api", "batch"]
    assert config.lanes["batch"] == LaneConfig()
    api = config.lanes["api"]
    assert (api.min_concurrency, api.max_concurrency, api.priority, api.timeout) == (1, 5, -2, 30.0)
    assert (api.max_pending, api.overflow, api.pressure_threshold) == (1000, Overflow.REJECT, 500)
    retry = api.retry
    assert (retry.max_retries, retry.initial_delay, retry.max_delay, retry.multiplier) == (3, 0.5, 10.0, 3)
    assert retry.jitter is Jitter.NONE
    assert [kind.__name__ for kind in retry.retry_on] == ["TimeoutError", "CommandTimeout", "Flaky"]
    assert retry.retry_on[1] is CommandTimeout
    assert retry.give_up_on == (KeyError,)


def test_a_file_without_lanes_means_the_default_lanes(load: Load) -> None:
    config = load("max_concurrency = 10")
    assert config.lanes == DEFAULT_LANES
    assert config.max_concurrency == 10
    assert load("").max_concurrency is None


def test_a_path_may_be_text_and_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "lanes.toml").write_text("[lanes.a]\n")
    assert load_lanes(str(tmp_path / "lanes.toml")).lanes == {"a": LaneConfig()}
    with pytest.raises(FileNotFoundError):
        load_lanes(tmp_path / "none.toml")


def test_a_retry_table_with_no_fields_means_no_retries(load: Load) -> None:
    assert load("[lanes.a.retry]").lanes["a"].retry == RetryPolicy()


MISTAKES: list[tuple[str, str, str]] = [
    # text, field, part of what is allowed
    ("max_concurency = 3", "max_concurency", "did you mean 'max_concurrency'?"),
    ("[lane.a]", "lane", "did you mean 'lanes'?"),
    ("zzz = 1", "zzz", "max_concurrency, rate_limit, lanes"),
    ("[lanes.a]\npriorty = 1", "lanes.a.priorty", "did you mean 'priority'?"),
    ("[lanes.a]\nmax = 1", "lanes.a.max", "max_concurrency"),
    ("[lanes.a.retry]\nmax_retry = 1", "lanes.a.retry.max_retry", "did you mean 'max_retries'?"),
    ("lanes = 5", "lanes", "give a table"),
    ("[lanes]\na = 5", "lanes.a", "give a table"),
    ("[lanes.a]\nretry = 3", "lanes.a.retry", "give a table"),
    ("[lanes]", "lanes", "one lane"),
    ('[lanes.""]', "lane name", "1 to 200 printable characters"),
    ('[lanes."a\\u0007"]', "lane name", "1 to 200 printable characters"),
    (f'[lanes."{"x" * 201}"]', "lane name", "1 to 200 printable characters"),
    ('max_concurrency = "8"', "max_concurrency", "whole number of 1 or more"),
    ("max_concurrency = 0", "max_concurrency", "whole number of 1 or more"),
    ("max_concurrency = 8.0", "max_concurrency", "whole number of 1 or more"),
    ("[lanes.a]\nmin_concurrency = true", "lanes.a.min_concurrency", "whole number of 0 or more"),
    ("[lanes.a]\nmax_concurrency = 0", "lanes.a.max_concurrency", "whole number of 1 or more"),
    ("[lanes.a]\nmax_concurrency = 2.0", "lanes.a.max_concurrency", "whole number of 1 or more"),
    ("[lanes.a]\nmin_concurrency = 9", "lanes.a.min_concurrency", "give at most max_concurrency, which is 4"),
    ("[lanes.a]\ntimeout = nan", "lanes.a.timeout", "seconds above zero"),
    ("[lanes.a]\ntimeout = inf", "lanes.a.timeout", "seconds above zero"),
    ("[lanes.a]\ntimeout = -1", "lanes.a.timeout", "seconds above zero"),
    ("[lanes.a]\ntimeout = 12:00:00", "lanes.a.timeout", "seconds above zero"),
    ('[lanes.a]\noverflow = "drop"', "lanes.a.overflow", "'wait', 'reject', 'drop_oldest'"),
    ("[lanes.a.retry]\nmax_retries = -1", "lanes.a.retry.max_retries", "whole number of 0 or more"),
    ('[lanes.a.retry]\njitter = "x"', "lanes.a.retry.jitter", "'full', 'none'"),
    ('[lanes.a.retry]\nretry_on = ["NoSuchError"]', "lanes.a.retry.retry_on", "name an exception type"),
    ('[lanes.a.retry]\nretry_on = ["int"]', "lanes.a.retry.retry_on", "name an exception type"),
    ('[lanes.a.retry]\nretry_on = ["no_module:Error"]', "lanes.a.retry.retry_on", "name an exception type"),
    ('[lanes.a.retry]\nretry_on = ["json:loads"]', "lanes.a.retry.retry_on", "name an exception type"),
    ("[lanes.a.retry]\ngive_up_on = [3]", "lanes.a.retry.give_up_on", "name an exception type"),
    ("[lanes.a]\n[lanes.a]", "file", "give valid TOML: "),
    ("[lanes", "file", "give valid TOML: "),
]


@pytest.mark.parametrize(("text", "field", "allowed"), MISTAKES)
def test_a_mistake_is_named_by_its_place_in_the_file(load: Load, text: str, field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("value", [5, "TimeoutError", True])
def test_exception_types_are_given_as_a_list_of_names(load: Load, value: Any) -> None:
    text = f"{value!r}".replace("True", "true")
    with pytest.raises(ConfigError) as caught:
        load(f"[lanes.a.retry]\nretry_on = {text}")
    assert (caught.value.field, caught.value.value) == ("lanes.a.retry.retry_on", value)


def test_a_file_that_is_not_utf_8_is_a_configuration_error(load: Load) -> None:
    with pytest.raises(ConfigError, match="give valid TOML"):
        load(b"[lanes.\xff]")


def test_reservations_above_the_whole_are_refused_with_the_lanes_that_make_them(load: Load) -> None:
    text = "max_concurrency = 3\n[lanes.a]\nmin_concurrency = 2\n[lanes.b]\nmin_concurrency = 2"
    with pytest.raises(ConfigError, match=r"max_concurrency: 3 .* reserve 4 slots \(min_concurrency: a 2 \+ b 2\)"):
        load(text)
