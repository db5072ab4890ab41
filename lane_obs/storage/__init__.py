"""Where durable commands are kept: what a storage is, and the ones that ship."""

from lane_obs.storage.change import (
    AddLetter,
    Change,
    ClearCommands,
    ClearLetters,
    Remove,
    RemoveLetter,
    Save,
    Update,
    updated,
)
from lane_obs.storage.memory import MemoryStorage
from lane_obs.storage.port import AnyStorage, DurableStorage, Storage, StorageHealth
from lane_obs.storage.record import LetterFilter, LetterPage, StoredCommand, StoredDeadLetter
from lane_obs.storage.seven import SevenMethods, adapt
from lane_obs.storage.sqlite.local import Durability, LocalStorage, WaitingCommands

__all__ = [
    "AddLetter",
    "AnyStorage",
    "Change",
    "ClearCommands",
    "ClearLetters",
    "Durability",
    "DurableStorage",
    "LetterFilter",
    "LetterPage",
    "LocalStorage",
    "MemoryStorage",
    "Remove",
    "RemoveLetter",
    "Save",
    "SevenMethods",
    "Storage",
    "StorageHealth",
    "StoredCommand",
    "StoredDeadLetter",
    "Update",
    "WaitingCommands",
    "adapt",
    "updated",
]
