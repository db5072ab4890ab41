"""Finds the queue that `module:name` means."""

from __future__ import annotations

import importlib
import inspect
import operator
from typing import Any

from lane_obs.errors import ConfigError
from lane_obs.runtime.manager import QueueManager

_WANTED = "give a QueueManager, or a function that makes one, as module:name"


def find_app(name: str) -> Any:
    """Imports what is named.

    Raises:
        ConfigError: it is no `module:name`, the module cannot be imported, or it has no such name.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError("app", name, _WANTED)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # it is the user's module
        raise ConfigError("app", name, f"importing {module!r} raised {type(error).__name__}: {error}") from error
    try:
        return operator.attrgetter(attribute)(found)
    except AttributeError:
        raise ConfigError("app", name, f"{module!r} has no {attribute!r}; {_WANTED}") from None


async def make_manager(name: str, app: Any) -> QueueManager:
    """The queue itself, made where `app` is a function.

    Raises:
        ConfigError: it is, or gives, something else.
    """
    made = app
    if not isinstance(made, QueueManager) and callable(made):
        made = made()
        if inspect.isawaitable(made):
            made = await made
    if not isinstance(made, QueueManager):
        raise ConfigError("app", name, f"it is a {type(made).__name__}; {_WANTED}")
    return made
