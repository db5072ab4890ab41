"""The keys of a queue: a constant, small set, all in one slot."""

from __future__ import annotations

from typing import Final

from lane_obs.errors import ConfigError

HELD: Final = "held"
"""What one member holds: the only name that has a key for each member."""

_MOST: Final = 200


class Keys:
    """The names of a queue's keys and channels.

    Every key is `{lane_obs:QUEUE}:NAME`, so that all have one hash tag, and the code of a member after it for what
    that member holds. A channel is the tag and a member's code.

    Args:
        queue: the queue's name: 1 to 200 printable characters, no braces.

    Raises:
        ConfigError: another name.
    """

    __slots__ = ("_known", "_prefix")

    def __init__(self, queue: str) -> None:
        if (
            not isinstance(queue, str)
            or not 0 < len(queue) <= _MOST
            or not queue.isprintable()
            or set("{}") & set(queue)
        ):
            raise ConfigError("queue", queue, f"give 1 to {_MOST} printable characters, no braces")
        self._prefix = f"{{lane_obs:{queue}}}:"
        self._known: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {}
        """By names: the member asked for last, and its keys."""

    def of(self, names: tuple[str, ...], member: str) -> tuple[str, ...]:
        """The keys of these names, for a script that a member runs.

        Args:
            names: what the script needs.
            member: whose `held` is meant.
        """
        known, keys = self._known.get(names, ("", ()))
        if known != member:
            keys = tuple(f"{self._prefix}{name}:{member}" if name == HELD else self._prefix + name for name in names)
            self._known[names] = member, keys
        return keys

    def channel(self, member: str) -> str:
        """Where a member is told what happens."""
        return self._prefix + member
