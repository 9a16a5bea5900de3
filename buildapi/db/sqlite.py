"""
SQLite: a file, or a database in memory.

One file has one writing process, which a ``FileLock`` decides.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import StaticPool

from buildapi.db.connect import Connector, Params, Reader, compiled
from buildapi.db.filelock import FileLock
from buildapi.errors import BadArgument, CannotOpen, Conflict, CorruptValue

MEMORY = ":memory:"
# How much of the file a connection that reads keeps at hand; SQLite's own 2 MB are little for
# lists whose rows lie far from each other.
CACHE_KB = 8 * 1024
# How many instructions of its virtual machine lie between two questions whether to go on: mostly a
# tenth of a millisecond, and a tenth of that where nobody may be kept waiting.  In a thread each
# question waits for the interpreter lock.
STEPS_PER_TICK = 10_000
STEPS_PER_TICK_AT_ONCE = 1_000

# What may work if it is tried a little later.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
# What is no fault of the statement: the disk, the file, memory, or that it was given up.
_TROUBLE = _BUSY | {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
# What it says of a stored value that is of another type than the column's.
_STRANGE = ("malformed JSON", "JSON cannot hold BLOB values", "cannot open value of type")


class SQLite(Connector):
    """
    One SQLite file, or one database in memory (which has a single connection for everything).

    url: ``sqlite:////path/state.sqlite`` or ``sqlite://``.
    """

    BEGIN = "BEGIN IMMEDIATE"
    BEGIN_SNAPSHOT = "BEGIN"
    Error = sqlite3.Error
    EMBEDDED = True
    LARGEST_INTEGER = 2**63 - 1
    CHECKS_LINKS = False
    PLACEHOLDER = "?"

    def __init__(self, url: sa.URL, *, read_only: bool, busy_timeout_s: float) -> None:
        self.path = url.database or MEMORY
        self.name = self.path
        self.in_memory = self.path == MEMORY
        self.read_only = read_only
        self.dialect: sa.Dialect = sqlite_dialect.dialect(paramstyle="named")
        self._busy_timeout_s = busy_timeout_s
        # Resolved once: the process may change its directory, and one file must not have two locks
        # because it has two names.
        self._file = os.path.realpath(self.path)
        self._shared: sqlite3.Connection | None = None
        self._lock = FileLock(self.path, self._file)

    def check(self) -> None:
        """Raise CannotOpen unless there is a file, or a folder to make one in."""
        if self.in_memory:
            return
        path = Path(self.path)
        if path.is_dir():
            raise CannotOpen(f"{path} is a directory; name the database file inside it")
        if not path.parent.is_dir():
            raise CannotOpen(f"the directory {path.parent} does not exist; make it first")
        if self.read_only and not path.exists():
            raise CannotOpen(f"there is no database {path}; a read-only server does not make one")

    def must_exist(self) -> None:
        """Raise CannotOpen if there is no file."""
        if not Path(self.path).is_file():
            raise CannotOpen(f"there is no database {self.path}")

    def lock(self, holder: str) -> None:
        """Become the one writing process, or raise CannotOpen."""
        if not self.in_memory:
            self._lock.take(holder)

    def unlock(self) -> None:
        """Let another process write."""
        self._lock.drop()

    def writer(self) -> sqlite3.Connection:
        """Open the connection that writes: WAL, and every commit on disk before it returns."""
        # The file exists by now. To make an empty one in the place of one that was lost is no help.
        connection = self._open(
            "mode=rw",
            self._busy_timeout_s,
            "journal_mode=WAL",
            "synchronous=FULL",
            # While somebody reads for long the WAL grows; afterwards it need not stay so.
            "journal_size_limit=67108864",
        )
        self.read_leniently(connection)
        return connection

    def inspector(self) -> sqlite3.Connection:
        """Open a connection that changes nothing by itself, to look before anything is touched."""
        mode = self._reading_mode() if self.read_only else "mode=rwc"
        connection = self._open(mode, self._busy_timeout_s)
        try:
            self._lock.take_itself()
        except BaseException:
            connection.close()
            raise
        return connection

    def reader(
        self,
        give_up: Callable[[], bool],
        limit_s: float,  # noqa: ARG002  whoever gives up looks at the clock
        *,
        patient: bool,
    ) -> Reader:
        """
        Open a connection that only reads; an impatient one never waits for a lock.

        A database in memory has one connection, and nobody to ask whether to give up.
        """
        timeout = self._busy_timeout_s if patient else 0
        connection = self._open(
            self._reading_mode(), timeout, "query_only=ON", f"cache_size=-{CACHE_KB}"
        )
        if not self.in_memory:
            steps = STEPS_PER_TICK if patient else STEPS_PER_TICK_AT_ONCE
            connection.set_progress_handler(give_up, steps)
        return Reader(connection, self)

    def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection; the one of a database in memory stays until ``forget``."""
        if connection is not self._shared:
            connection.close()

    def forget(self) -> None:
        """Close the connection of a database in memory, and with it the database."""
        if self._shared is not None:
            self._shared.close()

    def _reading_mode(self) -> str:
        if not self.read_only:
            return "mode=rw"
        # Where SQLite may not make the files beside it, a database with a WAL can't be opened, not
        # even to read. Without a -wal nobody is writing, and it may be taken for immutable.
        frozen = not os.access(Path(self._file).parent, os.W_OK)
        if frozen and not Path(f"{self._file}-wal").exists() and self._is_wal():
            return "mode=ro&immutable=1"
        return "mode=ro"

    def _is_wal(self) -> bool:
        with Path(self._file).open("rb") as file:
            return file.read(20)[18:] == b"\2\2"

    def _open(self, mode: str, timeout: float, *pragmas: str) -> sqlite3.Connection:
        if self.in_memory:
            if self._shared is None:
                self._shared = self._connect(MEMORY, timeout, uri=False)
                # Tests of embedders need not stop their service; Python 3.13 would complain.
                weakref.finalize(self, self._shared.close)
            return self._shared
        connection = self._connect(f"file:{quote(self._file)}?{mode}", timeout, uri=True)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _connect(name: str, timeout: float, *, uri: bool) -> sqlite3.Connection:
        return sqlite3.connect(
            name,
            timeout=timeout,
            uri=uri,
            # The driver's own transactions would commit at the first SAVEPOINT: we say BEGIN.
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )

    def alchemy(self, connection: sqlite3.Connection) -> sa.Engine:
        """Return an engine over ``connection``, for schema work; transactions stay ours."""
        return sa.create_engine(
            "sqlite://",
            creator=lambda: connection,
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
        )

    def streamed(self, connection: sqlite3.Connection, sql: str, params: Params) -> sqlite3.Cursor:
        """Run a SELECT; SQLite steps from row to row anyway."""
        return connection.execute(sql, params)

    def inserted(self, connection: sqlite3.Connection, statement: sa.Insert, values: Params) -> int:
        """Insert one row; return its integer key."""
        row = connection.execute(compiled(statement, self.dialect).sql, values).lastrowid
        assert row is not None  # noqa: S101  it was an INSERT
        return row

    def sizes(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Return how many bytes the file and its write-ahead log have, or the memory."""
        if self.in_memory:
            pages, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "page_size")
            )
            return {"memory": pages * size}
        return {"file": _bytes(self._file), "wal": _bytes(f"{self._file}-wal")}

    def in_transaction(self, connection: sqlite3.Connection) -> bool:
        """Say whether a transaction is open: a full disk may have ended it."""
        return connection.in_transaction

    def is_busy(self, error: BaseException) -> bool:
        """Say whether the statement may work a little later."""
        return _code(error) in _BUSY

    def is_lost(self, error: BaseException) -> bool:
        """Say whether the connection is gone, or can't be made now."""
        if isinstance(error, sqlite3.ProgrammingError):
            return "closed database" in str(error)
        return _code(error) == sqlite3.SQLITE_CANTOPEN

    def is_interrupted(self, error: BaseException) -> bool:
        """Say whether a query was stopped."""
        return _code(error) == sqlite3.SQLITE_INTERRUPT

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether it is the disk, the file, memory, a lock, or that it was given up."""
        return _code(error) in _TROUBLE or self.is_lost(error)

    def is_undecodable(self, error: BaseException) -> bool:
        """Say whether a text in the database is no UTF-8; ``read_leniently`` reads it."""
        # The driver raises this itself, and gives no code.
        return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)

    def read_leniently(self, connection: sqlite3.Connection) -> None:
        """
        Give bytes that are no UTF-8 as replacement characters, instead of failing.

        Reading all text so is half as quick: readers begin without.
        """
        connection.text_factory = lambda text: text.decode("utf-8", "replace")

    def interrupt(self, connection: sqlite3.Connection) -> None:
        """Stop the query that runs on ``connection``."""
        connection.interrupt()

    def refusal(self, error: BaseException) -> BaseException | None:
        """Return what is wrong with the data as an error of ours."""
        if isinstance(error, sqlite3.IntegrityError):
            return Conflict(f"the database refused it: {error}")
        if isinstance(error, (sqlite3.DataError, OverflowError)):
            return BadArgument(f"the database cannot store it: {error}")
        if isinstance(error, sqlite3.OperationalError) and str(error).startswith(_STRANGE):
            return CorruptValue(f"a stored value cannot be shown: {error}")
        return None


def _bytes(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except FileNotFoundError:
        return 0


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary result code."""
    if not isinstance(error, sqlite3.Error):
        return None
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
