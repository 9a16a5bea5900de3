"""
MariaDB, by PyMySQL.

Whatever the collation of a database, texts are compared by code point: every text that is bound to
a statement says so.  In databases whose own collation is ``utf8mb4_nopad_bin`` that costs nothing;
in others the indexes on texts are of no use, save those on hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Any

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.cursors import Cursor, SSCursor
from sqlalchemy.dialects.mysql.mysqldb import MySQLCompiler_mysqldb

from buildapi.db.connect import Params, Reader, compiled, sentence
from buildapi.db.server import Server, WrittenByAnother
from buildapi.db.tables import HASH_CHARACTERS
from buildapi.errors import BadArgument, CannotOpen, Conflict, Unavailable

COLLATION = "utf8mb4_nopad_bin"
_LONGEST_WAIT_S = 31_536_000
_WITHOUT_TRANSACTIONS = """
SELECT table_name, engine FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'
ORDER BY table_name LIMIT 1
"""
# The first version whose JSON functions make what we need.
OLDEST = (10, 6)

# A lock that another holds, a deadlock, too many connections.
_BUSY = {1205, 1213, 1020, 1040, 1203}
# There is no server, or it has ended the session.
_LOST = {0, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2002, 2003, 2006, 2013, 2055}
# The disk or the memory: what the server could not do with its files, and a table that broke.
_TROUBLE = {1004, 1016, 1021, 1023, 1024, 1026, 1030, 1034, 1037, 1041, 1114, 1194, 1195, 1206}
# Below these numbers are those of the server's own library for files and memory.
_FIRST_OF_SQL = 1000
# Nobody may write to the server, or in this session.
_TROUBLE |= {1290, 1792, 1836}
_INTERRUPTED = {1317, 1969, 3024}
_FORBIDDEN = {1044, 1142, 1143, 1227}
_TOO_LONG = 1153

_SIZES = (
    "SELECT table_name, data_length + index_length FROM information_schema.tables"
    " WHERE table_schema = DATABASE()"
)


class _Compiler(MySQLCompiler_mysqldb):
    """SQLAlchemy's, but that texts are compared by code point."""

    def visit_bindparam(self, bindparam: Any, *args: Any, **kw: Any) -> str:
        """Render a value; a text that is no hash with the collation that it is compared by."""
        text: str = super().visit_bindparam(bindparam, *args, **kw)  # type: ignore[no-untyped-call]
        kind = bindparam.type
        if isinstance(kind, sa.String) and kind.length != HASH_CHARACTERS:
            return f"{text} COLLATE {COLLATION}"
        return text


# SQLAlchemy makes the class when it is asked for.
_Theirs: Any = sa.make_url("mariadb+pymysql://").get_dialect()


class _Dialect(_Theirs):  # type: ignore[misc]
    """SQLAlchemy's, with our compiler."""

    supports_statement_cache = True
    statement_compiler = _Compiler


class _Cursor(Cursor):
    """The driver's, whose rows are a list, also if there are none."""

    def fetchall(self) -> Any:
        """Return all rows."""
        return list(super().fetchall())


class _Connection(pymysql.connections.Connection):
    """The driver's, with the short way to run a statement that others have."""

    # Of the last answer.
    server_status: int
    # What the server takes; set when that is known.
    longest = 0
    # How long the driver waits for an answer; None: for ever.
    _read_timeout: float | None

    def connect(self, sock: Any = None) -> None:
        """Connect; for the greeting we wait no longer than for the connection."""
        # The driver would wait for ever for a server that listens and says nothing.
        kept, self._read_timeout = self._read_timeout, self._read_timeout or self.connect_timeout
        try:
            super().connect(sock)
        finally:
            self._read_timeout = kept

    def execute(self, sql: str, params: Any = None) -> Any:
        """Run a statement; return its cursor."""
        cursor = self.cursor(_Cursor)
        cursor.execute(sql, params)
        return cursor

    def query(self, sql: str | bytes, unbuffered: bool = False) -> int:
        """Send a statement, and learn what is left of the transaction if it fails."""
        data = sql.encode(self.encoding) if isinstance(sql, str) else sql
        if 0 < self.longest <= len(data):
            # The server would hang up, and all who wait for the same commit would lose theirs.
            raise pymysql.DataError(
                _TOO_LONG, f"{len(data)} bytes are more than max_allowed_packet of the server"
            )
        try:
            return int(super().query(data, unbuffered))
        except pymysql.Error:
            # An error may have ended the transaction (a deadlock does), and does not say so.
            if self.open and self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                super().query(b"DO 0")
            raise


class MariaDB(Server):
    """One database of a MariaDB server.  url: ``mariadb://user@host/database``."""

    BEGIN = "START TRANSACTION"
    BEGIN_SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    Error = pymysql.Error
    FOLDS = True
    DRIVER = "mariadb+pymysql"

    def __init__(self, url: sa.URL, *, read_only: bool, busy_timeout_s: float) -> None:
        super().__init__(url, read_only=read_only, busy_timeout_s=busy_timeout_s)
        self.dialect = _Dialect(paramstyle="pyformat")
        self.dialect.server_version_info = OLDEST

    def reader(
        self,
        give_up: Callable[[], bool],  # noqa: ARG002  the server is told by ``interrupt``
        limit_s: float,
        *,
        patient: bool,  # noqa: ARG002  readers wait for no locks
    ) -> Reader:
        """Open a connection that only reads; the server stops a query after ``limit_s``."""
        connection = self._connect(
            f"max_statement_time = {limit_s:.3f}", isolation="REPEATABLE READ, READ ONLY"
        )
        return Reader(connection, self)

    def lock(self, holder: str) -> None:
        """Become the one writing process, or raise CannotOpen; transactions must be possible."""
        super().lock(holder)
        found = self._locked.execute(_WITHOUT_TRANSACTIONS).fetchone()
        if found is not None:
            self.unlock()
            raise CannotOpen(
                f"{self.name} has the table {found[0]}, whose engine {found[1]} has no"
                " transactions; let ALTER TABLE make it InnoDB"
            )

    def _connect_to_write(self) -> Any:
        return self._connect(
            "max_statement_time = 0",
            "idle_transaction_timeout = 0",
            # The lock of the one writer must not go while there is nothing to write.
            f"wait_timeout = {_LONGEST_WAIT_S}",
            f"innodb_lock_wait_timeout = {max(1, round(self._busy_timeout_s))}",
            # What was committed a moment ago must be seen, by whomever.
            isolation="READ COMMITTED",
        )

    def _connect(self, *options: str, isolation: str = "REPEATABLE READ") -> _Connection:
        arguments = dict(self.arguments)
        flags = arguments.pop("client_flag", 0) | CLIENT.FOUND_ROWS
        arguments |= {"charset": "utf8mb4", "autocommit": True, "client_flag": flags}
        try:
            connection = _Connection(**arguments)
        except TypeError as error:
            raise CannotOpen(f"the URL of {self.name} has a wrong option: {error}") from None
        try:
            self._set_up(connection, options, isolation)
        except BaseException:
            self.close(connection)
            raise
        return connection

    def _set_up(self, connection: _Connection, options: tuple[str, ...], isolation: str) -> None:
        self._check_version(connection)
        session = (
            # Nothing is cut or rounded to fit: it is refused.
            "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            "group_concat_max_len = 4294967295",
            "default_storage_engine = InnoDB",
            # By default it waits a day for a table that another session uses.
            f"lock_wait_timeout = {max(1, round(self._busy_timeout_s))}",
            f"collation_connection = {COLLATION}",
            *options,
        )
        connection.execute(f"SET SESSION {', '.join(session)}")
        # As variables, these have other names in later versions.
        connection.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
        (connection.longest,) = connection.execute("SELECT @@max_allowed_packet").fetchone()

    def _check_version(self, connection: _Connection) -> None:
        said: str = connection.get_server_info()  # type: ignore[no-untyped-call]
        version = said.rpartition("5.5.5-")[2]
        numbers = tuple(int(n) for n in version.partition("-")[0].split(".")[:2])
        if "MariaDB" not in said or numbers < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise CannotOpen(
                f"{self.name} is served by {said}; MariaDB {wanted} or later is needed"
            )

    def _try_lock(self, connection: Any) -> bool:
        # Of the whole server, at most 64 characters, and no matter whether they are capitals.
        name = sha1(str(self.url.database).encode(), usedforsecurity=False).hexdigest()
        found = connection.execute("SELECT GET_LOCK(%s, 0)", (f"buildapi.{name}",)).fetchone()
        return bool(found[0])

    def streamed(self, connection: Any, sql: str, params: Params) -> Any:
        """Run a SELECT, and read from the server what is asked for."""
        cursor = connection.cursor(SSCursor)
        try:
            cursor.execute(sql, params)
        except BaseException:
            cursor.close()
            raise
        return cursor

    def inserted(self, connection: Any, statement: sa.Insert, values: Params) -> int:
        """Insert one row; return its integer key."""
        row: int = connection.execute(compiled(statement, self.dialect).sql, values).lastrowid
        return row

    def sizes(self, connection: Any) -> dict[str, int]:
        """Return how many bytes each table has about, its indexes included."""
        found = connection.execute(_SIZES).fetchall()
        return {name: int(size or 0) for name, size in found}

    def keep_ids(self, connection: Any) -> None:
        """Keep the id 0, too, which would mean the next one."""
        connection.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')")

    def in_transaction(self, connection: Any) -> bool:
        """Say whether a transaction is open, as far as the last answer told."""
        status = connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        return bool(connection.open and status)

    def is_busy(self, error: BaseException) -> bool:
        """Say whether the statement may work a little later."""
        return isinstance(error, WrittenByAnother) or _code(error) in _BUSY

    def is_lost(self, error: BaseException) -> bool:
        """Say whether the connection is gone, or can't be made now."""
        wanted = (pymysql.OperationalError, pymysql.InterfaceError, pymysql.InternalError)
        return isinstance(error, wanted) and _code(error) in _LOST

    def is_interrupted(self, error: BaseException) -> bool:
        """Say whether a query was stopped: by us, or because it took too long."""
        return _code(error) in _INTERRUPTED

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether it is the server's trouble."""
        code = _code(error) or _FIRST_OF_SQL
        return super().is_trouble(error) or code < _FIRST_OF_SQL or code in _TROUBLE

    def interrupt(self, connection: Any) -> None:
        """Stop the query that runs on ``connection``, by another connection."""
        other = self._connect()
        try:
            other.execute(f"KILL QUERY {connection.thread_id()}")
        finally:
            self.close(other)

    def refusal(self, error: BaseException) -> BaseException | None:
        """Return what is wrong with the data as an error of ours."""
        if isinstance(error, pymysql.IntegrityError):
            return Conflict(f"the database refused it: {sentence(error)}")
        if isinstance(error, pymysql.DataError):
            return BadArgument(f"the database cannot store it: {sentence(error)}")
        if _code(error) in _FORBIDDEN:
            return Unavailable(f"the database does not allow it: {sentence(error)}")
        return None


def _code(error: BaseException) -> int | None:
    """Return the number of an error of the server or of the driver."""
    if not isinstance(error, pymysql.Error) or not error.args:
        return 0 if isinstance(error, pymysql.InterfaceError) else None
    code = error.args[0]
    return code if isinstance(code, int) else None
