"""Whom a monitor tells: callbacks, webhooks, Alertmanager; in Python or from a table of a TOML file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import check_keys, check_name
from lane_obs.errors import ConfigError, NotificationError, NotificationRefused
from lane_obs.monitor.alert import Alert, AlertState, Notifier
from lane_obs.monitor.alertmanager import AlertmanagerNotifier
from lane_obs.monitor.post import HIDDEN
from lane_obs.monitor.webhook import WebhookNotifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = [
    "Alert",
    "AlertState",
    "AlertmanagerNotifier",
    "CallbackNotifier",
    "NotificationError",
    "NotificationRefused",
    "Notifier",
    "WebhookNotifier",
    "notifier_from",
]


class CallbackNotifier:
    """Calls a function with each alert, one at a time.

    Args:
        callback: takes an `Alert`. One that is not `async` runs on the event loop and must be quick. When it raises it
            is called again, with delays; a `NotificationRefused` ends that.
        name: what events and metrics call it; default the function's name.

    Raises:
        ConfigError: a value that is not allowed.
    """

    batch_size: Final = 1

    def __init__(self, callback: Callable[[Alert], Awaitable[object] | object], name: str | None = None) -> None:
        if not callable(callback):
            raise ConfigError("callback", callback, "give a function of an alert, async or not")
        self._callback = callback
        named = getattr(callback, "__name__", type(callback).__name__) if name is None else name
        self.name = check_name("name", named)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    async def notify(self, alerts: Sequence[Alert]) -> None:
        """Calls it with each."""
        for alert in alerts:
            result = self._callback(alert)
            if inspect.isawaitable(result):
                await result

    async def close(self) -> None:
        """Does nothing."""


_COMMON: Final = ("type", "url", "url_env", "headers", "headers_env", "timeout", "name", "generator_url")
_KEYS: Final = {
    "webhook": (*_COMMON, "external_url"),
    "alertmanager": (*_COMMON, "labels", "refresh_seconds", "resolve_after"),
}
_KINDS: Final[dict[str, Callable[..., Notifier]]] = {
    "webhook": WebhookNotifier,
    "alertmanager": AlertmanagerNotifier,
}


def notifier_from(table: Mapping[str, Any]) -> Notifier:
    """Makes a notifier of a table, as it stands in a TOML file.

    Shape: `type` is `webhook` or `alertmanager`; all else are arguments of `WebhookNotifier` or `AlertmanagerNotifier`.
    What is secret may come from the environment: `url_env = "VARIABLE"` in place of `url`, and
    `headers_env = {Authorization = "VARIABLE"}` beside `headers`.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, or a variable that is not set. Secrets are not shown.
    """
    if not isinstance(table, Mapping):
        raise ConfigError("notifiers", HIDDEN, "give a table")
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError("type", kind, f"give one of {', '.join(repr(name) for name in _KINDS)}")
    # What stands behind a misspelt key may be a secret.
    check_keys("", dict.fromkeys(table, HIDDEN), _KEYS[kind])
    values = {key: value for key, value in table.items() if key != "type"}
    if ("url" in values) is ("url_env" in values):
        raise ConfigError("url", HIDDEN, "give either url or url_env")
    if "url_env" in values:
        values["url"] = _variable("url_env", values.pop("url_env"))
    if "headers_env" in values:
        values["headers"] = _headers(values.get("headers", {}), values.pop("headers_env"))
    return _KINDS[kind](**values)


def _headers(given: Any, variables: Any) -> Any:
    for field, table in (("headers", given), ("headers_env", variables)):
        if not isinstance(table, Mapping):
            raise ConfigError(field, HIDDEN, "give a table of names and values")
    if twice := sorted({str(name).lower() for name in given} & {str(name).lower() for name in variables}):
        raise ConfigError(f"headers_env.{twice[0]}", HIDDEN, "it stands in headers, too; give one of the two")
    return {**given, **{name: _variable(f"headers_env.{name}", value) for name, value in variables.items()}}


def _variable(field: str, name: object) -> str:
    value = os.environ.get(name) if isinstance(name, str) and name else None
    if not value:
        raise ConfigError(field, HIDDEN, "give the name of an environment variable that is set")
    return value
