"""
Small reads on PostgreSQL by the reactor thread itself, which waits for none of them.

A hop to a thread and back costs several times what it costs to ask and to take the answer.  So a
statement is written to the connection at once, whether or not those before it have been answered;
the answers come in the same order.  Each statement ends with a Sync: it is a transaction of its
own, and one that fails hurts no other.

Only what goes well is answered.  What does not has no answer here, and is for a thread to find out
about: be it that the connection is lost, or that the statement takes too long or is wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from buildapi.db.connect import Compiled, Params, Rows

# Fires with all rows, or with None: there is no answer here.
Answer = Deferred[Rows | None]

# How many statements the server keeps for a connection; then it is to forget them all.
MOST_PREPARED = 100
# How long nobody tries to connect after that failed.
AGAIN_S = 1.0

_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|%)")


class _Statement:
    """A prepared statement: its name on the server, and how its values and rows are converted."""

    def __init__(self, sql: str, connection: psycopg.Connection[Any]) -> None:
        self.name = b""
        self._numbers: dict[str, int] = {}
        self.sql = _PLACEHOLDER.sub(self._numbered, sql).encode()
        # As text, and of no type: the server knows what it compares them with.
        self._formats = [PyFormat.TEXT] * len(self._numbers)
        self._transformer = Transformer(connection)
        self._knows_columns = False

    def _numbered(self, found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        return f"${self._numbers.setdefault(name, len(self._numbers) + 1)}"

    def dumped(self, params: Params) -> Any:
        """Return the values as they are sent."""
        values = [params[name] for name in self._numbers]
        return self._transformer.dump_sequence(values, self._formats)

    def rows(self, result: Any) -> Rows:
        """Return the rows of a result."""
        self._transformer.set_pgresult(result, set_loaders=not self._knows_columns)
        self._knows_columns = True
        rows: Rows = self._transformer.load_rows(0, result.ntuples, tuple)
        # It must not be kept until the next one.
        self._transformer.set_pgresult(None, set_loaders=False)
        return rows


class _Asked(NamedTuple):
    """A statement that was sent."""

    sql: str
    statement: _Statement
    answer: Answer


@implementer(IReadWriteDescriptor)
class _Session:
    """
    A connection on which the reactor thread asks.

    ended: called when it is closed or lost, before what still waits is told that it has no answer.
    """

    def __init__(
        self, reactor: Any, connection: psycopg.Connection[Any], ended: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._connection = connection
        self._ended = ended
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        # Of our own: the driver closes its socket as soon as the connection is lost, and the number
        # may be that of another one before the reactor hears of it.
        self._fileno = os.dup(self._pgconn.socket)
        self._prepared: dict[str, _Statement] = {}
        self._named = 0
        self._waiting: deque[_Asked] = deque()
        # What came last for the first of those that wait.
        self._result: Any = None
        self._closing = False
        reactor.addReader(self)

    def ask(self, ready: Compiled, params: Params) -> Answer:
        """Run a SELECT."""
        answer: Answer = Deferred()
        statement = self._prepared.get(ready.sql) or _Statement(ready.sql, self._connection)
        try:
            values = statement.dumped(ready.bound(params))
        except (psycopg.Error, UnicodeError):
            answer.callback(None)
            return answer
        self._waiting.append(_Asked(ready.sql, statement, answer))
        try:
            if not statement.name:
                self._prepare(ready.sql, statement)
            self._pgconn.send_query_prepared(statement.name, values)
            self._pgconn.pipeline_sync()
            if self._pgconn.flush():
                self._reactor.addWriter(self)
        except psycopg.Error:
            self.connectionLost()
        return answer

    def _prepare(self, sql: str, statement: _Statement) -> None:
        if self._named == MOST_PREPARED:
            self._pgconn.send_query_params(b"DEALLOCATE ALL", None)
            self._prepared.clear()
            self._named = 0
        self._named += 1
        statement.name = b"pipeline_%d" % self._named
        self._pgconn.send_prepare(statement.name, statement.sql)
        self._prepared[sql] = statement

    def doRead(self) -> None:
        """Take what has come."""
        try:
            self._pgconn.consume_input()
            self._take_all()
        except psycopg.Error:
            self.connectionLost()

    def _take_all(self) -> None:
        more = True
        while self._waiting and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._take(result)
            elif not more:
                # One None is the end of a statement, two are the end of everything.
                self.connectionLost()
            more = result is not None

    def _take(self, result: Any) -> None:
        if result.status != ExecStatus.PIPELINE_SYNC:
            self._result = result
            return
        last, self._result = self._result, None
        asked, rows = self._waiting.popleft(), None
        if last.status != ExecStatus.TUPLES_OK:
            # A table may have been changed: the next one is prepared anew.
            self._prepared.pop(asked.sql, None)
        elif not asked.answer.called:
            with contextlib.suppress(psycopg.Error, UnicodeError):
                rows = asked.statement.rows(last)
        _settle(asked.answer, rows)
        if self._closing and not self._waiting:
            self.connectionLost()

    def doWrite(self) -> None:
        """Send what could not be sent at once."""
        try:
            if not self._pgconn.flush():
                self._reactor.removeWriter(self)
        except psycopg.Error:
            self.connectionLost()
            return
        # To write, it may have read.
        self.doRead()

    def fileno(self) -> int:
        """Return the number of the socket."""
        return self._fileno

    def logPrefix(self) -> str:
        """Return what it is called in logs."""
        return "pipeline"

    def close(self) -> None:
        """Close it as soon as nothing waits."""
        self._closing = True
        if not self._waiting:
            self.connectionLost()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """Close it; what waits has no answer."""
        if self._fileno < 0:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        os.close(self._fileno)
        self._fileno = -1
        self._connection.close()
        self._ended()
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            _settle(asked.answer, None)


def _settle(answer: Answer, rows: Rows | None) -> None:
    # One that was cancelled has been called.
    if not answer.called:
        answer.callback(rows)


class Pipeline:
    """
    What a database is asked on: a session that is opened when it is first needed, or needed again.

    connect: opens a connection; it is called in a thread.
    """

    def __init__(self, reactor: Any, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._reactor = reactor
        self._connect = connect
        self._session: _Session | None = None
        self._opening = False
        self._failed_at: float | None = None
        self._stopped: Deferred[None] | None = None

    @staticmethod
    def is_possible(reactor: object) -> bool:
        """Say whether the reactor and the driver can do it."""
        return IReactorFDSet.providedBy(reactor) and psycopg.Pipeline.is_supported()

    def ask(self, ready: Compiled, params: Params) -> Answer | None:
        """Run a SELECT; None if there is no session just now."""
        if self._stopped is not None:
            return None
        if self._session is not None:
            return self._session.ask(ready, params)
        if not self._opening and self._may_try():
            self._open()
        return None

    def _may_try(self) -> bool:
        failed_at = self._failed_at
        return failed_at is None or self._reactor.seconds() - failed_at > AGAIN_S

    def _open(self) -> None:
        self._opening = True
        opening = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._connect)
        opening.addCallback(self._opened).addErrback(self._not_opened)

    def _opened(self, connection: psycopg.Connection[Any]) -> None:
        self._opening, self._failed_at = False, None
        self._session = _Session(self._reactor, connection, self._ended)
        if self._stopped is not None:
            self._session.close()

    def _not_opened(self, _: Failure) -> None:
        # Why, is told by a thread that can't connect either.
        self._failed_at = self._reactor.seconds()
        self._ended()

    def _ended(self) -> None:
        self._opening, self._session = False, None
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """Answer what was asked, and close; fire then."""
        self._stopped = Deferred()
        if self._session is not None:
            self._session.close()
        elif not self._opening:
            self._ended()
        return self._stopped

    def give_up(self) -> None:
        """Answer nothing more."""
        if self._session is not None:
            self._session.connectionLost()
