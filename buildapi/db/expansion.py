"""
Decompression of a stored content piece by piece (pure): what 64 kB become may not fit into memory.

The methods are those of ``compression``.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator

import brotli  # type: ignore[import-untyped]  # it has no stubs
import zstandard

from buildapi.db.compression import DAMAGE, decompressed
from buildapi.errors import CorruptChunk

# Zstandard has no limit for what it returns. So many bytes of a frame can make 2 MB of text.
_ZSTD_BYTES = 64


def expanded(content: bytes, number: int, size: int) -> Iterator[bytes]:
    """
    Yield the text of a stored content, in pieces of about ``size`` bytes.

    What is stored as it is, or as lz4, which makes no more than 255 bytes of one, is cut only then.
    Fails with CorruptChunk.
    """
    pieces = _PIECES.get(number)
    if pieces is None:
        text = decompressed(content, number)
        for at in range(0, len(text), size):
            yield text[at : at + size]
        return
    try:
        yield from pieces(content, size)
    except DAMAGE as error:
        raise CorruptChunk("A piece of this log is damaged: it cannot be decompressed.") from error


def _gz(content: bytes, size: int) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    while not stream.eof:
        piece = stream.decompress(content, size)
        content = stream.unconsumed_tail
        if not (piece or content or stream.eof):
            raise ValueError("the stream has no end")
        yield piece


def _bz2(content: bytes, size: int) -> Iterator[bytes]:
    stream = bz2.BZ2Decompressor()
    while not stream.eof:
        piece = stream.decompress(content, size)
        content = b""
        if not piece and stream.needs_input and not stream.eof:
            raise ValueError("the stream has no end")
        yield piece


def _zstd(content: bytes, size: int) -> Iterator[bytes]:
    if 0 <= zstandard.frame_content_size(content) <= size:
        yield zstandard.ZstdDecompressor().decompress(content)
        return
    stream = zstandard.ZstdDecompressor().decompressobj()
    kept, kept_bytes = [], 0
    for at in range(0, len(content), _ZSTD_BYTES):
        if stream.eof:
            break
        kept.append(stream.decompress(content[at : at + _ZSTD_BYTES]))
        kept_bytes += len(kept[-1])
        if kept_bytes >= size:
            yield b"".join(kept)
            kept, kept_bytes = [], 0
    if not stream.eof:
        raise ValueError("the frame has no end")
    yield b"".join(kept)


def _brotli(content: bytes, size: int) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    while not stream.is_finished():
        piece = stream.process(content, output_buffer_limit=size)
        content = b""
        if not piece and stream.can_accept_more_data() and not stream.is_finished():
            raise ValueError("the stream has no end")
        yield piece


_PIECES = {1: _gz, 2: _bz2, 4: _zstd, 5: _brotli}
