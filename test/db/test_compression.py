"""Contents that Buildbot 4.3 has stored, and contents that nobody should have."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.db.compression import METHODS, compressed, decompressed
from buildapi.errors import BadArgument, CorruptChunk

# Chunks of a real database, one for each method.
STORED = {
    1: "eNrLyEhNTEktUsjJzEvlys8vLQGzFAyR2EZc+Yf35OYcXgIUeDSjWeHD/BkNXKmpRTBNJYlJnIl5KQqJecWZCtLRxo"
    "a5Rakp0tEGuVz5efkKeanlYFMSSxRS81IAMBopFA==",
    2: "QlpoOTFBWSZTWffNtrsAAGdfgAAQROf+GgEARCo/79/KMADKzDU0ETeqZG0TQxHqNBtPUmgDVT8KaJ6NqnqaA2oADQ"
    "0YgxU0ah7Sg9Q9Ro0DQAGh+bbLO+G2l9TRzhgjREelmCMEYIxb4I+AmO8BA5NgtCKH6EGe6Qium1FMFNYDKjUv4oOY"
    "ndZ+igKWS6UmKuJTCVLGjkKA+QY2RZXZHc913xYRAghhSGyLmIOYobLRJExpFO9J0PcH2rMMAbQhlj3ZGgKZVcA7wO"
    "V3yyF4yJbO+cvtkrtUxETI10VvDqgDUEWGEY5plpImEQzUVPpCwVMFrJnM0Z6bKtdbGhwPDa+MGQPieP8XckU4UJD3"
    "zba7",
    3: "SwEAAP+caHNoIC1jICdmb3IgaSBpbiAxIDIgMyA0IDU7IGRvIGVjaG8gbGluZSAkaTsgZG9uZScKaCBpbiBkaXIgL3"
    "Nydi9jaS9tYXN0ZXIvd29ya2Vycy9sb2NhbDEvYmlnbG9ncy9idWlsZCAodGltZW91dCAxMjAwIHNlY3MpCmggd2F0"
    "Y2hpbmcgbG9nZmlsZXMge30KaCBhcmd2OiBbYidzaCcsIGInLWMnLCBipAAY8QddCmggdXNpbmcgUFRZOiBGYWxzZQ"
    "pvyAATMQgAEzIIABMzCAATNAgA8Cs1Cmhwcm9ncmFtIGZpbmlzaGVkIHdpdGggZXhpdCBjb2RlIDAKaGVsYXBzZWRU"
    "aW1lPTAuMDEyNDMy",
    4: "KLUv/WBLALUGAPJOLiMwi1YHaAf04gr580CEQJb33QAdPigjacT/k6syvxtKqhhWAQyjlKIIlEE6y2jZjvVSkXo2Zo"
    "/bkNe4kbfU3mcbdxZ0DB2KFAlmURhlv3XwRQIDoR9XtMAQSfOBRDtpFL6AOLiu6MHhnW8bjt/ds8riilyRQLPsK7Uo"
    "jw9OZ2PA29tHk9rxc9uk5S3GLzVMBsiRBDP2ctKyBIGdDrcpSvJZgOez76wsz+0FiifOfLnyZ7+H3EjOENfWCgAgC8"
    "gHMltJcbQTF2s9GYBXpY1S+0br1AM=",
    5: "G0oBABwHuWn0uvoGxZlYCjQffp39l/Qmnhz66kGYU4yqT90W0spDjP85nPOiUUyWItLNQbrYgv4ueaI5GvJX3nb3xV"
    "zgFuOQ9RNKlB0YsODAQ9CQ9EjjokdTdim2pYak79IDQdkhKSdQ8/Si4pLyllRfgoo/MZQyb/qcpNKCY7Rr/1zAsDSN"
    "OY3nE0Forenzo/rynyCc8pcK22EuDlcI3eJdebrLukbjkam+zVxJb5eMDhYc+C4QcGUfteF1Ztx0oEnahMOcJkNdDf"
    "pOM6yg0A==",
}

TEXT = b"oline of a log\n" * 100
SHRINKING = [name for name in METHODS if name != "raw"]


def test_what_buildbot_has_stored_as_gz_is_read() -> None:
    """The method called gz is a bare zlib stream, and its text is UTF-8."""
    text = decompressed(b64decode(STORED[1]), 1)

    assert "\noümläut ☃ 😀\n" in text.decode()
    assert len(text) == 111


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_what_buildbot_has_stored_otherwise_is_read(number: int) -> None:
    """Every other method gives the lines of the same command."""
    text = decompressed(b64decode(STORED[number]), number)

    assert text.startswith(b"hsh -c 'for i in 1 2 3 4 5; do echo line $i; done'\n")
    assert b"\noline 1\noline 2\noline 3\noline 4\noline 5\n" in text
    assert len(text) == 331


@given(text=st.binary(max_size=2_000), name=st.sampled_from(list(METHODS)))
def test_every_method_gives_back_what_it_was_given(text: bytes, name: str) -> None:
    """Any text survives any method, and none takes more room than it had."""
    content, number = compressed(text * 3, name)

    assert decompressed(content, number) == text * 3
    assert len(content) <= len(text * 3)


@pytest.mark.parametrize("name", SHRINKING)
def test_a_text_that_shrinks_is_stored_compressed(name: str) -> None:
    """The number beside the content is that of the method asked for."""
    content, number = compressed(TEXT, name)

    assert number == METHODS[name].number
    assert len(content) < len(TEXT) / 5


@pytest.mark.parametrize("name", SHRINKING)
def test_a_text_that_does_not_shrink_is_stored_as_it_is(name: str) -> None:
    """A reader never pays for a compression that saved nothing."""
    assert compressed(b"o1", name) == (b"o1", 0)


@pytest.mark.parametrize("name", SHRINKING)
@pytest.mark.parametrize("damage", ["cut", "replaced", "emptied"])
def test_damage_is_told_from_text(name: str, damage: str) -> None:
    """Half a content, another's content or none at all is an error with a sentence."""
    content, number = compressed(TEXT, name)
    damaged = {"cut": content[:-5], "replaced": b"junk" * 5, "emptied": b""}[damage]

    with pytest.raises(CorruptChunk, match=f"damaged: it is not {name}"):
        decompressed(damaged, number)


def test_a_length_that_cannot_be_takes_no_memory() -> None:
    """Four damaged bytes must not make the library reserve two gigabytes."""
    content, number = compressed(TEXT, "lz4")

    with pytest.raises(CorruptChunk):
        decompressed(b"\xff\xff\xff\x7f" + content[4:], number)


def test_an_unknown_number_is_damage() -> None:
    """A method that a later Buildbot may invent is refused in words."""
    with pytest.raises(CorruptChunk, match="unknown method 6"):
        decompressed(b"text", 6)


def test_an_unknown_name_is_the_callers_mistake() -> None:
    """The sentence says which names there are."""
    with pytest.raises(BadArgument, match=r"'gzip'; these are: raw, gz, bz2, lz4, zstd, br\."):
        compressed(TEXT, "gzip")
