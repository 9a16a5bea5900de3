"""
PostgreSQL, by psycopg.

Connections are in autocommit mode, and transactions begin with our own BEGIN.  JSON is read as the
text that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from buildapi.db.connect import Params, Reader, compiled, sentence
from buildapi.db.pipeline import Pipeline
from buildapi.db.server import Server, WrittenByAnother
from buildapi.errors import BadArgument, CannotOpen, Conflict, Unavailable

# The key of the advisory lock: what "buildapi" is as a number.
LOCK = int.from_bytes(b"buildapi")

# What may work if it is tried a little later: no lock, a deadlock, too many connections, starting.
_BUSY = {"40001", "40P01", "55P03", "53300", "57P03"}
# The server ends the session, or is not there.
_LOST = {"57P01", "57P02", "57P04", "57P05", "25P03", "08000", "08001", "08003", "08004", "08006"}
# The disk, the memory or the server itself, which may also let nobody write.
_TROUBLE_CLASSES = ("53", "58", "XX", "25006")
_FORBIDDEN = "42501"
# What libpq says of a statement that it does not send.
_TOO_MANY = "number of parameters must be between"
_INTERRUPTED = "57014"
# Of another form than the column's, or larger than an index or a row can be.
_WRONG_DATA = ("22", "54")
_NOT_ALLOWED_DATA = "23"

_SIZES = (
    "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
)


# Options of the writing session, of versions that have them. It may do nothing for long, and take
# long; if its machine goes, the server is to notice soon, and give its lock to another.
_LASTING = {
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class _Int64(sa.BigInteger):
    """
    Any integer.

    A value is cast to the type of the column that it is compared with, and what does not fit would
    be an error, where it is merely equal to nothing.
    """

    render_bind_cast = True


class _Dialect(PGDialect_psycopg):
    """SQLAlchemy's, but for what integers are cast to."""

    supports_statement_cache = True
    colspecs = {  # noqa: RUF012  as SQLAlchemy has it
        **PGDialect_psycopg.colspecs,
        sa.Integer: _Int64,
        sa.SmallInteger: _Int64,
        sa.BigInteger: _Int64,
    }


class _Text(Loader):
    """Gives JSON as the text that it is."""

    def load(self, data: Any) -> str:
        """Return the text."""
        return bytes(data).decode()


class PostgreSQL(Server):
    """One database of a PostgreSQL server.  url: ``postgresql://user@host/database``."""

    BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
    BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    Error = psycopg.Error
    STORES_NUL = False
    DRIVER = "postgresql+psycopg"

    def __init__(self, url: sa.URL, *, read_only: bool, busy_timeout_s: float) -> None:
        super().__init__(url, read_only=read_only, busy_timeout_s=busy_timeout_s)
        self.dialect: sa.Dialect = _Dialect()  # type: ignore[no-untyped-call]

    def reader(
        self,
        give_up: Callable[[], bool],  # noqa: ARG002  the server is told by ``interrupt``
        limit_s: float,
        *,
        patient: bool,  # noqa: ARG002  readers wait for no locks
    ) -> Reader:
        """Open a connection that only reads; the server stops a query after ``limit_s``."""
        return Reader(self._connect_to_read(limit_s), self)

    def pipeline(self, reactor: Any, limit_s: float) -> Pipeline | None:
        """Return what runs single statements without a thread."""
        if not Pipeline.is_possible(reactor):
            return None
        return Pipeline(reactor, partial(self._connect_to_read, limit_s))

    def _connect_to_read(self, limit_s: float) -> psycopg.Connection[Any]:
        limit = f"statement_timeout = {_milliseconds(limit_s)}"
        return self._connect("default_transaction_read_only = on", limit)

    def _connect_to_write(self) -> Any:
        connection = self._connect(
            "statement_timeout = 0",
            "idle_in_transaction_session_timeout = 0",
            f"lock_timeout = {_milliseconds(self._busy_timeout_s)}",
        )
        for option, value in _LASTING.items():
            connection.execute(
                "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s",
                (value, option),
            )
        found = connection.execute("SHOW synchronous_commit").fetchone()
        if found == ("off",):
            # What is acknowledged is durable, whatever the server does by default.
            connection.execute("SET synchronous_commit = on")
        return connection

    def _connect(self, *options: str) -> psycopg.Connection[Any]:
        arguments = {"connect_timeout": 10, **self.arguments, "client_encoding": "utf8"}
        connection = psycopg.connect(autocommit=True, **arguments)
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise CannotOpen(f"{self.name} has the encoding {encoding}; buildapi needs UTF8")
        for name in ("json", "jsonb"):
            connection.adapters.register_loader(name, _Text)
        for option in options:
            connection.execute(f"SET {option}".encode())
        return connection

    def _try_lock(self, connection: Any) -> bool:
        found = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        return bool(found[0])

    def streamed(self, connection: Any, sql: str, params: Params) -> Any:
        """Run a SELECT, and fetch from the server what is asked for."""
        cursor = connection.cursor(name="portions")
        try:
            return cursor.execute(sql, params)
        except BaseException:
            cursor.close()
            raise

    def inserted(self, connection: Any, statement: sa.Insert, values: Params) -> int:
        """Insert one row; return its integer key."""
        returning = compiled(_returning(statement), self.dialect)
        cursor = connection.execute(returning.sql, values)
        # A few tables have no key, so nothing is returned.
        return int(cursor.fetchone()[0]) if cursor.description else 0

    def sizes(self, connection: Any) -> dict[str, int]:
        """Return how many bytes each table has, its indexes and long texts included."""
        return dict(connection.execute(_SIZES).fetchall())

    def number_after(self, connection: Any, table: sa.Table) -> None:
        """Set the sequence of a table, if it has one, behind its rows."""
        column = table.autoincrement_column
        if column is None:
            return
        largest = f"(SELECT max({column.name}) FROM {table.name})"
        connection.execute(
            f"SELECT setval(pg_get_serial_sequence(%s, %s), {largest}) WHERE {largest} > 0",
            (table.name, column.name),
        )

    def in_transaction(self, connection: Any) -> bool:
        """Say whether a transaction is open, sound or not."""
        status = connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def is_sound(self, connection: Any) -> bool:
        """Say whether the open transaction can be committed: no statement of it has failed."""
        return bool(connection.info.transaction_status == TransactionStatus.INTRANS)

    def is_busy(self, error: BaseException) -> bool:
        """Say whether the statement may work a little later."""
        return isinstance(error, WrittenByAnother) or _state(error) in _BUSY

    def is_lost(self, error: BaseException) -> bool:
        """Say whether the connection is gone, or can't be made now."""
        if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return False
        if _TOO_MANY in str(error):
            return False
        # Without a state it is the driver that says so: there is no answer, or no connection.
        return _state(error) is None or _state(error) in _LOST

    def is_interrupted(self, error: BaseException) -> bool:
        """Say whether a query was stopped: by us, or because it took too long."""
        return _state(error) == _INTERRUPTED

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether it is the server's trouble."""
        return super().is_trouble(error) or (_state(error) or "").startswith(_TROUBLE_CLASSES)

    def interrupt(self, connection: Any) -> None:
        """Stop the query that runs on ``connection``."""
        connection.cancel_safe(timeout=5)

    def refusal(self, error: BaseException) -> BaseException | None:
        """Return what is wrong with the data as an error of ours."""
        state = _state(error) or ""
        if _TOO_MANY in str(error):
            return BadArgument("these are too many values: the database takes 65535 at once")
        if state.startswith(_WRONG_DATA) or isinstance(error, psycopg.DataError):
            return BadArgument(f"the database cannot store it: {sentence(_first_line(error))}")
        if state.startswith(_NOT_ALLOWED_DATA):
            return Conflict(f"the database refused it: {sentence(_first_line(error))}")
        if state == _FORBIDDEN:
            return Unavailable(f"the database does not allow it: {sentence(_first_line(error))}")
        return None


def _state(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of the server."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def _first_line(error: BaseException) -> Exception:
    # What follows repeats the statement, or the row with its values.
    return Exception(str(error).partition("\n")[0])


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@lru_cache(maxsize=512)
def _returning(statement: sa.Insert) -> sa.ClauseElement:
    """Return the statement that also returns the integer key."""
    table = cast("sa.Table", statement.table)
    return statement.returning(*table.primary_key.columns)
