"""What a server's error replies mean, and what mends them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Remedy(StrEnum):
    """What to do about an error reply."""

    RELOAD = "reload"
    """The server has forgotten the script: load it again."""
    MOVE = "move"
    """Another node has the key: go there."""
    RECONNECT = "reconnect"
    """This server is not, or no longer, the one to ask: look for it again."""
    WAIT = "wait"
    """It passes: ask again soon."""
    GIVE_UP = "give up"
    """It passes only when somebody does something about the server: ask again for a short time."""
    DENIED = "denied"
    """Somebody has to give us the right."""
    NONE = "none"
    """Asking again does not help."""


_REMEDIES: Final = {
    "NOSCRIPT": Remedy.RELOAD,
    "MOVED": Remedy.MOVE,
    "READONLY": Remedy.RECONNECT,
    "MASTERDOWN": Remedy.RECONNECT,
    "NOAUTH": Remedy.RECONNECT,
    "LOADING": Remedy.WAIT,
    "CLUSTERDOWN": Remedy.WAIT,
    "TRYAGAIN": Remedy.WAIT,
    "ASK": Remedy.WAIT,  # a slot on its way to another node: its keys are together again once it is there
    "BUSY": Remedy.WAIT,
    "OOM": Remedy.GIVE_UP,
    "MISCONF": Remedy.GIVE_UP,
    "NOREPLICAS": Remedy.GIVE_UP,
    "NOPERM": Remedy.DENIED,
    "WRONGPASS": Remedy.DENIED,
}


class Refusal:
    """An error reply, as a value: it travels as replies do.

    Attributes:
        text: what the server says.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def code(self) -> str:
        """Its first word, which says what kind of error it is."""
        return self.text.partition(" ")[0]

    @property
    def remedy(self) -> Remedy:
        """What to do about it."""
        return _REMEDIES.get(self.code, Remedy.NONE)


class Lost:
    """What a question gets whose answer will not come.

    Attributes:
        reason: why, in words.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason
