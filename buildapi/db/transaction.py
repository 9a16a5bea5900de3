"""One transaction: what an update's body may do to the database, and what it leaves to be said."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import sqlalchemy as sa

from buildapi.db import eventlog
from buildapi.db.connect import Compiled, Connector, Params, Reader, Rows, compiled
from buildapi.db.eventlog import Draft
from buildapi.db.tables import buildapi_events, buildapi_log
from buildapi.mq.event import Event

# One statement per this many rows: each statement gives the interpreter lock away once.
ROWS_PER_INSERT = 64


class Announce(Protocol):
    """How a change of an object becomes an event: the data layer's knowledge."""

    def __call__(  # what an event is made of
        self,
        source: Any,
        reader: Reader,
        ident: int,
        event: str,
        body: dict[str, Any] | None,
        extra: dict[str, Any],
    ) -> Draft:
        """Read the object ``ident`` of the type ``source`` back, and return what tells of it."""


class Tx(Reader):
    """
    What the body of an update works with.

    Bodies have no effects but through it, and may be run again: after a rollback, or when another
    body of the same batch failed.  now: epoch seconds; at: the same with fractions.
    """

    def __init__(
        self,
        connection: Any,
        connector: Connector,
        seq: int,
        at: float,
        memory: dict[Any, Any],
        announce: Announce,
    ) -> None:
        super().__init__(connection, connector)
        self.at = at
        self.now = int(at)
        # What the writer knows of rows it wrote itself; emptied by every rollback.
        self.memory = memory
        self.events: list[Event] = []
        # By table: the ids of the rows that were inserted or changed, or the owners of such rows;
        # None: any row may have been.
        self.touched: dict[str, set[int] | None] = {}
        self._announce = announce
        self._seq = seq
        self._pending: dict[sa.Table, list[tuple[Any, ...]]] = {}
        self._changing: dict[tuple[sa.Table, str], dict[int, Any]] = {}
        self._logged = 0

    @property
    def seq(self) -> int:
        """The position of the newest event, those of this transaction included."""
        return self._seq + len(self.events)

    def insert(self, table: sa.Table, **values: Any) -> int:
        """Insert one row now; return its integer key."""
        statement = _insert(table, tuple(values))
        ident = self.connector.inserted(self.connection, statement, values)
        self._touch(table, None if _names_its_key(table, tuple(values)) else ident)
        return ident

    def insert_later(self, table: sa.Table, row: tuple[Any, ...]) -> None:
        """
        Insert one row (every column, in order) before the commit, together with its like.

        The key too is the caller's: no database makes one for it.
        """
        self._touch(table, row[0] if owner(table) is not None else None)
        self._pending.setdefault(table, []).append(row)

    def change_later(self, table: sa.Table, ident: int, column: str, value: Any) -> None:
        """
        Change one column of the row with this ``id`` before the commit, together with its like.

        value: not null.
        """
        self._touch(table, None if _moves(table, (column,)) else ident)
        self._changing.setdefault((table, column), {})[ident] = value

    def run_all(self, ready: Compiled, params: Params) -> Rows:
        """Run a SELECT; it sees what was to be written later."""
        self.write_waiting()
        return super().run_all(ready, params)

    def change(self, table: sa.Table, ident: int, **values: Any) -> None:
        """Change columns of the row whose primary key is ``ident``."""
        columns = tuple(values)
        statement = _update(table, columns)
        self._touch(table, None if _moves(table, columns) else ident)
        self.write_waiting()
        self.connection.execute(compiled(statement, self.dialect).sql, {**values, "_key": ident})

    def run(
        self, statement: sa.UpdateBase, params: Params | None = None, only: int | None = None
    ) -> int:
        """
        Run an INSERT, UPDATE or DELETE; return the number of rows it met.

        only: the key of the one row that it may change, or the owner of all that it may change,
        insert or delete.
        """
        table: Any = statement.table
        for reached in _reached(statement):
            self._touch(reached, only if reached is table else None)
        self.write_waiting()
        ready: Compiled = compiled(statement, self.dialect)
        count: int = self.connection.execute(ready.sql, ready.bound(params or {})).rowcount
        return count

    def emit(
        self,
        source: Any,
        ident: int,
        event: str,
        body: dict[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """
        Say, in the same transaction, that ``event`` happened to the object ``ident`` of a type.

        The body is the object, with ``extra``; or ``body``, where an event has one of its own.
        """
        self.say(self._announce(source, self, ident, event, body, extra))

    def say(self, draft: Draft) -> None:
        """Append an event to the log."""
        self.events.append(
            Event(
                self._seq + len(self.events) + 1,
                draft.topic,
                self.at,
                draft.keys,
                draft.body,
                draft.builderid,
                draft.projectid,
            )
        )

    def flush(self) -> None:
        """Write all that waited, and the events."""
        self.write_waiting()
        if self._logged < len(self.events):
            self._insert_all(buildapi_events, eventlog.rows(self.events[self._logged :]))
            self._logged = len(self.events)

    def write_waiting(self) -> None:
        """Write what was to be inserted or changed later."""
        if self._pending:
            for table, waiting in self._pending.items():
                self._insert_all(table, waiting)
            self._pending.clear()
        if self._changing:
            for (table, column), values in self._changing.items():
                self._change_all(table, column, values)
            self._changing.clear()

    def count(self, batch: int) -> None:
        """Write the counters of the log: the newest ``seq`` and the number of this batch."""
        ready = compiled(_COUNT, self.dialect)
        self.connection.execute(ready.sql, {"seq": self.seq, "batch": batch, "one": 1})

    def _touch(self, table: sa.Table, ident: int | None) -> None:
        """Take note that this row is changed; None: any may be."""
        idents = self.touched.setdefault(table.name, set())
        if ident is None:
            self.touched[table.name] = None
        elif idents is not None:
            idents.add(ident)

    def guard(self) -> int:
        """Begin a savepoint; return the mark that ``undo`` wants."""
        self.connection.execute("SAVEPOINT body")
        return len(self.events)

    def release(self) -> None:
        """Keep what was done since ``guard``."""
        self.flush()
        self.connection.execute("RELEASE SAVEPOINT body")

    def undo(self, mark: int) -> None:
        """Forget everything since ``guard``."""
        self.connection.execute("ROLLBACK TO SAVEPOINT body")
        self.connection.execute("RELEASE SAVEPOINT body")
        del self.events[mark:]
        self._logged = mark
        self._pending.clear()
        self._changing.clear()
        self.memory.clear()

    def _insert_all(self, table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), ROWS_PER_INSERT):
            some = rows[start : start + ROWS_PER_INSERT]
            values: list[Any] = [value for row in some for value in row]
            self.connection.execute(_insert_many(self.connector, table, len(some)), values)

    def _change_all(self, table: sa.Table, column: str, values: dict[int, Any]) -> None:
        waiting = list(values.items())
        for start in range(0, len(waiting), ROWS_PER_INSERT):
            some = waiting[start : start + ROWS_PER_INSERT]
            bound = [part for pair in some for part in pair] + [ident for ident, _ in some]
            many = _change_many(self.connector, table, column, len(some))
            self.connection.execute(many, bound)


@lru_cache(maxsize=512)
def _moves(table: sa.Table, columns: tuple[str, ...]) -> bool:
    """Say whether a change of these columns may put a row below another parent."""
    return any(table.columns[name].foreign_keys for name in columns)


@lru_cache(maxsize=512)
def _names_its_key(table: sa.Table, columns: tuple[str, ...]) -> bool:
    # Only of a key that the database chose do all drivers tell which it is.
    return any(column.name in columns for column in table.primary_key)


@lru_cache(maxsize=512)
def owner(table: sa.Table) -> sa.Column[Any] | None:
    """Return the column with the row of another table to which a row only belongs, if it does."""
    first = next(iter(table.columns))
    return first if first.foreign_keys else None


def _reached(statement: sa.UpdateBase) -> frozenset[sa.Table]:
    """Return the tables whose rows a statement may change."""
    table: Any = statement.table
    return _below(table) if isinstance(statement, sa.Delete) else frozenset({table})


@lru_cache(maxsize=512)
def _below(table: sa.Table) -> frozenset[sa.Table]:
    """Return a table, and those whose rows go, or lose what they name, with rows of it."""
    found, waiting = {table}, [table]
    while waiting:
        parent = waiting.pop()
        for child in table.metadata.tables.values():
            named = any(key.ondelete and key.column.table is parent for key in child.foreign_keys)
            if named and child not in found:
                found.add(child)
                waiting.append(child)
    return frozenset(found)


@lru_cache(maxsize=512)
def _insert(table: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
    return sa.insert(table).values({name: sa.bindparam(name) for name in columns})


@lru_cache(maxsize=512)
def _update(table: sa.Table, columns: tuple[str, ...]) -> sa.Update:
    (key,) = table.primary_key.columns
    values: dict[str, Any] = {name: sa.bindparam(name) for name in columns}
    return sa.update(table).where(key == sa.bindparam("_key")).values(values)


@lru_cache(maxsize=512)
def _insert_many(connector: Connector, table: sa.Table, rows: int) -> str:
    columns = ", ".join(connector.quoted(column.name) for column in table.columns)
    one = f"({', '.join([connector.PLACEHOLDER] * len(table.columns))})"
    return f"INSERT INTO {table.name} ({columns}) VALUES {', '.join([one] * rows)}"


@lru_cache(maxsize=512)
def _change_many(connector: Connector, table: sa.Table, column: str, rows: int) -> str:
    name, one = connector.quoted(column), connector.PLACEHOLDER
    cases = f" WHEN {one} THEN {one}" * rows
    idents = ", ".join([one] * rows)
    return f"UPDATE {table.name} SET {name} = CASE id{cases} END WHERE id IN ({idents})"


_COUNT = (
    sa.update(buildapi_log)
    .where(buildapi_log.c.id == sa.bindparam("one"))
    .values(seq=sa.bindparam("seq"), batch=sa.bindparam("batch"))
)
