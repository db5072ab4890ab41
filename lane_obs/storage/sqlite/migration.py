"""Brings a file of an older schema to the present one, in one transaction: wholly or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.errors import StorageForeign, StorageTooNew
from lane_obs.storage.sqlite.file import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

MIGRATIONS: Final[dict[int, Callable[[apsw.Connection], Any]]] = {}
"""By the schema version it starts from, the step to the next. The last leaves the tables as `schema.sql` has them."""


def migrate(connection: apsw.Connection, path: object) -> bool:
    """Brings the schema up to date.

    Returns:
        Whether there was anything to do.

    Raises:
        StorageTooNew: the file is of a version that is not known yet.
        StorageForeign: the file is of a version that never was.
    """
    version: int = connection.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise StorageTooNew(path, f"it has schema version {version}; this release knows versions to {SCHEMA_VERSION}")
    steps = [MIGRATIONS.get(number) for number in range(version, SCHEMA_VERSION)]
    if not all(steps):
        raise StorageForeign(path, f"it has schema version {version}, which no release of this library wrote")
    if not steps:
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            assert step is not None
            step(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return True
