"""What an operator does to a database that nobody is writing."""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.connect import sentence
from buildapi.db.systems import connector
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
    target.must_exist()
    try:
        target.lock("buildapi db add-indexes")
        with closing(target.inspector()) as connection:
            engine = target.alchemy(connection)
            migrate.opened(engine, target.BEGIN_SNAPSHOT, writable=False)
            return _added(engine, target.BEGIN)
    except (sa.exc.DBAPIError, target.Error) as error:
        cause = error.__cause__ or error
        raise CannotOpen(f"cannot add indexes to {target.name}: {sentence(cause)}") from None
    finally:
        target.unlock()


def _added(engine: sa.Engine, begin: str) -> list[str]:
    with engine.connect() as connection:
        # All or none: what is not committed is forgotten when the connection closes.
        connection.exec_driver_sql(begin)
        added = migrate.add_indexes(connection)
        connection.exec_driver_sql("COMMIT")
    return added
