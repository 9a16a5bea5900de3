"""
Connections to one database: what the layer above may ask of them, whatever the database system.

A ``Connector`` opens connections and knows what differs between systems; ``sqlite``, ``postgresql``
and ``mariadb`` have one each. A ``Reader`` reads on one connection; a ``Compiled`` is a statement
as its driver takes it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Any, ClassVar

import sqlalchemy as sa

from buildapi.errors import Unavailable

Params = dict[str, Any]
Rows = list[tuple[Any, ...]]


class Connector(ABC):
    """
    One database, and how it is spoken to.

    Nothing is opened before it is asked for.  Every connection has ``execute(sql, params)``, which
    returns a cursor, and is in a transaction only between our own BEGIN and COMMIT.
    """

    # What begins a transaction that writes, and a snapshot.
    BEGIN: ClassVar[str]
    BEGIN_SNAPSHOT: ClassVar[str]
    # The class of the driver's errors.
    Error: ClassVar[type[Exception]]
    # Whether a text may contain the character NUL.
    STORES_NUL: ClassVar[bool] = True
    # Whether a unique index may take different texts for the same, as a database has its collation.
    FOLDS: ClassVar[bool] = False
    # Whether small reads are quickest on the reactor thread: no server is asked, and what is too
    # large can be stopped.
    EMBEDDED: ClassVar[bool] = False
    # The largest value of the columns that Buildbot's schema calls integers.
    LARGEST_INTEGER: ClassVar[int] = 2**31 - 1
    # Whether types, lengths and foreign keys are enforced.
    CHECKS_LINKS: ClassVar[bool] = True
    # The placeholder of statements whose text is made here and not by SQLAlchemy.
    PLACEHOLDER: ClassVar[str] = "%s"

    in_memory = False
    dialect: sa.Dialect
    # What it is called in sentences: never with a password.
    name: str

    @abstractmethod
    def check(self) -> None:
        """Raise CannotOpen if there can be no such database; touch nothing."""

    def must_exist(self) -> None:  # noqa: B027  only a file may be missing
        """Raise CannotOpen where to connect would make a new database."""

    @abstractmethod
    def lock(self, holder: str) -> None:
        """Become the one writing process, or raise CannotOpen."""

    def sign(self, holder: str) -> None:  # noqa: B027  a file has it beside it
        """Write down who writes, for others who would, where the lock does not say it."""

    @abstractmethod
    def unlock(self) -> None:
        """Let another process write."""

    @abstractmethod
    def writer(self) -> Any:
        """Open the connection that writes: what it commits is durable when COMMIT returns."""

    @abstractmethod
    def inspector(self) -> Any:
        """Open a connection that changes nothing by itself, to look before anything is touched."""

    @abstractmethod
    def reader(self, give_up: Callable[[], bool], limit_s: float, *, patient: bool) -> Reader:
        """
        Open a connection that only reads.

        give_up: asked from time to time, where that is possible, whether to interrupt a query.
        limit_s: how long the system itself lets a query run, where it can.  patient: it waits for
        locks.
        """

    def pipeline(self, reactor: Any, limit_s: float) -> Any:  # noqa: ARG002  few have one
        """
        Return what runs single statements without a thread; None where that can't be done.

        limit_s: how long the system itself lets one run.
        """
        return None

    def close(self, connection: Any) -> None:
        """Close a connection that was opened here."""
        connection.close()

    def forget(self) -> None:  # noqa: B027  most keep nothing
        """Let go of what was kept between connections."""

    @abstractmethod
    def alchemy(self, connection: Any) -> sa.Engine:
        """Return an engine over ``connection``, for schema work; transactions stay ours."""

    @abstractmethod
    def streamed(self, connection: Any, sql: str, params: Params) -> Any:
        """Run a SELECT; return a cursor that holds few rows at a time.  It must be closed."""

    @abstractmethod
    def inserted(self, connection: Any, statement: sa.Insert, values: Params) -> int:
        """Insert one row; return its integer key."""

    def keep_ids(self, connection: Any) -> None:  # noqa: B027  most do
        """Have the rows that follow keep the ids that they are given, whichever these are."""

    def number_after(self, connection: Any, table: sa.Table) -> None:  # noqa: B027  most do
        """Number new rows after those that came with ids."""

    @abstractmethod
    def in_transaction(self, connection: Any) -> bool:
        """Say whether a transaction is open, sound or not: whether there is one to roll back."""

    def is_sound(self, connection: Any) -> bool:
        """Say whether an open transaction can still be committed."""
        return self.in_transaction(connection)

    @abstractmethod
    def is_busy(self, error: BaseException) -> bool:
        """Say whether the statement may work a little later."""

    @abstractmethod
    def is_lost(self, error: BaseException) -> bool:
        """Say whether the connection is gone, or can't be made now."""

    @abstractmethod
    def is_interrupted(self, error: BaseException) -> bool:
        """Say whether a query was stopped: by us, or because it took longer than it may."""

    def is_undecodable(self, error: BaseException) -> bool:  # noqa: ARG002  few can have such a thing
        """Say whether a stored text is none; ``read_leniently`` reads it."""
        return False

    def read_leniently(self, connection: Any) -> None:  # noqa: B027  only SQLite stores anything
        """Give texts that are none with replacement characters, instead of failing."""

    @abstractmethod
    def interrupt(self, connection: Any) -> None:
        """Stop the query that runs on ``connection``; from another thread, and it may take time."""

    @abstractmethod
    def refusal(self, error: BaseException) -> BaseException | None:
        """Return what is wrong with the data as an error of ours, if that is what it is."""

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether an error is no fault of the statement: waiting may cure it."""
        return self.is_busy(error) or self.is_lost(error) or self.is_interrupted(error)

    def explained(self, error: BaseException) -> BaseException:
        """
        Return trouble with the database as Unavailable, what it refuses as an error of ours, and
        other errors as they are.

        A statement that is wrong is not made right by waiting.
        """
        if self.is_trouble(error):
            # Where a server is that can't be reached is nobody's business: the log has it.
            why = "" if self.is_lost(error) else f" ({sentence(error)})"
            return Unavailable(f"the database is not available; try again later{why}")
        return self.refusal(error) or error

    @abstractmethod
    def sizes(self, connection: Any) -> dict[str, int]:
        """Return how many bytes the database has, by file or by table."""

    def quoted(self, name: str) -> str:
        """Return the name of a column or table as it may stand in a statement."""
        return self.dialect.identifier_preparer.quote(name)


def sentence(error: BaseException) -> str:
    """Return what a driver says of an error, in one line."""
    text = error.args[-1] if error.args and isinstance(error.args[-1], str) else str(error)
    return " ".join(text.split()).rstrip(".")


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

    def __init__(self, connection: Any, connector: Connector) -> None:
        self.connection = connection
        self.connector = connector
        self.dialect = connector.dialect

    def rows(self, statement: sa.ClauseElement, params: Params) -> Rows:
        """Run a SELECT and return all its rows; for results known to be small."""
        return self.run_all(compiled(statement, self.dialect), params)

    def first(self, statement: sa.ClauseElement, params: Params) -> tuple[Any, ...] | None:
        """Run a SELECT and return its first row, or None."""
        found = self.rows(statement, params)
        return found[0] if found else None

    def run_all(self, ready: Compiled, params: Params) -> Rows:
        """Run a compiled SELECT and return all its rows; for results known to be small."""
        found: Rows = self.connection.execute(ready.sql, ready.bound(params)).fetchall()
        return found

    def portions(
        self, ready: Compiled, params: Params, size: int, *, few: bool = False
    ) -> Generator[Rows]:
        """
        Run a compiled SELECT and yield its rows, ``size`` at a time; inside a snapshot.

        few: there are not many, so they may all come at once.  No other statement may be run before
        the iterator has ended or was closed.
        """
        bound = ready.bound(params)
        if few:
            cursor = self.connection.execute(ready.sql, bound)
        else:
            cursor = self.connector.streamed(self.connection, ready.sql, bound)
        try:
            while rows := cursor.fetchmany(size):
                yield rows
        finally:
            cursor.close()

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Make everything read inside see one state of the database."""
        return _snapshot(self.connection, self.connector.BEGIN_SNAPSHOT)


class Answered(Reader):
    """Has the rows of the one statement that is going to be run already."""

    def __init__(self, rows: Rows, connector: Connector) -> None:
        super().__init__(None, connector)
        self._rows = rows

    def run_all(self, ready: Compiled, params: Params) -> Rows:  # noqa: ARG002  it was run
        """Return the rows."""
        return self._rows


@contextlib.contextmanager
def _snapshot(connection: Any, begin: str) -> Any:
    connection.execute(begin)
    try:
        yield
    finally:
        connection.execute("COMMIT")


Read = Callable[[Reader], Any]
