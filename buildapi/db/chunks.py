r"""
The text of a log as chunks, the rows of ``logchunks`` (pure).

A chunk holds whole lines joined by newlines, in UTF-8, *without* the last newline: the content of a
chunk with one empty line is empty.  ``first_line`` and ``last_line`` count from 0 and are
inclusive; the chunks of a log follow each other without a hole, and an empty log has none.

A line ends at ``\n`` and nowhere else, so texts are cut as bytes: ``splitlines`` would also cut at
``\x0b``, ``\x85`` and U+2028, and every line number behind them would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from buildapi.db.compression import compressed, decompressed
from buildapi.errors import BadArgument, CorruptChunk

MOST_BYTES = 65_536
MOST_LINES = 1_000

# Shorter texts are stored as they are: to compress one costs more than the rest of its append, and
# compressLog soon does it better, for a whole chunk at once.
WORTH_COMPRESSING = 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of ``logchunks``, without its log; ``compressed`` is the number of a method."""

    first_line: int
    last_line: int
    content: bytes | None
    compressed: int

    @classmethod
    def stored(cls, first_line: Any, last_line: Any, content: Any, compressed: Any) -> Chunk:
        """Return the chunk of a row; CorruptChunk if SQLite has something else there."""
        if isinstance(content, str):
            content = content.encode()
        numbers = (first_line, last_line, compressed)
        if all(isinstance(one, int) for one in numbers) and isinstance(content, bytes | None):
            return cls(first_line, last_line, content, compressed)
        raise CorruptChunk("A piece of this log has no whole numbers where they should be.")


def split(text: str, first_line: int, method: str) -> list[Chunk]:
    """
    Cut a text into the chunks to store.

    text: whole lines, each with its newline; the empty text makes no chunk.  A lone surrogate,
    which UTF-8 does not have, becomes ``?``.
    first_line: the number of its first line.  method: a name of ``compression.METHODS``.

    A chunk gets at most 65,536 bytes and 1,000 lines.  A longer line gets a chunk of its own; if
    even compression does not bring it down to 65,536 bytes, it loses what is beyond 65,535.
    Fails with BadArgument if the last line has no newline, or no method has that name.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= WORTH_COMPRESSING and data.endswith(b"\n"):
        return [Chunk(first_line, first_line + data.count(b"\n") - 1, data[:-1], 0)]
    if data and not data.endswith(b"\n"):
        raise BadArgument("The text of a log must end with a newline.")
    return list(_chunks(data, first_line, method))


def _chunks(data: bytes, line: int, method: str) -> Iterator[Chunk]:
    start = 0
    while start < len(data):
        end = _end_of_chunk(data, start)
        last_line = line + data.count(b"\n", start, end)
        yield Chunk(line, last_line, *_stored(data[start:end], method))
        line = last_line + 1
        start = end + 1


def _end_of_chunk(data: bytes, start: int) -> int:
    """Where the last newline is of the lines that make up the chunk beginning at ``start``."""
    end = data.rfind(b"\n", start, start + MOST_BYTES + 1)
    if end < 0:
        return data.index(b"\n", start)
    if data.count(b"\n", start, end) < MOST_LINES:
        return end
    return start + _start_of_line(data[start:end], MOST_LINES) - 1


def _stored(data: bytes, method: str) -> tuple[bytes, int]:
    content, number = compressed(data, method)
    if len(content) > MOST_BYTES:
        return compressed(_cut(data), method)
    return content, number


def _cut(line: bytes) -> bytes:
    """The start of a line that is too long, without half a character at its end."""
    return line[: MOST_BYTES - 1].decode("utf-8", "ignore").encode()


def text_of(compressed: int, content: bytes | None) -> bytes:
    """
    The lines of a stored chunk, without the last newline; NULL is the empty text.

    It may be other than UTF-8 if another program wrote it: decode it with ``errors="replace"``.
    Fails with CorruptChunk.
    """
    if content is None:
        return b""
    return content if compressed == 0 else decompressed(content, compressed)


def lines(chunks: Iterable[Chunk], first: int, last: int) -> bytes:
    """
    The lines from ``first`` to ``last`` (inclusive) of a log, each with its newline.

    chunks: those that overlap the wanted lines, in order; what they hold beyond is left out.
    Lines are where the chunks' numbers say; a chunk that is wanted whole is not counted again, so
    one that belies its numbers gives the text that it has.
    Fails with CorruptChunk.
    """
    parts = [_overlap(chunk, first, last) for chunk in chunks]
    return b"\n".join([*(part for part in parts if part is not None), b""])


def _overlap(chunk: Chunk, first: int, last: int) -> bytes | None:
    """What a chunk has of the wanted lines, without the last newline; None if it has no line."""
    text = text_of(chunk.compressed, chunk.content)
    if first <= chunk.first_line and chunk.last_line <= last:
        return text
    start = _start_of_line(text, first - chunk.first_line)
    end = _start_of_line(text, last + 1 - chunk.first_line) - 1
    return text[start:end] if start <= end else None


def _start_of_line(text: bytes, line: int) -> int:
    """Where a line of a chunk starts; where the next chunk would, if it has not so many lines."""
    if line <= 0:
        return 0
    *before, rest = text.split(b"\n", line)
    return len(text) - len(rest) if len(before) == line else len(text) + 1


@dataclass(slots=True)
class _Run:
    """Neighbouring chunks that may become one."""

    first_line: int
    last_line: int
    size: int
    chunks: int = 1

    def takes(self, first_line: int, last_line: int, size: int) -> bool:
        return (
            first_line == self.last_line + 1
            and last_line - self.first_line < MOST_LINES
            and self.size + size <= MOST_BYTES
        )


def mergeable(sizes: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """
    Plan compressLog: the first and last line of every run of chunks that is to become one chunk.

    sizes: first line, last line and stored size in bytes of all chunks of a log, in order.
    Neighbours go together while their stored sizes add up to at most 65,536 bytes and their lines
    to 1,000.  A chunk that stays alone is not mentioned.
    """
    runs: list[_Run] = []
    for first_line, last_line, size in sizes:
        if runs and runs[-1].takes(first_line, last_line, size):
            runs[-1].last_line = last_line
            runs[-1].size += size
            runs[-1].chunks += 1
        else:
            runs.append(_Run(first_line, last_line, size))
    return [(run.first_line, run.last_line) for run in runs if run.chunks > 1]


def merged(chunks: Sequence[Chunk], method: str) -> Chunk:
    """
    One chunk with the lines of several (at least one) that follow each other.

    Fails with CorruptChunk, and with BadArgument if no method has that name.
    """
    text = b"\n".join(text_of(chunk.compressed, chunk.content) for chunk in chunks)
    return Chunk(chunks[0].first_line, chunks[-1].last_line, *compressed(text, method))
