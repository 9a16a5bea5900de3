"""
Chunks of a log that are larger than what is read at a time, and lines that are.

A chunk has 64 kB at most as it is stored, and may still be one line of hundreds of megabytes: then
it is decompressed piece by piece, and nothing of it is kept. What is stored of a chunk is always
read whole: a program that writes larger ones to the database decides how much memory they take.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import sqlalchemy as sa

from buildapi.db.chunks import Chunk, lines
from buildapi.db.connect import Reader
from buildapi.db.expansion import expanded
from buildapi.db.tables import logchunks
from buildapi.errors import LineTooLong, NoSuchResource

# A chunk that has no more text than that is taken at once.
PIECE_BYTES = 2**20

_WITH_LINE = (
    sa.select(
        logchunks.c.first_line, logchunks.c.last_line, logchunks.c.content, logchunks.c.compressed
    )
    .where(
        logchunks.c.logid == sa.bindparam("logid"),
        logchunks.c.first_line <= sa.bindparam("line"),
        logchunks.c.last_line >= sa.bindparam("line"),
    )
    .order_by(logchunks.c.first_line)
    .limit(1)
)


def whole_lines(
    logid: int, chunk: Chunk, first: int, end: int, longest: int
) -> Iterator[tuple[int, bytes]]:
    """
    Yield the lines of a chunk from ``first`` on, before ``end``: some, and the number after them.

    Fails with LineTooLong at a line of more than ``longest`` bytes, when all before it are yielded.
    """
    pieces = _pieces(chunk)
    one = next(pieces, b"")
    another = next(pieces, None)
    if another is None and len(one) <= longest:
        yield end, lines([Chunk(chunk.first_line, chunk.last_line, one, 0)], first, end - 1)
        return
    text_of_chunk = chain([one, another or b""], pieces)
    rest = b""
    for piece in chain(_without(first - chunk.first_line, text_of_chunk), [b"\n"]):
        rest += piece
        text, rest = _cut(rest, longest)
        if text:
            text = _head(text, end - first)
            first += text.count(b"\n")
            yield first, text
        if first >= end:
            return
        if len(rest) > longest:
            raise LineTooLong(logid, first, longest)
    # It has fewer lines than it says.
    yield end, b""


class LongLine:
    """One line of a log, read piece by piece; what is kept is its chunk as it is stored."""

    def __init__(self, logid: int, line: int) -> None:
        self._logid = logid
        self._line = line
        self._pieces: Iterator[bytes] | None = None

    def following(self, reader: Reader) -> bytes:
        """Read the next piece; the last one ends with a newline, after it there is none."""
        if self._pieces is None:
            row = reader.first(_WITH_LINE, {"logid": self._logid, "line": self._line})
            if row is None:
                raise NoSuchResource(f"line {self._line} of log {self._logid} has been deleted")
            chunk = Chunk.stored(*row)
            pieces = _without(self._line - chunk.first_line, _pieces(chunk))
            self._pieces = _to_newline(chain(pieces, [b"\n"]))
        return next(self._pieces, b"")


def _pieces(chunk: Chunk) -> Iterator[bytes]:
    pieces = expanded(chunk.content or b"", chunk.compressed, PIECE_BYTES)
    return (piece for piece in pieces if piece)


def _without(skipped: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a text without its first so many lines."""
    for piece in pieces:
        count = piece.count(b"\n") if skipped else 0
        if count < skipped:
            skipped -= count
        elif skipped:
            *_, rest = piece.split(b"\n", skipped)
            skipped = 0
            yield rest
        else:
            yield piece


def _to_newline(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the first line of a text."""
    for piece in pieces:
        end = piece.find(b"\n") + 1
        if end:
            yield piece[:end]
            return
        if piece:
            yield piece


def _cut(text: bytes, longest: int) -> tuple[bytes, bytes]:
    """Return the whole lines, up to the first that is too long, and the rest."""
    at, end = 0, text.rfind(b"\n") + 1
    while end - at > longest + 1:
        newline = text.rfind(b"\n", at, at + longest + 1) + 1
        if not newline:
            end = at
            break
        at = newline
    return text[:end], text[end:]


def _head(text: bytes, most: int) -> bytes:
    """Return the first so many lines."""
    if text.count(b"\n") <= most:
        return text
    return text[: len(text) - len(text.split(b"\n", most)[most])]
