"""
Copy a Buildbot database to another database system, as when a master moves from SQLite to a server.

All of Buildbot's tables are copied, with their ids, in one transaction: all or nothing.  Our own
tables are not: the copy is another database, whose event log begins anew under a name of its own.

SQLite does not enforce foreign keys, so rows may refer to what is not there any more.  A target
that enforces them does not get such rows: a link that may be null becomes null, a row whose owner
is missing stays behind.  Both are counted and reported.  (To switch the checks off would need
rights on some systems, and leave a database that can't be restored from a dump.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from buildapi.db import migrate
from buildapi.db.connect import Compiled, Connector, Reader, sentence
from buildapi.db.systems import connector
from buildapi.db.tables import alembic_version, metadata
from buildapi.errors import CannotCopy, CannotOpen
from buildapi.settings import Database

# Rows in memory at a time; the largest, chunks of logs, have some 64 kB each.
BATCH = 200

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass
class Copied:
    """What was done with the rows of one table.  left: links made null, rows left behind."""

    table: str
    rows: int = 0
    unlinked: int = 0
    left_behind: int = 0

    @property
    def sentence(self) -> str:
        """What was done, in words."""
        notes = [f"{self.table}: {_counted(self.rows, 'row')}"]
        if self.unlinked:
            notes.append(f"{_counted(self.unlinked, 'link')} to missing rows made null")
        if self.left_behind:
            notes.append(f"{_counted(self.left_behind, 'row')} left out: owner missing")
        return "; ".join(notes)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class _Table:
    """
    A table and its links.

    owners: those to tables that are copied before.  late: those to itself or to a later table,
    which are set when all rows are there.
    """

    table: sa.Table
    owners: tuple[sa.ForeignKey, ...]
    late: tuple[sa.ForeignKey, ...]
    columns: tuple[sa.Column[Any], ...] = field(default=())


def copy(source_url: str, target_url: str, say: Say) -> list[Copied]:
    """
    Copy a database into an empty one; ``say`` is called with a line for each table.

    The source may be in use: one moment of it is copied.  Raises CannotOpen: the source is no
    Buildbot 4.3 database, or the target is not empty or in use; CannotCopy: a value that the target
    can't take, with its table, column and row.
    """
    patience = Database().busy_timeout_s
    source = connector(source_url, read_only=True, busy_timeout_s=patience)
    target = connector(target_url, read_only=False, busy_timeout_s=patience)
    source.check()
    source.must_exist()
    target.check()
    try:
        with closing(source.inspector()) as reading:
            engine = source.alchemy(reading)
            # Before the target is touched: a file that is not there yet would be made.
            migrate.opened(engine, source.BEGIN_SNAPSHOT, writable=False)
            target.lock("buildapi db copy")
            with closing(target.inspector()) as writing:
                made = target.alchemy(writing)
                _must_be_empty(made, target)
                migrate.opened(made, target.BEGIN, writable=True)
                return _copied(Reader(reading, source), made, target, say)
    except (sa.exc.DBAPIError, source.Error, target.Error) as error:
        raise CannotCopy(f"the copy failed: {sentence(error.__cause__ or error)}") from None
    finally:
        target.unlock()


def _must_be_empty(engine: sa.Engine, target: Connector) -> None:
    with engine.connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
        for table in metadata.sorted_tables:
            if table is alembic_version or table.name not in there:
                continue
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                raise CannotOpen(
                    f"{target.name} is not empty: its table {table.name} has rows; name an empty "
                    "database to copy to"
                )


def _copied(reader: Reader, engine: sa.Engine, target: Connector, say: Say) -> list[Copied]:
    with engine.connect() as connection:
        target.keep_ids(connection.connection.dbapi_connection)
        connection.exec_driver_sql(target.BEGIN)
        try:
            with reader.snapshot():
                found = [_copy_table(reader, connection, target, one) for one in _tables()]
                for one, copied in zip(_tables(), found, strict=True):
                    _link_later(reader, connection, target, one, copied)
                    say(copied.sentence)
            for one in _tables():
                target.number_after(connection.connection.dbapi_connection, one.table)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
    return found


def _tables() -> Iterator[_Table]:
    before: set[str] = set()
    for table in metadata.sorted_tables:
        if table is alembic_version:
            continue
        links = [key for column in table.columns for key in column.foreign_keys]
        owners = tuple(key for key in links if key.column.table.name in before)
        late = tuple(key for key in links if key.column.table.name not in before)
        yield _Table(table, owners, late, tuple(table.columns))
        before.add(table.name)


def _copy_table(
    reader: Reader, connection: sa.Connection, target: Connector, one: _Table
) -> Copied:
    done = Copied(one.table.name)
    late = {key.parent.name for key in one.late} if target.CHECKS_LINKS else set()
    for rows in _batches(reader, one.table):
        for row in rows:
            _check(row, one, target)
        kept = _owned(connection, rows, one, done) if target.CHECKS_LINKS else rows
        if kept:
            _insert(connection, one.table, [row | dict.fromkeys(late) for row in kept])
        done.rows += len(kept)
    return done


def _batches(reader: Reader, table: sa.Table) -> Iterator[list[Row]]:
    names = [column.name for column in table.columns]
    # Whoever is referred to was there before, mostly; and equal copies come in equal order.
    query = sa.select(table).order_by(*table.primary_key.columns)
    for rows in reader.portions(Compiled(query, reader.dialect), {}, BATCH):
        yield [dict(zip(names, row, strict=True)) for row in rows]


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    try:
        connection.execute(sa.insert(table), rows)
    except sa.exc.DBAPIError as error:
        raise CannotCopy(
            f"{table.name}: the target refuses a row from {_named(table, rows[0])} to "
            f"{_named(table, rows[-1])}: {sentence(error.orig or error)}"
        ) from None


def _owned(connection: sa.Connection, rows: list[Row], one: _Table, done: Copied) -> list[Row]:
    """Return the rows whose owners are in the target, without links to what is not there."""
    for key in one.owners:
        name, there = key.parent.name, _there(connection, key, rows)
        lost = [row for row in rows if row[name] is not None and row[name] not in there]
        if not lost:
            continue
        if key.parent.nullable:
            for row in lost:
                row[name] = None
            done.unlinked += len(lost)
        else:
            rows = [row for row in rows if row[name] in there]
            done.left_behind += len(lost)
    return rows


def _there(connection: sa.Connection, key: sa.ForeignKey, rows: Sequence[Row]) -> set[Any]:
    wanted = {row[key.parent.name] for row in rows} - {None}
    found = sa.select(key.column).where(key.column.in_(wanted))
    return set(connection.execute(found).scalars()) if wanted else set()


def _link_later(
    reader: Reader, connection: sa.Connection, target: Connector, one: _Table, done: Copied
) -> None:
    """Set the links to rows that came later."""
    if not one.late or not target.CHECKS_LINKS:
        return
    (ident,) = one.table.primary_key.columns
    for key in one.late:
        name = key.parent.name
        link = sa.update(one.table).where(ident == sa.bindparam("ident_"))
        link = link.values({name: sa.bindparam("link_")})
        for rows in _batches(reader, one.table):
            there = _there(connection, key, rows)
            linked = [row for row in rows if row[name] is not None]
            given = [
                {"ident_": row[ident.name], "link_": row[name]}
                for row in linked
                if row[name] in there
            ]
            if given:
                connection.execute(link, given)
            done.unlinked += len(linked) - len(given)


def _check(row: Row, one: _Table, target: Connector) -> None:
    """Raise CannotCopy if the target can't have a value."""
    for column in one.columns:
        value = row[column.name]
        if value is not None and (fault := _fault(value, column, target)):
            raise CannotCopy(f"{one.table.name}.{column.name} of {_named(one.table, row)} {fault}")


def _fault(value: Any, column: sa.Column[Any], target: Connector) -> str | None:
    """Say what is wrong with a value: SQLite keeps any value in any column."""
    if not target.CHECKS_LINKS:
        return None
    if isinstance(column.type, sa.Integer):
        return _fault_of_integer(value, 15 if isinstance(column.type, sa.SmallInteger) else 31)
    if isinstance(column.type, sa.String):
        return _fault_of_text(value, column.type.length, target)
    return None


def _fault_of_integer(value: Any, bits: int) -> str | None:
    if not isinstance(value, int):
        return "is no whole number"
    return None if -(2**bits) <= value < 2**bits else f"does not fit in {bits + 1} bits"


def _fault_of_text(value: Any, longest: int | None, target: Connector) -> str | None:
    if not isinstance(value, str):
        return "is no text"
    if "\0" in value and not target.STORES_NUL:
        return "has the character NUL, which the target can't store"
    if longest is not None and len(value) > longest:
        return f"has {len(value)} characters; the target has room for {longest}"
    return None


def _named(table: sa.Table, row: Row) -> str:
    """Return what a row is found by: its id, or else that of what it belongs to."""
    column = next(iter(table.primary_key.columns or table.columns))
    return f"{column.name} {row[column.name]}"
