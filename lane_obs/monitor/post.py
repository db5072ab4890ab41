"""Posts JSON. The only place that knows of HTTP clients, and the only one that sees an address in full.

An address may be a secret from its user to its query, and so are headers. What is raised, logged or shown here names
scheme, host and port, and nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from lane_obs.clock import SystemClock
from lane_obs.config import Duration, to_seconds
from lane_obs.errors import MAX_SECONDS, ConfigError, NotificationError, NotificationRefused, RetryAfter

if TYPE_CHECKING:
    import httpx

_HOST: Final = re.compile(rb"[0-9A-Za-z_.:-]+")
_MAX_PORT: Final = 65_535
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
_OURS: Final = frozenset({"content-type", "content-length", "transfer-encoding", "connection"})
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SERVER_ERRORS: Final = 500
_SUCCESS: Final = range(200, 300)


class _Hidden:
    """Stands for a value that must not be shown."""

    def __repr__(self) -> str:
        return "(not shown)"


HIDDEN: Final = _Hidden()


class Post:
    """One address to post to. Loads httpx when it is made, as that takes too long in a running event loop.

    Environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured. Redirects are not followed.

    Args:
        url: the address, http or https. A user and password in it are sent as `Authorization: Basic`.
        path: what is added to it.
        headers: sent with each request.
        timeout: limit on each step: to connect, to send, to get an answer.

    Attributes:
        origin: scheme, host and port.
        timeout: the limit in seconds.

    Raises:
        ConfigError: a value that is not allowed; it shows neither address nor headers.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None, timeout: Duration, path: str = "") -> None:
        import httpx

        self.timeout = to_seconds("timeout", timeout)
        parsed = _to_url(url)
        if path and not parsed.path.rstrip("/").endswith(path):
            parsed = parsed.copy_with(path=parsed.path.rstrip("/") + path)
        self._headers = _to_headers(headers)
        if parsed.userinfo:
            if any(name.lower() == "authorization" for name in self._headers):
                raise ConfigError("headers.Authorization", HIDDEN, "the url has a user already; give one of the two")
            self._headers["Authorization"] = _basic(parsed.userinfo)
        self._url = parsed.copy_with(username="", password="", fragment=None)
        self.origin = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
        # Not a client: that one logs each address in full. And without connections that are kept: between two
        # alerts is time enough for the other side to close them.
        self._transport = httpx.AsyncHTTPTransport(
            verify=httpx.create_ssl_context() if parsed.scheme == "https" else False,
            proxy=_proxy_for(parsed),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def send(self, body: Any) -> None:
        """Posts an object as JSON.

        Raises:
            NotificationRefused: the receiver does not take it and will not later.
            NotificationError: it was not received, or the receiver is in trouble.
            RetryAfter: likewise, and the receiver says when to come back.
        """
        import httpx

        content = msgspec.json.encode(body)
        headers = {**self._headers, "Content-Type": "application/json", "Connection": "close"}
        limits = {"timeout": httpx.Timeout(self.timeout).as_dict()}
        request = httpx.Request("POST", self._url, headers=headers, content=content, extensions=limits)
        answer, failure = None, ""
        try:
            answer = await self._transport.handle_async_request(request)
        except Exception as error:
            failure = _reason(error)
        if answer is None:  # not within `except`: the error behind it may show what must not be shown
            raise NotificationError(f"{self.origin}: {failure}")
        with contextlib.suppress(Exception):  # the answer is there
            await answer.aclose()
        _check(self.origin, answer.status_code, answer.headers)

    async def close(self) -> None:
        """Lets go of everything; more can be sent all the same."""
        await self._transport.aclose()


def check_text(field: str, value: object) -> str:
    """Checks a text that is passed on as it is.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str):
        raise ConfigError(field, value, "give text")
    return value


def _to_url(url: object) -> httpx.URL:
    import httpx

    parsed = None
    if isinstance(url, str):
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):  # shown without its message: that quotes the address
            parsed = None
    # A password with a slash in it makes its beginning the host or the port: these are looked at closely.
    if (
        parsed is None
        or parsed.scheme not in {"http", "https"}
        or not _HOST.fullmatch(parsed.raw_host)
        or not (parsed.port is None or 0 < parsed.port <= _MAX_PORT)
    ):
        raise ConfigError("url", HIDDEN, "give an http or https address, such as https://host/path")
    return parsed


def _to_headers(headers: object) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigError("headers", HIDDEN, "give a mapping of names to values")
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError("headers", HIDDEN, "a header's name has letters, digits and hyphens")
        if name.lower() in _OURS:
            raise ConfigError(f"headers.{name}", HIDDEN, "this header is set here; leave it out")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigError(f"headers.{name}", HIDDEN, "give printable ASCII without spaces at its ends")
        found[name] = value
    return found


def _basic(userinfo: bytes) -> str:
    user, _, password = userinfo.decode("ascii").partition(":")
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")


def _proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    from urllib.request import getproxies, proxy_bypass

    import httpx

    proxies = getproxies()
    given = proxies.get(url.scheme) or proxies.get("all")
    if not given or proxy_bypass(url.netloc.decode("ascii")):
        return None
    proxy = None
    try:
        proxy = httpx.Proxy(given if "://" in given else f"http://{given}")
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or proxy.url.scheme not in {"http", "https"}:
        raise ConfigError("proxy", HIDDEN, f"the environment's proxy for {url.scheme} must be an http or https address")
    return proxy


def _reason(error: BaseException) -> str:
    """Why a request failed: its kind, and what the system says. Other messages may quote what was sent."""
    kind = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return f"{kind}: {seen.strerror}"
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__ or seen.__context__
    return kind


def _check(origin: str, status: int, headers: Mapping[str, str]) -> None:
    """Looks at an answer.

    Raises:
        NotificationRefused: it is one that will be the same next time.
        NotificationError: it may be another next time.
        RetryAfter: likewise, and it says when.
    """
    if status in _SUCCESS:
        return
    phrase = next((known.phrase for known in HTTPStatus if known == status), "")
    text = f"{origin} answered {status} {phrase}".rstrip()
    if status not in _AGAIN and status < _SERVER_ERRORS:
        raise NotificationRefused(text)
    seconds = _to_delay(headers.get("Retry-After", ""), headers.get("Date", ""))
    if seconds is None:
        raise NotificationError(text)
    raise RetryAfter(seconds, text)


def _to_delay(after: str, date: str) -> float | None:
    """The seconds of `Retry-After`, a number or a date; the answer's own date says what time it is there."""
    if after.strip().isdecimal():
        return min(float(after), MAX_SECONDS)
    then, now = _to_unix(after), _to_unix(date)
    if then is None:
        return None
    return min(max(0.0, then - (SystemClock().wall() if now is None else now)), MAX_SECONDS)


def _to_unix(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
