"""
The six ways in which a stored log chunk may be compressed (pure).

    number  name  what the bytes are
    0       raw   the text itself
    1       gz    a zlib stream, level 9 (no gzip file, in spite of its name)
    2       bz2   a bzip2 stream, level 9
    3       lz4   an lz4 block, its length first: 4 bytes, little-endian
    4       zstd  a zstandard frame, level 9
    5       br    a brotli stream, quality 11

The numbers stand in ``logchunks.compressed``, the names in settings.  Buildbot writes zstandard
frames piece by piece, so a frame need not say how long its text is.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import brotli  # type: ignore[import-untyped]  # it has no stubs, nor has lz4
import lz4.block  # type: ignore[import-untyped]
import zstandard

from buildapi.errors import BadArgument, CorruptChunk


@dataclass(frozen=True, slots=True)
class Method:
    """A storage method: its number in the database and its two directions."""

    number: int
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


def _as_it_is(content: bytes) -> bytes:
    return content


def _from_bz2(content: bytes) -> bytes:
    # To the library an empty content is a file of no streams.
    if not content:
        raise ValueError("there is no stream")
    return bz2.decompress(content)


# A byte of an lz4 block makes at most 255 of text.  A length beyond that is damage, and to believe
# it could take 2 GB of memory.
_MOST_PER_LZ4_BYTE = 255


def _from_lz4(content: bytes) -> bytes:
    if int.from_bytes(content[:4], "little") > _MOST_PER_LZ4_BYTE * len(content):
        raise ValueError("such a length cannot be")
    text: bytes = lz4.block.decompress(content)
    return text


def _to_zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(text)


def _from_zstd(content: bytes) -> bytes:
    stream = zstandard.ZstdDecompressor().decompressobj()
    text = stream.decompress(content)
    # Half a frame is no error to the library, only a text that has not arrived yet.
    if not stream.eof:
        raise ValueError("the frame has no end")
    return text


def _to_brotli(text: bytes) -> bytes:
    content: bytes = brotli.compress(text, mode=brotli.MODE_TEXT, quality=11)
    return content


METHODS = {
    "raw": Method(0, _as_it_is, _as_it_is),
    "gz": Method(1, lambda text: zlib.compress(text, 9), zlib.decompress),
    "bz2": Method(2, lambda text: bz2.compress(text, 9), _from_bz2),
    "lz4": Method(3, lz4.block.compress, _from_lz4),
    "zstd": Method(4, _to_zstd, _from_zstd),
    "br": Method(5, _to_brotli, brotli.decompress),
}

_NAMES = {method.number: name for name, method in METHODS.items()}

DAMAGE = (
    zlib.error,
    OSError,  # bz2: no stream of its kind
    ValueError,  # bz2 and lz4: too short; and our own above
    lz4.block.LZ4BlockError,
    zstandard.ZstdError,
    brotli.error,
)


def compressed(text: bytes, name: str) -> tuple[bytes, int]:
    """
    The content to store for a text, and the number of its method.

    A text that does not shrink is stored as it is, with number 0.
    Fails with BadArgument if no method has that name.
    """
    method = METHODS.get(name)
    if method is None:
        known = ", ".join(METHODS)
        raise BadArgument(f"No compression is called {name!r}; these are: {known}.")
    content = method.compress(text)
    return (content, method.number) if len(content) < len(text) else (text, 0)


def decompressed(content: bytes, number: int) -> bytes:
    """
    The text of a stored content.

    Fails with CorruptChunk if the number is unknown or the content is not what the number says.
    """
    name = _NAMES.get(number)
    if name is None:
        raise CorruptChunk(f"A piece of this log is stored with the unknown method {number}.")
    try:
        return METHODS[name].decompress(content)
    except DAMAGE as error:
        raise CorruptChunk(f"A piece of this log is damaged: it is not {name}.") from error
