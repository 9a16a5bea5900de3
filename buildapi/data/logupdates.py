"""
What happens to logs: lines are appended, the log ends, its chunks are merged.

Appending is the busiest update of a master. What an append needs to know of its log (its number of
lines, the names of its events) the writer remembers, so a batch of appends reads nothing and writes
in few statements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import AfterValidator
from twisted.internet.defer import Deferred, DeferredLock, fail

from buildapi.data.announce import names, told
from buildapi.data.logs import Log
from buildapi.data.steps import Step
from buildapi.data.updates import (
    BoundUpdate,
    Id,
    Name,
    Update,
    Updates,
    is_id,
    must_exist,
    update,
)
from buildapi.db.chunks import Chunk, mergeable, merged, split
from buildapi.db.connect import Reader
from buildapi.db.eventlog import Draft
from buildapi.db.hashes import free_slug
from buildapi.db.spelling import same_for_index
from buildapi.db.tables import logchunks, logs
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument, Conflict

P = ParamSpec("P")
T = TypeVar("T")

# Longer texts are cut and compressed in the pool: 64 KB at zlib's level 9 take 20 ms.
MOST_INLINE = 4096

# The logs of a step that have this slug, as far as its index can tell.
_SAME = sa.select(logs.c.id).where(
    logs.c.stepid == sa.bindparam("stepid"), same_for_index(logs.c.slug, "slug")
)
_SLUGS = sa.select(logs.c.slug).where(logs.c.stepid == sa.bindparam("stepid"))
_SIZES = (
    sa.select(logchunks.c.first_line, logchunks.c.last_line, sa.func.length(logchunks.c.content))
    .where(logchunks.c.logid == sa.bindparam("logid"))
    .order_by(logchunks.c.first_line)
)
_BETWEEN = sa.and_(
    logchunks.c.logid == sa.bindparam("logid_"),
    logchunks.c.first_line >= sa.bindparam("first"),
    logchunks.c.last_line <= sa.bindparam("last"),
)
_RUN = (
    sa.select(
        logchunks.c.first_line, logchunks.c.last_line, logchunks.c.content, logchunks.c.compressed
    )
    .where(_BETWEEN)
    .order_by(logchunks.c.first_line)
)
_DROP = sa.delete(logchunks).where(_BETWEEN)


def _known_type(letter: str) -> str:
    if letter not in ("s", "t", "h", "d"):
        raise ValueError("s (stdio), t (text), h (HTML) or d (deleted) is wanted")
    return letter


LogType = Annotated[str, AfterValidator(_known_type)]


@dataclass
class _Head:
    """What the writer knows of a log that it appends to."""

    object: dict[str, Any]
    topic: str
    keys: tuple[str, ...]
    builderid: int | None
    projectid: int | None


def _head(tx: Tx, logid: int) -> _Head:
    head: _Head | None = tx.memory.get(("log", logid))
    if head is None:
        must_exist(tx, Log, logid)
        it = told(Log, tx, logid)
        head = _Head(it.object, *names(Log, it.words, "append"), it.builderid, it.projectid)
        tx.memory["log", logid] = head
    return head


class _BoundInTurn(BoundUpdate[P, T]):
    """An update that waits for what was asked of its log before."""

    def _queued(self, arguments: dict[str, Any]) -> Deferred[T]:
        queue = super()._queued
        found: Deferred[T] = self._owner.in_turn(arguments["logid"], lambda: queue(arguments))
        return found


class _InTurn(Update[P, T]):
    bound = _BoundInTurn


class _BoundAppend(BoundUpdate[P, T]):
    """``appendLog``: its text is cut and compressed before it is queued."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Append; fire once the lines are durable."""
        try:
            queued: Deferred[T] = self._owner.append(*args, **kwargs)
        except TypeError as error:
            return fail(BadArgument(f"appendLog: {error}"))
        return queued

    def within(self, tx: Tx, *args: P.args, **kwargs: P.kwargs) -> T:
        """Append as part of ``tx``."""
        try:
            self._update.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArgument(f"appendLog: {error}") from None
        return self._function(self._owner, tx, *args, **kwargs)


class _Append(Update[P, T]):
    bound = _BoundAppend


def _wrong(logid: Any, content: Any) -> BadArgument | None:
    """Return what is wrong with the arguments of an append, if anything is."""
    # By hand: at thousands of appends a second a general check is a tenth of the cost. Any text
    # will do: one that is no UTF-8, or has the character NUL, is stored as bytes.
    if not is_id(logid):
        return BadArgument("appendLog: logid: a number from 0 is wanted")
    if not isinstance(content, str):
        return BadArgument("appendLog: content: a text is wanted")
    if not content.endswith("\n"):
        return BadArgument("appendLog: content: it must end with a newline")
    return None


def _append(tx: Tx, logid: int, chunks: list[Chunk]) -> tuple[int, int]:
    """Append text that has been cut into chunks, numbered from line 0."""
    head = _head(tx, logid)
    if head.object["complete"]:
        raise Conflict(f"log {logid} is complete; nothing can be appended")
    first = last = head.object["num_lines"]
    for chunk in chunks:
        last = first + chunk.last_line
        row = (logid, first + chunk.first_line, last, chunk.content, chunk.compressed)
        tx.insert_later(logchunks, row)
    head.object["num_lines"] = last + 1
    tx.change_later(logs, logid, "num_lines", last + 1)
    body = orjson.dumps(head.object)
    tx.say(Draft(head.topic, head.keys, body, head.builderid, head.projectid))
    return first, last


class LogUpdates(Updates):
    """What happens to logs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Logs with a long text on its way through the pool: what comes later must wait for it.
        self._turns: dict[int, DeferredLock] = {}

    def in_turn(self, logid: int, work: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Do ``work`` after all that was asked of the log before; now, if nothing is on its way."""
        turn = self._turns.get(logid)
        if turn is None:
            return work()
        return turn.run(work).addBoth(self._after_turn, logid)

    def _after_turn(self, result: Any, logid: int) -> Any:
        turn = self._turns.get(logid)
        if turn is not None and not turn.locked:
            del self._turns[logid]
        return result

    @update
    def addLog(
        self,
        tx: Tx,
        stepid: Id,
        name: Name,
        type: LogType,  # noqa: A002
    ) -> int:
        """
        Add a log to a step; return its id.  Publishes ``newlog``.

        type: ``s`` stdio (lines begin with o, e or h), ``t`` text, ``h`` HTML;
        ``d`` one that has been deleted already.
        """
        must_exist(tx, Step, stepid)
        taken = {row[0] for row in tx.rows(_SLUGS, {"stepid": stepid})}
        slug = free_slug(name, taken)
        while tx.connector.FOLDS and tx.first(_SAME, {"stepid": stepid, "slug": slug}):
            taken.add(slug)
            slug = free_slug(name, taken)
        logid = tx.insert(
            logs, name=name, slug=slug, stepid=stepid, complete=0, num_lines=0, type=type
        )
        tx.emit(Log, logid, "newlog")
        return logid

    newLog = addLog

    @_Append
    def appendLog(self, tx: Tx, logid: Id, content: str) -> tuple[int, int]:
        """
        Append whole lines; return the numbers of the first and last of them.

        content: text that ends with a newline.  Publishes ``append``, without the text.
        Appends to one log are stored, and the log is finished, in the order of the calls.
        Fails with BadArgument, NoSuchResource, Conflict if the log is complete.
        """
        if (wrong := _wrong(logid, content)) is not None:
            raise wrong
        return _append(tx, logid, split(content, 0, self.log_compression))

    def append(self, logid: Any, content: Any) -> Deferred[tuple[int, int]]:
        """Do what ``appendLog`` says, with the text cut and compressed before it is queued."""
        if (wrong := _wrong(logid, content)) is not None:
            return fail(wrong)
        if len(content) > MOST_INLINE:
            self._turns.setdefault(logid, DeferredLock())
            return self.in_turn(logid, lambda: self._append_long(logid, content))
        chunks = split(content, 0, self.log_compression)
        if self._turns:
            return self.in_turn(logid, lambda: self._stored(logid, chunks))
        return self._stored(logid, chunks)

    def _append_long(self, logid: int, content: str) -> Deferred[tuple[int, int]]:
        method = self.log_compression
        cutting = self.database.read(lambda _: split(content, 0, method))
        return cutting.addCallback(lambda chunks: self._stored(logid, chunks))

    def _stored(self, logid: int, chunks: list[Chunk]) -> Deferred[tuple[int, int]]:
        return self.database.write(lambda tx: _append(tx, logid, chunks))

    @_InTurn
    def finishLog(self, tx: Tx, logid: Id) -> None:
        """End a log: it gets no more lines.  Publishes ``complete``."""
        must_exist(tx, Log, logid)
        tx.change(logs, logid, complete=1)
        tx.memory.pop(("log", logid), None)
        tx.emit(Log, logid, "complete")

    def compressLog(self, logid: int) -> Deferred[int]:
        """
        Merge and compress neighbouring chunks; fire with the bytes saved, maybe negative.

        Nothing that a GET shows changes; each run of chunks is a transaction of its own.
        """
        if not is_id(logid):
            return fail(BadArgument("compressLog: logid: a number from 0 is wanted"))
        return Deferred.fromCoroutine(self._compressed(logid))

    async def _compressed(self, logid: int) -> int:
        sizes = await self.database.read(lambda reader: _sizes(reader, logid))
        saved = 0
        for first, last in mergeable(sizes):
            saved += await self._compressed_run(logid, first, last)
        return saved

    async def _compressed_run(self, logid: int, first: int, last: int) -> int:
        run = {"logid_": logid, "first": first, "last": last}

        def merge(reader: Reader) -> tuple[list[Chunk], Chunk]:
            old = [Chunk(*row) for row in reader.rows(_RUN, run)]
            return old, merged(old, self.log_compression)

        old, new = await self.database.read(merge)
        await self.database.write(lambda tx: _replace(tx, logid, len(old), new))
        return sum(len(chunk.content or b"") for chunk in old) - len(new.content or b"")


def _replace(tx: Tx, logid: int, number: int, new: Chunk) -> None:
    """
    Put one chunk in the place of those that hold its lines; Conflict unless they are ``number``.
    """
    lines = {"logid_": logid, "first": new.first_line, "last": new.last_line}
    if tx.run(_DROP, lines, only=logid) != number:
        raise Conflict(f"log {logid} was compressed by somebody else meanwhile")
    tx.insert_later(logchunks, (logid, new.first_line, new.last_line, new.content, new.compressed))


def _sizes(reader: Reader, logid: int) -> Sequence[tuple[int, int, int]]:
    must_exist(reader, Log, logid)
    return [(a, b, size or 0) for a, b, size in reader.rows(_SIZES, {"logid": logid})]
