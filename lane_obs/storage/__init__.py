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
from lane_obs.storage.record import LetterFilter, LetterPage, StoredCommand, StoredDeadLetter, WaitingCommands
from lane_obs.storage.rescue import RepairReport, repair
from lane_obs.storage.seven import SevenMethods, adapt
from lane_obs.storage.sqlite.batch import Durability
from lane_obs.storage.sqlite.local import LocalStorage

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
    "RepairReport",
    "Save",
    "SevenMethods",
    "Storage",
    "StorageHealth",
    "StoredCommand",
    "StoredDeadLetter",
    "Update",
    "WaitingCommands",
    "adapt",
    "repair",
    "updated",
]
