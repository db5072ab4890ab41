"""What is left at the server once all is done and everybody is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

_SIZES = {b"hash": "HLEN", b"zset": "ZCARD", b"set": "SCARD", b"list": "LLEN", b"string": "STRLEN"}
"""What tells a key's size; TYPE answers with a status."""


def leftovers(server: Server) -> dict[str, tuple[int, int]]:
    """The keys: how many elements each has, and in how many milliseconds it goes (-1: never)."""
    found, cursor = {}, b"0"
    while True:
        cursor, keys = server.ask("SCAN", cursor, "COUNT", 1000)
        for key in keys:
            kind = server.ask("TYPE", key)
            if kind != b"none":  # gone meanwhile
                found[key.decode()] = (server.ask(_SIZES[kind], key), server.ask("PTTL", key))
        if cursor == b"0":
            return found


def check_leftovers(server: Server, lanes: int) -> None:
    """Only what says how the queue is stays for ever: it has nothing of commands or members."""
    found = {key: size for key, (size, ttl) in leftovers(server).items() if ttl < 0}
    assert not any(key.endswith((":pushed", ":idle")) for key in found), f"members left: {found}"
    allowed = 3 * lanes + 10
    assert len(found) <= 8, f"keys left: {found}"
    assert all(size <= allowed for size in found.values()), f"elements left: {found}"
