"""Log contents: by lines as JSON, or raw as a download."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import sqlalchemy as sa

from buildapi.data.fetch import Context, Plain, find
from buildapi.data.gate import Restriction
from buildapi.data.logs import Log
from buildapi.data.longlines import whole_lines
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.schema import field
from buildapi.db.chunks import MOST_BYTES, Chunk, lines
from buildapi.db.connect import Params, Reader
from buildapi.db.tables import builders, builds, logchunks, logs, steps, workers
from buildapi.errors import LineTooLong, NoSuchResource

# How much of a log one read takes: little enough to hold no snapshot long.  Four times as much is
# half as quick: memory of that size is given back to the system and asked for again every time.
PART_BYTES = 128 * 1024

# Chunks are mostly as long as they may be, 64 kB: one statement is enough then. Where they are
# shorter, the next statements take more of them, but never more than 8 MB.
_FIRST_CHUNKS = PART_BYTES // MOST_BYTES
_GROWTH = 8
_MOST_CHUNKS = 8 * 2**20 // MOST_BYTES

# The chunk with the first line is found by its own number, not by its end: to ask every chunk of
# the log where it ends would make a download take time that grows with the square of its length.
_earlier = logchunks.alias("earlier")
_begins_with = (
    sa.select(sa.func.max(_earlier.c.first_line))
    .where(
        _earlier.c.logid == sa.bindparam("logid"), _earlier.c.first_line <= sa.bindparam("first")
    )
    .scalar_subquery()
)
_OVERLAPPING = (
    sa.select(
        logchunks.c.first_line, logchunks.c.last_line, logchunks.c.content, logchunks.c.compressed
    )
    .where(
        logchunks.c.logid == sa.bindparam("logid"),
        logchunks.c.first_line >= sa.func.coalesce(_begins_with, 0),
        logchunks.c.last_line >= sa.bindparam("first"),
        logchunks.c.first_line <= sa.bindparam("last"),
    )
    .order_by(logchunks.c.first_line)
    .limit(sa.bindparam("most"))
)


@dataclass(frozen=True)
class Part:
    """
    Some whole lines: from ``first`` up to, but without, ``next``.

    missing: how many of them, or after them, should be in some chunk, and are in none.
    """

    first: int
    next: int
    text: bytes
    missing: int


def part(
    reader: Reader,
    logid: int,
    first: int,
    end: int,
    most_bytes: int = PART_BYTES,
    longest: int | None = None,
) -> Part:
    """
    Read whole lines from ``first`` on, before ``end``: until they are ``most_bytes`` long.

    longest: bytes that a line may have, if not any number.  LineTooLong if the first has more; if
    another has, those before it are read.
    """
    pieces: list[bytes] = []
    size, reached, missing = 0, first, 0
    try:
        for begin, after, text in texts(reader, logid, first, end, longest):
            missing += begin - reached
            pieces.append(text)
            size += len(text)
            reached = after
            if size >= most_bytes:
                break
        else:
            missing += max(0, end - reached)
    except LineTooLong:
        if reached == first:
            raise
    return Part(first, reached, b"".join(pieces), missing)


def texts(
    reader: Reader, logid: int, first: int, end: int, longest: int | None = None
) -> Iterator[tuple[int, int, bytes]]:
    """
    Read whole lines from ``first`` on, before ``end``, chunk by chunk; large ones piece by piece if
    a line may not be of any length: LineTooLong at the first that has more than ``longest`` bytes.

    Yields the number of the first of them, that after the last, and the lines; each line once.
    """
    for chunk in _chunks(reader, logid, first, end):
        after = min(chunk.last_line + 1, end)
        # Chunks may have been merged since the statement before: then this one begins with lines
        # that were read already.
        begin = max(first, chunk.first_line)
        if begin >= after:
            continue
        if longest is None:
            yield begin, after, lines([chunk], begin, end - 1)
        else:
            for reached, text in whole_lines(logid, chunk, begin, after, longest):
                yield begin, reached, text
                begin = reached
        first = after


def _chunks(reader: Reader, logid: int, first: int, end: int) -> Iterator[Chunk]:
    most = _FIRST_CHUNKS
    while first < end:
        wanted = {"logid": logid, "first": first, "last": end - 1, "most": most}
        rows = reader.rows(_OVERLAPPING, wanted)
        yield from (Chunk.stored(*row) for row in rows)
        if len(rows) < most:
            return
        first = rows[-1][1] + 1
        most = min(most * _GROWTH, _MOST_CHUNKS)


def parts(reader: Reader, logid: int, first: int, end: int) -> Iterator[Part]:
    """Read all lines from ``first`` on, before ``end``."""
    while (found := part(reader, logid, first, end)).next > first:
        yield found
        first = found.next


_NAMES = (
    sa.select(builders.c.name, builds.c.number, steps.c.name, workers.c.name)
    .select_from(
        logs.join(steps, steps.c.id == logs.c.stepid)
        .join(builds, builds.c.id == steps.c.buildid)
        .join(builders, builders.c.id == builds.c.builderid)
        .outerjoin(workers, workers.c.id == builds.c.workerid)
    )
    .where(logs.c.id == sa.bindparam("logid"))
)


# Twice as quick as to split the text and to cut every line.
_REST_OF_LINE = re.compile(rb".?(.*\n)")


def without_letters(text: bytes) -> bytes:
    """Return whole lines of a log of type s without the letters of their streams."""
    return b"".join(_REST_OF_LINE.findall(text))


@dataclass(frozen=True)
class RawLog:
    """What a raw download is made of, besides the lines."""

    logid: int
    num_lines: int
    type: str
    filename: str
    heading: bytes

    @property
    def content_type(self) -> bytes:
        """Return the type of the download; only logs of type h are HTML."""
        return b"text/html; charset=utf-8" if self.type == "h" else b"text/plain; charset=utf-8"

    def shown(self, text: bytes) -> bytes:
        """Return whole lines as a download has them: without the stream character of type s."""
        return without_letters(text) if self.type == "s" else text


def raw_log(reader: Reader, pattern: str, bound: Params, restriction: Restriction | None) -> RawLog:
    """Read what a raw path means; NoSuchResource if there is no such log."""
    log = find(reader, Log, pattern, bound, restriction)
    names = reader.first(_NAMES, {"logid": log["logid"]})
    if names is None:
        raise NoSuchResource(f"log {log['logid']} belongs to no build")
    builder, number, step, worker = names
    heading = f"Builder: {builder}\nBuild number: {number}\n"
    if worker is not None:
        heading += f"Worker name: {worker}\n"
    return RawLog(
        log["logid"],
        log["num_lines"],
        log["type"],
        f"{builder}_build_{number}_step_{step}_log_{log['slug']}",
        heading.encode() if log["type"] == "s" else b"",
    )


class Lines(NamedTuple):
    """
    Lines of a log, from ``first`` up to, but without, ``end``, which may be less.

    row: the object that shows them, without its content.
    """

    logid: int
    first: int
    end: int
    row: Row


class LogChunk(Plain):
    """Lines of a log."""

    plural = "logchunks"
    tables = frozenset({"builders", "builds", "logchunks", "logs", "steps"})
    owners = MappingProxyType(
        {"logs/n:logid/contents": (Log, frozenset({"logchunks", "logs"}))},
    )
    parent = Log
    one = (
        "logs/n:logid/contents",
        "steps/n:stepid/logs/i:log_slug/contents",
        "builds/n:buildid/steps/n:step_number/logs/i:log_slug/contents",
        "builds/n:buildid/steps/i:step_name/logs/i:log_slug/contents",
        "builders/n:builderid/builds/n:build_number/steps/n:step_number/logs/i:log_slug/contents",
        "builders/n:builderid/builds/n:build_number/steps/i:step_name/logs/i:log_slug/contents",
        "logchunks",
    )
    raw = (
        "logs/n:logid/raw",
        "steps/n:stepid/logs/i:log_slug/raw",
        "builds/n:buildid/steps/n:step_number/logs/i:log_slug/raw",
        "builds/n:buildid/steps/i:step_name/logs/i:log_slug/raw",
        "builders/n:builderid/builds/n:build_number/steps/n:step_number/logs/i:log_slug/raw",
        "builders/n:builderid/builds/n:build_number/steps/i:step_name/logs/i:log_slug/raw",
    )
    raw_inline = tuple(f"{pattern}_inline" for pattern in raw)

    logid: int = field(sa.null(), "The log they belong to.")
    firstline: int = field(sa.null(), "The number of the first of them, from 0.")
    content: str = field(sa.null(), "The lines, each with its newline.")

    @classmethod
    def objects(
        cls, reader: Reader, pattern: str, bound: Params, query: Query, context: Context
    ) -> list[Row]:
        """Return the lines that are asked for; NoSuchResource without a log, or past its end."""
        found = cls.opened(reader, pattern, bound, query, context.restriction)
        pieces = parts(reader, found.logid, found.first, found.end)
        # A part ends with a line, so no character is cut in two.
        content = "".join(piece.text.decode("utf-8", "replace") for piece in pieces)
        return [{**found.row, "content": content}]

    @classmethod
    def opened(
        cls,
        reader: Reader,
        pattern: str,
        bound: Params,
        query: Query,
        restriction: Restriction | None,
    ) -> Lines:
        """Find the lines that are asked for; NoSuchResource without a log, or past its end."""
        if pattern == "logchunks":
            raise NoSuchResource("not found: name a log, as in logs/1/contents")
        log: dict[str, Any] = find(reader, Log, pattern, bound, restriction)
        first, total = query.offset, log["num_lines"]
        if query.limit is None and first >= max(total, 1):
            raise NoSuchResource(f"the log has {total} lines; there is none from {first} on")
        end = total if query.limit is None else min(total, first + query.limit)
        row = {"logid": log["logid"], "firstline": first, "content": ""}
        return Lines(log["logid"], first, end, row)
