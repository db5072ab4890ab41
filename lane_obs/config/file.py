"""Reads the configuration of a queue from a TOML file."""

from __future__ import annotations

import dataclasses
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.config.check import check_keys
from lane_obs.config.lane import LaneConfig, QueueConfig
from lane_obs.config.retry import RetryPolicy
from lane_obs.config.table import boost_from_table, check_table, partitions_from_table, rate_limit_from_table
from lane_obs.errors import CommandTimeout, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike


def load_lanes(path: str | PathLike[str]) -> QueueConfig:
    """Reads lanes from a TOML file.

    Shape: `max_concurrency = 32`, the `rate_limit` of the whole queue, and a table `[lanes.NAME]` for each lane with
    the fields of `LaneConfig`. `retry` is a table with the fields of `RetryPolicy`, whose exception types are names
    such as `"TimeoutError"` or `"package.module:ErrorClass"`; `rate_limit`, `boost` and `partitions` are tables such as
    `{ per_second = 6, burst = 20 }`, `{ standard = 30 }` and `{ by_key = 16 }`. A table `[alerts]` is left to whoever
    reads the alerts.

    Raises:
        ConfigError: broken TOML, an unknown key (with its nearest match), or a value that is not allowed.
        OSError: the file cannot be read.
    """
    return lanes_of(read_document(path))


def read_document(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads a file of lanes and alerts as plain tables.

    Raises:
        ConfigError: broken TOML, or an unknown key at the top.
        OSError: the file cannot be read.
    """
    try:
        document: dict[str, Any] = msgspec.toml.decode(Path(path).read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("file", str(path), f"give valid TOML: {error}") from error
    # A table is not shown: beside a misspelt key of it there may stand a secret.
    shown = {key: "(...)" if isinstance(value, dict | list) else value for key, value in document.items()}
    check_keys("", shown, ("max_concurrency", "rate_limit", "lanes", "alerts"))
    return document


def lanes_of(document: Mapping[str, Any]) -> QueueConfig:
    """The lanes of what `read_document` has read.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    whole: dict[str, Any] = {"max_concurrency": document.get("max_concurrency")}
    if "rate_limit" in document:
        whole["rate_limit"] = rate_limit_from_table("rate_limit", document["rate_limit"])
    tables = document.get("lanes")
    if tables is None:
        return QueueConfig(**whole)
    check_table("lanes", tables)
    lanes = {name: _lane_from_table(f"lanes.{name}", table) for name, table in tables.items()}
    return QueueConfig(lanes, **whole)


def _fields_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _lane_from_table(field: str, table: Any) -> LaneConfig:
    check_table(field, table)
    check_keys(f"{field}.", table, _fields_of(LaneConfig))
    values = dict(table)
    try:
        for name, read in _TABLES.items():
            if name in values:
                values[name] = read(values[name])
        return LaneConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error.field}", error.value, error.allowed) from None


def retry_from_table(table: Any) -> RetryPolicy:
    """Makes a policy of its fields by name, exception types as `"package.module:ErrorClass"`.

    Raises:
        ConfigError: an unknown field, or a value that is not allowed.
    """
    check_table("retry", table)
    check_keys("retry.", table, _fields_of(RetryPolicy))
    values = dict(table)
    for key in ("retry_on", "give_up_on"):
        if key in values:
            if not isinstance(values[key], list):
                raise ConfigError(f"retry.{key}", values[key], "give a list of names of exception types")
            values[key] = tuple(_exception_named(f"retry.{key}", name) for name in values[key])
    return RetryPolicy(**values)


_TABLES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "retry": retry_from_table,
    "rate_limit": lambda value: rate_limit_from_table("rate_limit", value),
    "boost": lambda value: boost_from_table("boost", value),
    "partitions": lambda value: partitions_from_table("partitions", value),
}
_OWN_EXCEPTIONS = {"CommandTimeout": CommandTimeout}


def _exception_named(field: str, name: object) -> type[BaseException]:
    if isinstance(name, str) and name in _OWN_EXCEPTIONS:
        return _OWN_EXCEPTIONS[name]
    try:
        found = pkgutil.resolve_name(name if ":" in str(name) else f"builtins:{name}")  # type: ignore[arg-type]
    except (ValueError, ImportError, AttributeError, TypeError):
        found = None
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise ConfigError(field, name, 'name an exception type: "TimeoutError" or "package.module:ErrorClass"')
    return found
