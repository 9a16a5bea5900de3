"""What an operator does to a database that nobody is writing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple, TypeVar
from uuid import uuid4

import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.connect import sentence
from buildapi.db.systems import connector
from buildapi.db.tables import buildapi_consumers, buildapi_events, buildapi_log
from buildapi.errors import CannotOpen
from buildapi.settings import Database

T = TypeVar("T")


# A log that begins anew counts from the next multiple of this: no position of the old one is in it.
GENERATION = 1_000_000_000_000


class NewLog(NamedTuple):
    """A log that has begun anew: its identity, and the position that it begins after."""

    uuid: str
    seq: int


def add_indexes(database: Database) -> list[str]:
    """
    Add the indexes that databases made by buildapi have; return the names of the new ones.

    They make long lists and old builds quick.  Buildbot does not mind them, and an upgrade of its
    schema keeps them.  Nothing else is changed; a second call finds nothing to do.
    Raises CannotOpen: no Buildbot 4.3 database, or one that is being written.
    """
    return _done(database, "add indexes to", "add-indexes", migrate.add_indexes)


def new_log(database: Database) -> NewLog:
    """
    Begin the event log of a restored backup anew; everything else stays.

    Clients may have seen events that came after the backup and are gone now.  The log gets another
    identity, and its positions begin above all that the old one can have had: whoever comes with
    an old position is told so, with or without the old identity.  The events of the old log are
    forgotten.  Named consumers keep their place, and are told of the gap.
    Raises CannotOpen: no database with an event log, or one that is being written.
    """
    return _done(database, "begin a new event log in", "new-log", _begun_anew)


def _begun_anew(connection: sa.Connection) -> NewLog:
    if not sa.inspect(connection).has_table(buildapi_log.name):
        raise CannotOpen("this database has no event log yet; it gets one when it is first served")
    old = connection.execute(sa.select(buildapi_log.c.uuid, buildapi_log.c.seq)).one()
    new = NewLog(str(uuid4()), (old.seq // GENERATION + 1) * GENERATION)
    connection.execute(sa.update(buildapi_log).values(**new._asdict()))
    connection.execute(sa.delete(buildapi_events))
    if sa.inspect(connection).has_table(buildapi_consumers.name):
        connection.execute(
            sa.update(buildapi_consumers)
            .where(buildapi_consumers.c.log == old.uuid)
            .values(log=new.uuid)
        )
    return new


def _done(database: Database, what: str, command: str, work: Callable[[sa.Connection], T]) -> T:
    """Do something to a database in one transaction, as its one writing process."""
    target = connector(database.url, read_only=False, busy_timeout_s=database.busy_timeout_s)
    target.must_exist()
    try:
        target.lock(f"buildapi db {command}")
        with closing(target.inspector()) as opened:
            engine = target.alchemy(opened)
            migrate.opened(engine, target.BEGIN_SNAPSHOT, writable=False)
            with engine.connect() as connection:
                # All or none: what is not committed is forgotten when the connection closes.
                connection.exec_driver_sql(target.BEGIN)
                result = work(connection)
                connection.exec_driver_sql("COMMIT")
            return result
    except (sa.exc.DBAPIError, target.Error) as error:
        cause = error.__cause__ or error
        raise CannotOpen(f"cannot {what} {target.name}: {sentence(cause)}") from None
    finally:
        target.unlock()
