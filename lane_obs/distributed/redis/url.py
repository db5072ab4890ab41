"""Where a server is and how it lets us in: what a URL says."""

from __future__ import annotations

import dataclasses
import re
import ssl
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from lane_obs.errors import ConfigError

_SCHEMES: Final = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
)
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})


class Kind(StrEnum):
    """How the server for a key is found."""

    SINGLE = "single"
    """It is at the address given."""
    SENTINEL = "sentinel"
    """Sentinels at the addresses given know."""
    CLUSTER = "cluster"
    """Any node of the cluster tells."""


class Address(NamedTuple):
    """A TCP address; a Unix socket has its path as host and the port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a URL says.

    Attributes:
        kind: how the server is found.
        addresses: of the server, or of Sentinels or nodes to ask; one or more.
        shown: the URL without its secrets, for messages.
        username, password: for the server; empty for none.
        sentinel_username, sentinel_password: for the Sentinels, likewise.
        db: the database's number.
        service: what the Sentinels call the master.
        tls: how to speak TLS; `None` for plain text.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    shown: str
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = dataclasses.field(default="", repr=False)
    db: int = 0
    service: str = ""
    tls: ssl.SSLContext | None = None


def parse(url: str) -> Target:
    """What the URL says.

    Shape: `redis://[[user]:password@]host[:port][/db]`; `rediss://` is the same over TLS; `unix://[...@]/path[?db=n]`;
    `redis+sentinel://[...@]host[:port],host[:port]/service[/db]`; `redis+cluster://[...@]host[:port],host[:port]`. What
    has a meaning in URLs is percent-encoded in user and password. Options: `ssl_ca_certs`, `ssl_certfile`,
    `ssl_keyfile` (paths) and `ssl_check_hostname` (`true` or `false`) with TLS, `sentinel_username` and
    `sentinel_password` with Sentinels.

    Raises:
        ConfigError: it is no such URL, or names a file that cannot be read. The message hides what is secret.
    """
    if not isinstance(url, str):
        raise ConfigError("url", type(url).__name__, f"give a text that begins with {_SCHEMES}")
    return _Parser(url).target()


def hide_secrets(url: str) -> str:
    """The URL with its user, passwords and whatever may be part of them as `***`."""
    # Up to the last @: a password that is not encoded as it should be may have any character in it.
    return re.sub(r"(\w*pass\w*=)[^&]*", r"\1***", re.sub(r"//.*@", "//***@", url, flags=re.DOTALL))


class _Parser:
    def __init__(self, url: str) -> None:
        self._shown = hide_secrets(url)
        try:
            self._parts = urlsplit(url)
        except ValueError:
            raise self._wrong(f"give a URL that begins with {_SCHEMES}") from None
        self._base, _, kind = self._parts.scheme.partition("+")
        known = self._base in {"redis", "rediss"} and kind in {"", "sentinel", "cluster"}
        if not known and self._parts.scheme != "unix":
            raise self._wrong(f"give a URL that begins with {_SCHEMES}")
        self._kind = Kind(kind or "single")
        self._options = self._read_options()

    def target(self) -> Target:
        """All of it."""
        if self._parts.fragment:
            raise self._wrong("write # as %23")
        credentials, _, places = self._parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        addresses = self._read_addresses(places)
        service, db = self._read_path()
        return Target(
            kind=self._kind,
            addresses=addresses,
            shown=self._shown,
            username=unquote(username),
            password=unquote(password),
            sentinel_username=self._options.get("sentinel_username", ""),
            sentinel_password=self._options.get("sentinel_password", ""),
            db=db,
            service=service,
            tls=self._read_tls() if self._base == "rediss" else None,
        )

    def _wrong(self, allowed: str, part: str = "") -> ConfigError:
        return ConfigError(f"url ({part})" if part else "url", self._shown, allowed)

    def _read_options(self) -> dict[str, str]:
        allowed = {"db"} if self._kind is Kind.SINGLE else set()
        allowed |= _TLS if self._base == "rediss" else set()
        allowed |= {"sentinel_username", "sentinel_password"} if self._kind is Kind.SENTINEL else set()
        options = dict(parse_qsl(self._parts.query, keep_blank_values=True))
        for name in options:
            if name not in allowed:
                raise self._wrong(f"options here are {', '.join(sorted(allowed)) or 'none'}", name[:50])
        return options

    def _read_addresses(self, places: str) -> tuple[Address, ...]:
        if self._base == "unix":
            if places or len(self._parts.path) < 2:
                raise self._wrong("give the absolute path of a socket: unix:///run/redis/redis.sock", "path")
            return (Address(unquote(self._parts.path), 0),)
        if self._kind is Kind.SINGLE and "," in places:
            raise self._wrong("give one host; several with redis+sentinel:// or redis+cluster://", "host")
        return tuple(self._read_address(place) for place in places.split(","))

    def _read_address(self, place: str) -> Address:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::([0-9]{1,5}))?", place)
        if match is None:
            raise self._wrong("give host or host:port", "host")
        port = int(match[2] or (_SENTINEL_PORT if self._kind is Kind.SENTINEL else _PORT))
        if not 1 <= port <= 65_535:
            raise self._wrong("give a port from 1 to 65535", "port")
        return Address(unquote(match[1].strip("[]")), port)

    def _read_path(self) -> tuple[str, int]:
        """The Sentinels' service, and the number of the database."""
        words = [unquote(word) for word in self._parts.path.split("/")[1:]] if self._base != "unix" else []
        service = ""
        if self._kind is Kind.SENTINEL:
            service = words.pop(0) if words else ""
            if not service:
                raise self._wrong(
                    "give what the Sentinels call the master: redis+sentinel://host:port/service", "service"
                )
        text = (words[0] if words else "") or self._options.get("db", "") or "0"
        if len(words) > 1 or not re.fullmatch("[0-9]{1,5}", text):
            raise self._wrong("give the number of a database, from 0", "db")
        if self._kind is Kind.CLUSTER and int(text):
            raise self._wrong("a cluster has the database 0 only", "db")
        return service, int(text)

    def _read_tls(self) -> ssl.SSLContext:
        check = self._options.get("ssl_check_hostname", "true")
        if check not in {"true", "false"}:
            raise self._wrong("give true or false", "ssl_check_hostname")
        try:
            context = ssl.create_default_context(cafile=self._options.get("ssl_ca_certs"))
        except (OSError, ValueError):  # an SSLError is an OSError
            raise self._wrong("give a readable file of PEM certificates", "ssl_ca_certs") from None
        context.check_hostname = check == "true"
        certificate = self._options.get("ssl_certfile")
        if certificate is not None:
            try:
                context.load_cert_chain(certificate, self._options.get("ssl_keyfile"))
            except (OSError, ValueError):
                raise self._wrong("give readable PEM files of a certificate and its key", "ssl_certfile") from None
        return context
