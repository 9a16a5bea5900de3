"""
Connections to one database: how they are opened, what they are told first, who may write.

Only this module knows what differs between database systems; today there is SQLite.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import StaticPool

from buildapi.errors import CannotOpen, Unavailable

Params = dict[str, Any]
MEMORY = ":memory:"

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


class SQLite:
    """
    One SQLite file, or one database in memory (which has a single connection for everything).

    url: ``sqlite:////path/state.sqlite`` or ``sqlite://``.  Nothing is opened before it is asked
    for.
    """

    def __init__(self, url: sa.URL, *, read_only: bool, busy_timeout_s: float) -> None:
        self.path = url.database or MEMORY
        self.in_memory = self.path == MEMORY
        self.read_only = read_only
        self.dialect: sa.Dialect = sqlite_dialect.dialect(paramstyle="named")
        self._busy_timeout_s = busy_timeout_s
        # Resolved once: the process may change its directory, and one file must not have two locks
        # because it has two names.
        self._file = os.path.realpath(self.path)
        self._shared: sqlite3.Connection | None = None
        self._lock: TextIO | None = None

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

    def lock(self, holder: str) -> None:
        """
        Become the one writing process, or raise CannotOpen.

        A lock on a file beside the database: on the database itself, closing any other descriptor
        of it would drop SQLite's own locks.  The kernel frees it when the process dies.
        """
        if self.in_memory or self._lock is not None:
            return
        try:
            self._lock = Path(f"{self._file}.buildapi-lock").open(  # noqa: SIM115  kept while we write
                "a+", encoding="utf-8", errors="replace"
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock.truncate(0)
            self._lock.write(f"{holder} (process {os.getpid()} on {socket.gethostname()})\n")
            self._lock.flush()
        except BlockingIOError:
            other = self._other_holder()
            self.unlock()
            raise CannotOpen(
                f"{self.path} is being written by {other}; stop that one, or use --read-only"
            ) from None
        except OSError as error:
            self.unlock()
            raise CannotOpen(f"cannot write beside {self.path}: {error.strerror}") from None

    def _other_holder(self) -> str:
        assert self._lock is not None  # noqa: S101  it is open, but not ours
        self._lock.seek(0)
        return self._lock.read(500).strip() or "another process"

    def unlock(self) -> None:
        """Let another process write."""
        lock, self._lock = self._lock, None
        if lock is not None:
            # What a full disk did not take of the holder's name is tried once more, and not needed.
            with contextlib.suppress(OSError):
                lock.close()

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
        read_leniently(connection)
        return connection

    def inspector(self) -> sqlite3.Connection:
        """Open a connection that changes nothing by itself, to look before anything is touched."""
        return self._open(
            self._reading_mode() if self.read_only else "mode=rwc", self._busy_timeout_s
        )

    def reader(self, *, patient: bool, give_up: Callable[[], bool], every: int) -> Reader:
        """
        Open a connection that only reads; an impatient one never waits for a lock.

        give_up: asked after each ``every`` instructions of a query whether to interrupt it; not for
        a database in memory.
        """
        timeout = self._busy_timeout_s if patient else 0
        connection = self._open(self._reading_mode(), timeout, "query_only=ON")
        if not self.in_memory:
            connection.set_progress_handler(give_up, every)
        return Reader(connection, self.dialect)

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

    @staticmethod
    def is_busy(error: BaseException) -> bool:
        """Say whether the statement may work a little later."""
        return _code(error) in _BUSY

    @staticmethod
    def is_lost(error: BaseException) -> bool:
        """Say whether the connection is gone, or can't be made now."""
        if isinstance(error, sqlite3.ProgrammingError):
            return "closed database" in str(error)
        return _code(error) == sqlite3.SQLITE_CANTOPEN

    @staticmethod
    def is_undecodable(error: BaseException) -> bool:
        """Say whether a text in the database is no UTF-8; ``read_leniently`` reads it."""
        # The driver raises this itself, and gives no code.
        return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)

    @staticmethod
    def in_transaction(connection: sqlite3.Connection) -> bool:
        """Say whether a transaction is open: a full disk may have ended it."""
        return connection.in_transaction

    def explained(self, error: BaseException) -> BaseException:
        """
        Return trouble with the database as Unavailable, and other errors as they are.

        A statement that is wrong is not made right by waiting.
        """
        if _code(error) in _TROUBLE or self.is_lost(error):
            return Unavailable(f"the database is not available: {error}; try again later")
        return error


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary result code."""
    if not isinstance(error, sqlite3.Error):
        return None
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def read_leniently(connection: sqlite3.Connection) -> None:
    """
    Give bytes that are no UTF-8 as replacement characters, instead of failing.

    Reading all text so is half as quick: readers begin without.
    """
    connection.text_factory = lambda text: text.decode("utf-8", "replace")


def connector(url: str, *, read_only: bool, busy_timeout_s: float) -> SQLite:
    """Return what opens connections to ``url``; CannotOpen if it names no supported database."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise CannotOpen(
            f"{url!r} is no database URL; one is sqlite:////srv/ci/state.sqlite"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise CannotOpen(f"{parsed.get_backend_name()} databases are not supported; sqlite is")
    return SQLite(parsed, read_only=read_only, busy_timeout_s=busy_timeout_s)


class Compiled:
    """A statement as the driver takes it: its text, and the values that stand in it."""

    __slots__ = ("constants", "sql")

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect) -> None:
        # A raw cursor cannot run SQLAlchemy's placeholder for IN: render it here, once.
        compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        self.sql = str(compiled)
        self.constants = {k: v for k, v in compiled.params.items() if v is not None}

    def bound(self, params: Params) -> Params:
        """Return ``params`` with the statement's own values."""
        return {**self.constants, **params} if self.constants else params


compiled = lru_cache(maxsize=2048)(Compiled)


class Reader:
    """Reads on one connection; used by one thread at a time."""

    def __init__(self, connection: Any, dialect: sa.Dialect) -> None:
        self.connection = connection
        self.dialect = dialect

    def rows(self, statement: sa.ClauseElement, params: Params) -> list[tuple[Any, ...]]:
        """Run a SELECT and return all its rows; for results known to be small."""
        ready = compiled(statement, self.dialect)
        cursor = self.connection.execute(ready.sql, ready.bound(params))
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def first(self, statement: sa.ClauseElement, params: Params) -> tuple[Any, ...] | None:
        """Run a SELECT and return its first row, or None."""
        found = self.rows(statement, params)
        return found[0] if found else None

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Make everything read inside see one state of the database."""
        return _snapshot(self.connection)


@contextlib.contextmanager
def _snapshot(connection: Any) -> Any:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


Read = Callable[[Reader], Any]
