"""What stands between the begin and the commit of a transaction."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from lane_obs.storage.sqlite import statement
from lane_obs.storage.sqlite.row import BEFORE_ALL, COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import apsw

    from lane_obs.storage.sqlite.net import Net
    from lane_obs.storage.sqlite.row import Row

_seq = itemgetter(COLUMNS.index("seq"))
_id: Final = COLUMNS.index("id")
_sums: Final = (itemgetter(COLUMNS.index("fixed_sum")), itemgetter(COLUMNS.index("state_sum")))


def write(connection: apsw.Connection, net: Net, *, replaces: bool) -> tuple[list[str], Row]:
    """Writes changes.

    Args:
        connection: in a transaction.
        net: the changes.
        replaces: whether commands that are saved may be there already. Without it, that is a `ConstraintError`.

    Returns:
        Ids of the dead letters that gave way; the number of transactions, of commands and of letters, and the highest
        `seq` ever stored.
    """
    added = _write_commands(connection, net, replaces=replaces)
    evicted = _write_letters(connection, net)
    counts: list[Any] = connection.execute(statement.COUNT, added).fetchall()
    return evicted, counts[0]


def _write_commands(connection: apsw.Connection, net: Net, *, replaces: bool) -> Row:
    """What the ledger is to be told: how many were added, the sum of their checksums, their highest `seq`."""
    if net.clears_commands:
        connection.execute("DELETE FROM commands")
    saves, updates, removes = net.parts()
    if replaces:
        removes += [(row[_id],) for row in saves]
    # Removes first: a place in the order of submits may pass from one command to another.
    _in_groups(connection, statement.REMOVE, removes)
    _in_groups(connection, statement.SAVE, saves)
    _in_groups(connection, statement.UPDATE, updates)
    total = sum(chain.from_iterable(map(column, saves) for column in _sums))
    return len(saves), total, max(map(_seq, saves), default=BEFORE_ALL)


def _in_groups(connection: apsw.Connection, statements: Mapping[int, str], rows: Sequence[Row]) -> None:
    start, left = 0, len(rows)
    for size, text in statements.items():
        while left >= size:
            values: list[Any] = []
            for row in rows[start : start + size]:
                values += row
            connection.execute(text, values)
            start, left = start + size, left - size


def _write_letters(connection: apsw.Connection, net: Net) -> list[str]:
    run, evicted = connection.execute, []
    if net.clears_letters:
        run("DELETE FROM letters")
    if net.letters:
        connection.executemany(statement.REMOVE_LETTER, [(key,) for key in net.letters])
        connection.executemany(statement.ADD_LETTER, [row for row in net.letters.values() if row is not None])
    if net.before is not None:
        evicted += [row[0] for row in run(statement.EVICT_OLD, (net.before,))]
    if net.limit is not None:
        evicted += [row[0] for row in run(statement.EVICT, (net.limit,))]
    return evicted
