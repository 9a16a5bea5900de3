"""
Make, check and mark a database; never destroy anything.

A database is Buildbot 4.3's (alembic revision 067) with our own ``buildapi_*`` tables beside it.
Buildbot's tables are made only in an empty database; an existing one gets our own tables when it is
first opened for writing, and nothing else.
"""

from __future__ import annotations

import contextlib
import uuid

import sqlalchemy as sa

from buildapi.db.tables import (
    REVISION,
    alembic_version,
    buildapi_log,
    buildapi_meta,
    indexes,
    metadata,
    own,
)
from buildapi.errors import CannotOpen

_MAKING = "making"


def opened(engine: sa.Engine, begin: str, *, writable: bool) -> str | None:
    """
    Check the database, make what is missing, and return the identity of its event log.

    begin: what begins a transaction.  None: opened for reading, and it has no event log.
    """
    with engine.connect() as connection:
        # One transaction of our own: a killed start leaves no half-made database.
        connection.exec_driver_sql(begin)
        try:
            identity = _prepared(connection, writable=writable)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            # It may be the connection that is lost; what happened first is what is to be told.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.exec_driver_sql("ROLLBACK")
            raise
    return identity


def _prepared(connection: sa.Connection, *, writable: bool) -> str | None:
    names = set(sa.inspect(connection).get_table_names())
    if writable and (not names or _is_half_made(connection, names)):
        own.create_all(connection)
        _create(connection)
    else:
        _check(connection, names)
    if writable:
        own.create_all(connection)
    elif buildapi_log.name not in names:
        return None
    return _identity(connection, writable=writable)


def _create(connection: sa.Connection) -> None:
    """
    Make a whole new database.

    Where making a table ends the transaction (MariaDB), a killed start leaves some of them: then a
    mark tells the next one that they are ours, to go on with.
    """
    making = buildapi_meta.c.name == _MAKING
    connection.execute(sa.delete(buildapi_meta).where(making))
    connection.execute(sa.insert(buildapi_meta).values(name=_MAKING, value=REVISION))
    create_tables(connection)
    add_indexes(connection)
    connection.execute(sa.delete(alembic_version))
    connection.execute(sa.insert(alembic_version).values(version_num=REVISION))
    connection.execute(sa.delete(buildapi_meta).where(making))


def create_tables(connection: sa.Connection) -> None:
    """Make Buildbot's tables, and what is missing of those that are there."""
    # Of a copy: a foreign key that is added after its table is marked so that no later table of
    # this process would have it, on SQLite neither, which can't add it.
    copy = sa.MetaData()
    for table in metadata.tables.values():
        table.to_metadata(copy)
    there = set(sa.inspect(connection).get_table_names())
    copy.create_all(connection)
    for table in copy.tables.values():
        if table.name in there:
            _complete(connection, table)


def _complete(connection: sa.Connection, table: sa.Table) -> None:
    """Add what is made after a table, by statements of their own: a killed start made the first."""
    inspector = sa.inspect(connection)
    there = {index["name"] for index in inspector.get_indexes(table.name)}
    for index in table.indexes:
        if index.name not in there:
            index.create(connection)
    keys = {tuple(key["constrained_columns"]) for key in inspector.get_foreign_keys(table.name)}
    for key in table.foreign_key_constraints:
        if tuple(key.column_keys) not in keys:
            connection.execute(sa.schema.AddConstraint(key))


def _is_half_made(connection: sa.Connection, names: set[str]) -> bool:
    if buildapi_meta.name not in names:
        # Own tables come first.
        return names <= own.tables.keys()
    marks = sa.select(buildapi_meta.c.name).where(buildapi_meta.c.name == _MAKING)
    return connection.execute(marks).first() is not None


def _check(connection: sa.Connection, names: set[str]) -> None:
    if alembic_version.name not in names:
        raise CannotOpen(
            "this is no Buildbot database: it has no table alembic_version; "
            "name a Buildbot 4.3 database, or a file that does not exist yet"
        )
    found = connection.execute(sa.select(alembic_version.c.version_num)).scalars().all()
    if found != [REVISION]:
        shown = ", ".join(map(str, found)) or "none"
        raise CannotOpen(
            f"this database has schema revision {shown}; buildapi needs {REVISION} (Buildbot 4.3); "
            "let that Buildbot version upgrade it first"
        )


def _identity(connection: sa.Connection, *, writable: bool) -> str | None:
    found: str | None = connection.execute(sa.select(buildapi_log.c.uuid)).scalar()
    if found is None and writable:
        found = str(uuid.uuid4())
        connection.execute(sa.insert(buildapi_log).values(id=1, uuid=found, seq=0, batch=0))
    return found


def add_indexes(connection: sa.Connection) -> list[str]:
    """Add the helpful indexes that are missing; return their names."""
    added = []
    for index in indexes:
        assert index.table is not None  # noqa: S101  each was declared on one
        there = {found["name"] for found in sa.inspect(connection).get_indexes(index.table.name)}
        if index.name not in there:
            index.create(connection)
            added.append(str(index.name))
    return added
