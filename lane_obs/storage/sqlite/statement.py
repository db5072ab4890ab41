"""What is said to SQLite."""

from __future__ import annotations

from typing import Final

from lane_obs.storage.sqlite.row import COLUMNS, LETTER, STATE

SIZES: Final = (64, 8, 1)
"""How many rows one statement may have, most first: a step of SQLite costs a change of the interpreter's owner."""


def _rows(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


SAVE: Final = {
    rows: f"INSERT INTO commands ({', '.join(COLUMNS)}) VALUES {_rows(len(COLUMNS), rows)}" for rows in SIZES
}
"""By how many rows it has, the statement that adds commands; the ledger is told of them by `COUNT`."""
UPDATE: Final = {
    rows: f"UPDATE commands SET {', '.join(f'{name} = given.column{n}' for n, name in enumerate(STATE, 1))}"
    f" FROM (VALUES {_rows(len(STATE) + 1, rows)}) AS given WHERE id = given.column{len(STATE) + 1}"
    for rows in SIZES
}
"""Likewise for the state of commands."""
REMOVE: Final = {rows: f"DELETE FROM commands WHERE id IN ({', '.join('?' * rows)})" for rows in SIZES}
"""Likewise for the removal of commands."""
REMOVE_LETTER: Final = "DELETE FROM letters WHERE id = ?"
ADD_LETTER: Final = f"INSERT INTO letters ({', '.join(LETTER)}) VALUES ({', '.join('?' * len(LETTER))})"
EVICT_OLD: Final = "DELETE FROM letters WHERE failed_at < ? RETURNING id"
EVICT: Final = """
DELETE FROM letters WHERE place IN (
  SELECT place FROM letters ORDER BY place LIMIT max(0, (SELECT letters FROM ledger) - ?)
) RETURNING id
"""
COUNT: Final = """
UPDATE ledger SET commits = commits + 1, commands = commands + ?, total = total + ?, last_seq = max(last_seq, ?)
WHERE one = 1 RETURNING commits, commands, letters, last_seq
"""
"""At the end of each transaction, with what it added: number of commands, sum of their checksums, highest `seq`."""
PAGE: Final = f"SELECT {', '.join(COLUMNS)} FROM commands WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
TOP: Final = "SELECT ifnull(max(seq), 0) FROM commands"
LETTERS: Final = f"SELECT {', '.join(LETTER)}, place FROM letters WHERE place > ? {{}} ORDER BY place LIMIT ?"
FIND_LETTER: Final = f"SELECT {', '.join(LETTER)} FROM letters WHERE id = ?"
COMMAND: Final = "SELECT 1 FROM commands WHERE id = ?"
WAITING: Final = """
SELECT lane, command_type, state, count(*), min(submitted_at), min(not_before) FROM commands
GROUP BY lane, command_type, state ORDER BY lane, command_type, state
"""
FILTERS: Final = {
    "lane": "lane = ?",
    "command_type": "command_type = ?",
    "since": "failed_at >= ?",
    "until": "failed_at < ?",
}
