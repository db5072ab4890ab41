"""What is said to SQLite."""

from __future__ import annotations

from typing import Final

from lane_obs.storage.sqlite.row import FIXED, LETTER, STATE

COLUMNS: Final = (*FIXED, *STATE)
SAVE: Final = (
    f"INSERT INTO commands ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS if name != 'id')}"
)
UPDATE: Final = f"UPDATE commands SET {', '.join(f'{name} = ?' for name in STATE)} WHERE id = ?"
REMOVE: Final = "DELETE FROM commands WHERE id = ?"
REMOVE_LETTER: Final = "DELETE FROM letters WHERE id = ?"
ADD_LETTER: Final = f"INSERT INTO letters ({', '.join(LETTER)}) VALUES ({', '.join('?' * len(LETTER))})"
EVICT_OLD: Final = "DELETE FROM letters WHERE failed_at < ? RETURNING id"
EVICT: Final = """
DELETE FROM letters WHERE place IN (
  SELECT place FROM letters ORDER BY place LIMIT max(0, (SELECT letters FROM ledger) - ?)
) RETURNING id
"""
COUNT: Final = "UPDATE ledger SET commits = commits + 1 RETURNING commits, commands, letters, last_seq"
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
