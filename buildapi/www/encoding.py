"""
Content-Encoding: which one a client gets, and how to make it (pure).

What a client likes best counts (its q-values); of equals br comes before zstd, zstd before gzip.
deflate is never offered: half of the clients mean zlib by it, the other half do not.  Bodies of any
size are compressed, since the contract says so, a HEAD says what its GET would, and the smallest
takes some ten microseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import brotli  # type: ignore[import-untyped]  # it has no stubs
import zstandard
from werkzeug.http import parse_accept_header

Coding = Literal["br", "zstd", "gzip"]
CODINGS: tuple[Coding, ...] = ("br", "zstd", "gzip")
"""What is offered, best first."""

# A page of 50 objects (20 kB) takes some 30 microseconds at these levels.  At gzip's default it
# would take three times as long, for a fifth less to send.
_GZIP_LEVEL = 3
_BROTLI_QUALITY = 3
_ZSTD_LEVEL = 1

# Windows of 256 kB: a brotli stream that thousands of followers may hold takes 1 MB, not 7.
_BROTLI_WINDOW = 18
_GZIP_FORMAT = 31


# Clients send few different headers, and parsing one takes longer than all the rest of this.
@lru_cache(maxsize=64)
def negotiated(accept_encoding: bytes | None) -> Coding | None:
    """
    Return the coding for a client that sent this Accept-Encoding header; None: send it as it is.

    ``*`` counts only where ``identity`` is refused: a client that takes anything is served best
    with what needs no work.  One that accepts nothing that exists gets the body as it is too.
    """
    if accept_encoding is None:
        return None
    accepted = parse_accept_header(accept_encoding.decode("latin-1"))
    # They come best first; of two that name one coding, the better counts.
    liked = {name.lower(): quality for name, quality in reversed(accepted)}
    identity = liked.get("identity")
    unnamed = liked.get("*", 0) if identity == 0 else 0
    best = max(CODINGS, key=lambda coding: liked.get(coding, unnamed))
    quality = liked.get(best, unnamed)
    return best if quality > 0 and quality >= (identity or 0) else None


class Compressor(NamedTuple):
    """
    A body that is compressed piece by piece.

    feed: takes a piece, returns what is ready to be sent, maybe nothing.
    flush: returns what is needed to read all that was fed; a stream that pauses has to call it.
    finish: returns the end.
    """

    feed: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    finish: Callable[[], bytes]


def compressor(coding: Coding) -> Compressor:
    """Begin a body."""
    match coding:
        case "br":
            br = brotli.Compressor(quality=_BROTLI_QUALITY, lgwin=_BROTLI_WINDOW)
            return Compressor(br.process, br.flush, br.finish)
        case "zstd":
            zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
            pause = partial(zstd.flush, zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            return Compressor(zstd.compress, pause, zstd.flush)
        case "gzip":
            gzip = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
            return Compressor(gzip.compress, partial(gzip.flush, zlib.Z_SYNC_FLUSH), gzip.flush)


def compressed(body: bytes, coding: Coding) -> bytes:
    """Return a whole body, compressed."""
    begun = compressor(coding)
    return begun.feed(body) + begun.finish()


def compressing(pieces: Iterable[bytes], coding: Coding) -> Iterator[bytes]:
    """Compress a body as its pieces come."""
    begun = compressor(coding)
    for piece in pieces:
        if ready := begun.feed(piece):
            yield ready
    yield begun.finish()
