"""
What database servers have in common, whichever it is.

The one writing process holds a lock in the session of its writing connection.  If that connection
is lost, the lock goes with it; a new connection must get the lock before it may write, and gets it
only when the server has done with the old session, and what that had begun is decided.  A row of
``buildapi_meta`` only names who writes, for others who would.
"""

from __future__ import annotations

import contextlib
import os
import socket
from abc import abstractmethod
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from buildapi.db.connect import Connector
from buildapi.db.tables import buildapi_meta
from buildapi.errors import CannotOpen, Unavailable

# Arguments of Buildbot's own in the URL of its configuration, which no driver knows.
_OF_BUILDBOT = ("max_idle", "storage_engine", "use_unicode")
_WRITER = "writer"
# A server gives a lock back when it notices that the session has ended, which is a moment after.
RELEASED_WITHIN_S = 1.0


class WrittenByAnother(Unavailable):
    """Another session holds the lock of the one writer; it may be our own that was lost."""


class Server(Connector):
    """A database on a server.  url: without arguments that only Buildbot knows."""

    # The name of the dialect and driver, as in a URL.
    DRIVER: ClassVar[str]

    def __init__(self, url: sa.URL, *, read_only: bool, busy_timeout_s: float) -> None:
        self.url = url.set(drivername=self.DRIVER).difference_update_query(_OF_BUILDBOT)
        self.name = self.url.set(drivername=url.get_backend_name(), query={}).render_as_string()
        self.read_only = read_only
        self._busy_timeout_s = busy_timeout_s
        # The writing connection, from when it has the lock until it is asked for.
        self._locked: Any = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the driver's ``connect`` wants to be called with."""
        _, arguments = self.dialect.create_connect_args(self.url)
        return arguments

    def check(self) -> None:
        """Raise CannotOpen unless the URL names a database."""
        if not self.url.database:
            raise CannotOpen(f"{self.name} names no database; add its name after the last slash")

    def must_exist(self) -> None:
        """Raise CannotOpen unless the URL names a database: a server makes none by itself."""
        self.check()

    def lock(self, holder: str) -> None:  # noqa: ARG002  ``sign`` writes it down
        """Become the one writing process, or raise CannotOpen."""
        if self._locked is not None:
            return
        connection = self._connect_to_write()
        try:
            until = monotonic() + RELEASED_WITHIN_S
            while not self._try_lock(connection):
                if monotonic() > until:
                    other = self._other_holder(connection)
                    raise CannotOpen(
                        f"{self.name} is being written by {other}; stop that one, or serve with"
                        " --read-only"
                    )
                sleep(0.02)
            self._locked, connection = connection, None
        finally:
            if connection is not None:
                self.close(connection)

    def sign(self, holder: str) -> None:
        """Write down who writes, for others who would."""
        connection = self._locked
        value = f"{holder} (process {os.getpid()} on {socket.gethostname()})"
        table = buildapi_meta.name
        connection.execute(f"DELETE FROM {table} WHERE name = %s", (_WRITER,))
        connection.execute(f"INSERT INTO {table} (name, value) VALUES (%s, %s)", (_WRITER, value))

    def _other_holder(self, connection: Any) -> str:
        with contextlib.suppress(self.Error):
            found = connection.execute(
                f"SELECT value FROM {buildapi_meta.name} WHERE name = %s", (_WRITER,)
            ).fetchone()
            if found is not None:
                return str(found[0])
        return "another process"

    def unlock(self) -> None:
        """Let another process write: the lock goes with its connection."""
        connection, self._locked = self._locked, None
        if connection is not None:
            self.close(connection)

    def writer(self) -> Any:
        """Open the connection that writes, and lock; WrittenByAnother if another has the lock."""
        connection, self._locked = self._locked, None
        return connection if connection is not None else self._locking_connection()

    def _locking_connection(self) -> Any:
        connection, locked = self._connect_to_write(), False
        try:
            locked = self._try_lock(connection)
        finally:
            if not locked:
                self.close(connection)
        if not locked:
            raise WrittenByAnother(f"{self.name} is being written by another session")
        return connection

    def inspector(self) -> Any:
        """Open a connection that changes nothing by itself."""
        return self._connect()

    @abstractmethod
    def _connect(self) -> Any:
        """Open a connection, with what the session of every one is told first."""

    @abstractmethod
    def _connect_to_write(self) -> Any:
        """Open a connection whose commits are durable."""

    @abstractmethod
    def _try_lock(self, connection: Any) -> bool:
        """Take the lock of the one writer for the session, if nobody has it; say whether we do."""

    def close(self, connection: Any) -> None:
        """Close a connection, be it broken or not."""
        with contextlib.suppress(self.Error):
            connection.close()

    def alchemy(self, connection: Any) -> sa.Engine:
        """Return an engine over ``connection``, for schema work; transactions stay ours."""
        return sa.create_engine(
            sa.URL.create(self.DRIVER),
            creator=lambda: connection,
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
        )

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether an error is no fault of the statement."""
        return isinstance(error, WrittenByAnother) or super().is_trouble(error)
