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
        name = f"{self.path}.buildapi-lock"
        try:
            handle = Path(name).open("a+", encoding="utf-8")  # noqa: SIM115  kept open while we write
        except OSError as error:
            raise CannotOpen(f"cannot write beside {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            other = handle.read(500).strip() or "another process"
            handle.close()
            raise CannotOpen(
                f"{self.path} is being written by {other}; stop that one, or use --read-only"
            ) from None
        handle.truncate(0)
        handle.write(f"{holder} (process {os.getpid()} on {socket.gethostname()})\n")
        handle.flush()
        self._lock = handle

    def unlock(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def writer(self) -> sqlite3.Connection:
        """Open the connection that writes: WAL, and every commit on disk before it returns."""
        connection = self._open("mode=rwc", self._busy_timeout_s)
        if not self.in_memory:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        return connection

    def inspector(self) -> sqlite3.Connection:
        """Open a connection that changes nothing by itself, to look before anything is touched."""
        return self._open(
            self._reading_mode() if self.read_only else "mode=rwc", self._busy_timeout_s
        )

    def reader(self, *, patient: bool) -> sqlite3.Connection:
        """Open a connection that only reads; an impatient one never waits for a lock."""
        connection = self._open(self._reading_mode(), self._busy_timeout_s if patient else 0)
        if not self.in_memory:
            connection.execute("PRAGMA query_only=ON")
        return connection

    def _reading_mode(self) -> str:
        if not self.read_only:
            return "mode=rw"
        frozen = not os.access(Path(self.path).parent, os.W_OK)
        # Without permission to make -shm a read-only open fails; immutable is right if no -wal is.
        if frozen and not Path(f"{self.path}-wal").exists():
            return "mode=ro&immutable=1"
        return "mode=ro"

    def _open(self, mode: str, timeout: float) -> sqlite3.Connection:
        if self.in_memory:
            if self._shared is None:
                self._shared = self._connect(MEMORY, timeout, uri=False)
            return self._shared
        return self._connect(f"file:{quote(os.path.abspath(self.path))}?{mode}", timeout, uri=True)  # noqa: PTH100

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
    def is_busy(error: Exception) -> bool:
        """Say whether the statement may work a little later."""
        return isinstance(error, sqlite3.OperationalError) and (
            "locked" in str(error) or "busy" in str(error)
        )

    @staticmethod
    def is_lost(error: Exception) -> bool:
        """Say whether the connection is gone."""
        return isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error)

    @staticmethod
    def in_transaction(connection: sqlite3.Connection) -> bool:
        """Say whether a transaction is open: a full disk may have ended it."""
        return connection.in_transaction

    def explained(self, error: Exception) -> Exception:
        """Return what the driver raised as an error for people; other errors as they are."""
        if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.IntegrityError):
            return error
        return Unavailable(f"the database {self.path} did not take it: {error}; try again later")


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
