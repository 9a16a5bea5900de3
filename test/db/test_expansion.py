"""Decompression piece by piece."""

from __future__ import annotations

import bz2
import zlib

import brotli  # type: ignore[import-untyped]  # it has no stubs
import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from buildapi.db.compression import METHODS, compressed
from buildapi.db.expansion import expanded
from buildapi.errors import CorruptChunk

MB = 2**20
TEXTS = st.lists(st.tuples(st.binary(max_size=20), st.integers(1, 300))).map(
    lambda runs: b"".join(text * times for text, times in runs)
)


def in_parts(text: bytes) -> bytes:
    """Compress as Buildbot does, so that the frame does not say how long its text is."""
    stream = zstandard.ZstdCompressor(level=9).compressobj()
    return stream.compress(text) + stream.flush()


ENCODERS = {
    0: bytes,
    1: zlib.compress,
    2: bz2.compress,
    3: lz4.block.compress,
    4: in_parts,
    5: brotli.compress,
}


@given(TEXTS, st.sampled_from([*METHODS]), st.integers(1, 500))
def test_the_pieces_are_the_text(text: bytes, name: str, size: int) -> None:
    """Whatever the method, and however small they are wanted."""
    content, number = compressed(text, name)

    assert b"".join(expanded(content, number, size)) == text


@pytest.mark.parametrize("number", ENCODERS)
def test_a_piece_is_not_much_larger_than_is_wanted(number: int) -> None:
    """Though the content is small, and the text is not."""
    content = ENCODERS[number](b" " * 20 * MB)
    pieces = [len(piece) for piece in expanded(content, number, MB)]

    assert sum(pieces) == 20 * MB
    assert max(pieces) <= 4 * MB


@pytest.mark.parametrize("number", [one for one in ENCODERS if one])
@pytest.mark.parametrize("left", [0, 5, 0.5])
def test_damage_is_told(number: int, left: float) -> None:
    """Half a content is not taken for a shorter text."""
    whole = ENCODERS[number](bytes(range(256)) * 100)
    content = whole[: int(left * len(whole)) if left < 1 else -int(left)]

    with pytest.raises(CorruptChunk):
        list(expanded(content, number, 1_000))


def test_an_unknown_method_is_told() -> None:
    """A number that none of ours has."""
    with pytest.raises(CorruptChunk):
        list(expanded(b"x", 9, 10))
