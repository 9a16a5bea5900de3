"""
The lines of a log as the inside of a JSON text, for one answer: bit by bit, however long they are.

An answer that would be too large is refused as soon as that is known. What is stored tells it
only when it is decompressed; to do just that takes a fraction of the time of making the answer.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator

import orjson

from buildapi.data.logchunks import PART_BYTES, Lines, texts
from buildapi.data.longlines import PIECE_BYTES, LongLine
from buildapi.data.spool import Spool
from buildapi.db.connect import Reader
from buildapi.errors import LineTooLong

# What is measured is what seems to become larger than this part of the most that is allowed: the
# lines to come may be longer than those before them.
_DOUBTFUL = 1 / 4


def fill(spool: Spool, reader: Reader, lines: Lines) -> None:
    """
    Read these lines into ``spool`` as JSON, without the quotes around them.

    Fails with BadQuery if they are too much for it.
    """
    decoder = getincrementaldecoder("utf-8")("replace")
    count, measured = 0, False
    for reached, piece in _portions(_pieces(reader, lines.logid, lines.first, lines.end)):
        spool.append(orjson.dumps(decoder.decode(piece))[1:-1])
        count += piece.count(b"\n")
        if not measured and spool.in_file:
            measured = True
            projected = spool.size / max(count, 1) * (lines.end - lines.first)
            if projected > _DOUBTFUL * spool.most:
                _measure(spool, reader, lines._replace(first=reached))
    spool.append(orjson.dumps(decoder.decode(b"", final=True))[1:-1])


def _measure(spool: Spool, reader: Reader, lines: Lines) -> None:
    size = 0
    for _, piece in _pieces(reader, lines.logid, lines.first, lines.end):
        # A newline takes two bytes in JSON; whatever else does makes the answer even larger.
        size += len(piece) + piece.count(b"\n")
        spool.check_room(size)


def _pieces(reader: Reader, logid: int, first: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the text of lines in pieces of limited size, each with the number of the next line."""
    while first < end:
        try:
            for _, after, text in texts(reader, logid, first, end, PIECE_BYTES):
                yield after, text
        except LineTooLong as error:
            line, first = LongLine(logid, error.line), error.line + 1
            while piece := line.following(reader):
                yield first, piece
        else:
            return


def _portions(pieces: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """
    Yield the same in portions of much the same size.

    A log may have been written a few bytes at a time; and to make JSON takes memory, for a moment,
    that is sixteen times as large as the text.
    """
    kept, size, reached = list[bytes](), 0, 0
    for reached, piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= PART_BYTES:
            text = b"".join(kept)
            for at in range(0, size, PART_BYTES):
                yield reached, text[at : at + PART_BYTES]
            kept, size = [], 0
    if kept:
        yield reached, b"".join(kept)
