"""What an operator does to a database that nobody is writing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.connect import connector
from buildapi.errors import CannotOpen
from buildapi.settings import Database


def add_indexes(database: Database) -> list[str]:
    """
    Add the indexes that databases made by buildapi have; return the names of the new ones.

    They make long lists and old builds quick.  Buildbot does not mind them, and an upgrade of its
    schema keeps them.  Nothing else is changed; a second call finds nothing to do.
    Raises CannotOpen: no Buildbot 4.3 database, or one that is being written.
    """
    target = connector(database.url, read_only=False, busy_timeout_s=database.busy_timeout_s)
    if not Path(target.path).is_file():
        raise CannotOpen(f"there is no database {target.path}")
    target.lock("buildapi db add-indexes")
    try:
        with closing(target.inspector()) as connection:
            engine = target.alchemy(connection)
            migrate.opened(engine, writable=False)
            return _added(engine)
    except sa.exc.DBAPIError as error:
        raise CannotOpen(f"cannot add indexes to {target.path}: {error.orig}") from None
    finally:
        target.unlock()


def _added(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        # All or none: what is not committed is forgotten when the connection closes.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        added = migrate.add_indexes(connection)
        connection.exec_driver_sql("COMMIT")
    return added
