"""Content-Encoding: who gets which, and that it can be read again."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from buildapi.www.encoding import CODINGS, Coding, compressed, compressor, negotiated


def reader(coding: Coding) -> Callable[[bytes], bytes]:
    """What a client reads a body of a coding with, piece by piece."""
    readers: dict[Coding, Callable[[], Callable[[bytes], bytes]]] = {
        "br": lambda: brotli.Decompressor().process,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
        "gzip": lambda: zlib.decompressobj(wbits=31).decompress,
    }
    return readers[coding]()


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        (b"", None),
        (b"gzip", "gzip"),
        (b"GZip", "gzip"),
        (b"br", "br"),
        (b"zstd", "zstd"),
        (b"deflate", None),
        (b"gzip, deflate", "gzip"),
        (b"gzip, br", "br"),
        (b"gzip, zstd", "zstd"),
        (b"gzip, deflate, br, zstd", "br"),
        (b"gzip;q=0", None),
        (b"gzip ; q=0.000", None),
        (b"gzip;q=0.5", "gzip"),
        (b"br;q=0.5, gzip", "gzip"),
        (b"br;q=0.5, gzip;q=0.4", "br"),
        (b"br;q=0, gzip", "gzip"),
        (b"identity", None),
        (b"identity, gzip", "gzip"),
        (b"identity, gzip;q=0.9", None),
        (b"identity;q=0", None),
        (b"identity;q=0, gzip;q=0.1", "gzip"),
        (b"identity;q=0, *", "br"),
        (b"identity;q=0, br;q=0, *;q=0.1", "zstd"),
        (b"*", None),
        (b"*;q=0", None),
        (b"gzip, *;q=0", "gzip"),
        (b"gzip;q=0, *", None),
        (b"compress, x-other", None),
        (b"gzip;q=nonsense", None),
        (b"\xff, ;;,=", None),
    ],
)
def test_a_header_gets_a_coding(header: bytes | None, coding: Coding | None) -> None:
    """The client's wish first, then our order; never deflate; in doubt the body as it is."""
    assert negotiated(header) == coding


@given(st.binary())
def test_no_header_makes_it_fail(header: bytes) -> None:
    """A broken header is no reason to refuse the answer."""
    assert negotiated(header) in (None, *CODINGS)


@given(st.sampled_from(CODINGS), st.binary())
def test_a_body_comes_back(coding: Coding, body: bytes) -> None:
    """However small it is."""
    assert reader(coding)(compressed(body, coding)) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_equal_bodies_are_equal_compressed(coding: Coding) -> None:
    """A HEAD tells the length of a GET that is made anew."""
    assert compressed(b"x" * 1000, coding) == compressed(b"x" * 1000, coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_paused_stream_can_be_read_so_far(coding: Coding) -> None:
    """A follower sees a line when it was written, not when the buffer is full."""
    begun, read = compressor(coding), reader(coding)

    for line in (b"make: begun\n", b"make: still there\n"):
        assert read(begun.feed(line) + begun.flush()) == line
    assert read(begun.finish()) == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_a_long_stream_comes_back(coding: Coding) -> None:
    """Also where it is longer than the window, and nobody flushes it."""
    begun, read = compressor(coding), reader(coding)
    piece = bytes(range(256)) * 256

    sent = b"".join(read(begun.feed(piece)) for _ in range(16)) + read(begun.finish())
    assert sent == piece * 16
