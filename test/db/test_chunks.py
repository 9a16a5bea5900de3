from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.db.chunks import (
    MOST_BYTES,
    MOST_LINES,
    Chunk,
    lines,
    mergeable,
    merged,
    split,
    text_of,
)
from buildapi.db.compression import METHODS
from buildapi.errors import BadArgument, CorruptChunk

# Characters that Python takes for the end of a line and a log does not.
ODD = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

texts = st.lists(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30)
    | st.text(ODD, max_size=5),
    max_size=40,
).map(lambda parts: "".join(f"{part}\n" for part in parts))


def noise(characters: int) -> str:
    """Text that does not compress: letters of three UTF-8 bytes."""
    pick = Random(4).choices
    return "".join(pick([chr(code) for code in range(0x4E00, 0x9000)], k=characters))


def pieces(text: str, method: str = "gz", each: int = 3) -> list[Chunk]:
    """A log that was appended a few lines at a time."""
    chunks: list[Chunk] = []
    parts = text.split("\n")[:-1]
    for first in range(0, len(parts), each):
        portion = "".join(f"{part}\n" for part in parts[first : first + each])
        chunks += split(portion, first, method)
    return chunks


def size(chunk: Chunk) -> int:
    """The length of a chunk's lines, without the last newline."""
    return len(text_of(chunk.compressed, chunk.content))


def test_a_line_is_one_raw_chunk() -> None:
    """What a build says now and then is stored as it is, without its newline."""
    assert split("omake: ok\n", 7, "gz") == [Chunk(7, 7, b"omake: ok", 0)]


def test_an_empty_line_is_an_empty_content() -> None:
    """One empty line, two empty lines and no line at all are three different things."""
    assert split("\n", 0, "gz") == [Chunk(0, 0, b"", 0)]
    assert split("\n\n", 0, "gz") == [Chunk(0, 1, b"\n", 0)]
    assert split("", 0, "gz") == []


@pytest.mark.parametrize("text", ["half a line", "a line\nand a half", "x" * 1_000])
def test_half_a_line_is_refused(text: str) -> None:
    """Whoever appends waits for the end of the line; else the next append would go on with it."""
    with pytest.raises(BadArgument, match="must end with a newline"):
        split(text, 0, "gz")


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    """Bytes that a command's output was never meant to have don't stop the log."""
    assert split("caf\udce9\n", 0, "gz") == [Chunk(0, 0, b"caf?", 0)]


@given(text=texts, method=st.sampled_from(list(METHODS)))
def test_a_log_reads_as_it_was_written(text: str, method: str) -> None:
    """Any text, compressed by any method, comes back byte for byte, with as many lines."""
    chunks = split(text * 4, 100, method)

    assert lines(chunks, 0, 10_000) == (text * 4).encode()
    assert sum(chunk.last_line - chunk.first_line + 1 for chunk in chunks) == text.count("\n") * 4


@given(text=texts, each=st.integers(1, 7), data=st.data())
def test_any_window_is_whole_lines(text: str, each: int, data: st.DataObject) -> None:
    """However a log was appended, lines first to last are those, also past the end."""
    wanted = text.encode().split(b"\n")[:-1]
    first = data.draw(st.integers(0, len(wanted) + 2))
    last = data.draw(st.integers(first - 1, len(wanted) + 2))

    window = lines(pieces(text, each=each), first, last)

    assert window == b"".join(line + b"\n" for line in wanted[first : last + 1])


def test_chunks_follow_each_other() -> None:
    """A long text is cut at line ends into chunks within both limits, numbered on and on."""
    text = "".join(f"oline {number} {'x' * (number % 300)}\n" for number in range(5_000))

    chunks = split(text, 12, "gz")

    assert chunks[0].first_line == 12
    assert chunks[-1].last_line == 12 + 4_999
    for chunk, following in pairwise(chunks):
        assert following.first_line == chunk.last_line + 1
    assert all(size(chunk) <= MOST_BYTES for chunk in chunks)
    assert lines(chunks, 0, 10_000) == text.encode()


def test_a_chunk_has_at_most_a_thousand_lines() -> None:
    """Short lines fill a chunk by their number."""
    chunks = split("\n" * 2_001, 0, "gz")

    assert [(chunk.first_line, chunk.last_line) for chunk in chunks] == [
        (0, MOST_LINES - 1),
        (MOST_LINES, 2 * MOST_LINES - 1),
        (2 * MOST_LINES, 2 * MOST_LINES),
    ]


def test_a_chunk_is_filled_to_its_last_byte() -> None:
    """Two lines that make up 65,536 bytes share a chunk; a byte more, and each has its own."""
    half = MOST_BYTES // 2

    assert len(split("x" * half + "\n" + "y" * (half - 1) + "\n", 0, "raw")) == 1
    assert len(split("x" * half + "\n" + "y" * half + "\n", 0, "raw")) == 2


def test_a_long_line_that_shrinks_is_kept_whole() -> None:
    """The limit is on what is stored: 200,000 letters x are no matter, between their neighbours."""
    text = "before\n" + "x" * 200_000 + "\nafter\n"

    chunks = split(text, 0, "gz")

    assert [(chunk.first_line, chunk.last_line) for chunk in chunks] == [(0, 0), (1, 1), (2, 2)]
    assert lines(chunks, 0, 2) == text.encode()


def test_a_long_line_that_does_not_shrink_is_cut() -> None:
    """What is left is at most 65,535 bytes, ends with a whole character, and is one line."""
    line = "o" + noise(100_000)

    [chunk] = split(f"{line}\n", 0, "gz")

    kept = text_of(chunk.compressed, chunk.content).decode()
    assert MOST_BYTES - 4 <= len(kept.encode()) < MOST_BYTES
    assert line.startswith(kept)
    assert (chunk.first_line, chunk.last_line) == (0, 0)


def test_a_line_of_just_the_limit_is_kept_whole() -> None:
    """65,536 bytes fit, whether they shrink or not; of 65,537 one is too many."""
    assert split("y" * MOST_BYTES + "\n", 0, "raw") == [Chunk(0, 0, b"y" * MOST_BYTES, 0)]
    assert size(split("y" * (MOST_BYTES + 1) + "\n", 0, "raw")[0]) == MOST_BYTES - 1


def test_a_chunk_moves_down_the_log() -> None:
    """A text is cut before the writer knows how many lines the log has by then."""
    text = "x\n" * 1_500

    assert [
        Chunk(chunk.first_line + 40, chunk.last_line + 40, chunk.content, chunk.compressed)
        for chunk in split(text, 0, "gz")
    ] == split(text, 40, "gz")


def test_null_is_the_empty_text() -> None:
    """The column may be null, and then there is an empty line."""
    assert text_of(0, None) == b""
    assert lines([Chunk(3, 3, None, 0)], 0, 9) == b"\n"


def test_a_window_inside_a_damaged_chunk_is_an_error() -> None:
    """A reader is told that a piece is damaged, and never given a log with a hole."""
    with pytest.raises(CorruptChunk):
        lines([Chunk(0, 9, b"no zlib stream", 1)], 2, 3)


def test_a_chunk_with_fewer_lines_than_it_says_gives_what_it_has() -> None:
    """Numbers that promise too much don't make up lines."""
    short = Chunk(0, 9, b"one\ntwo", 0)

    assert lines([short], 0, 9) == b"one\ntwo\n"
    assert lines([short], 1, 5) == b"two\n"
    assert lines([short], 2, 5) == b""


def test_neighbours_merge_up_to_the_limits() -> None:
    """Stored sizes and lines of a run stay within a chunk's; what stays alone is left alone."""
    by_size = [(0, 0, 40_000), (1, 1, 25_536), (2, 2, 1), (3, 3, 65_536), (4, 4, 1)]
    by_lines = [(0, 499, 10), (500, 999, 10), (1_000, 1_000, 10)]

    assert mergeable(by_size) == [(0, 1)]
    assert mergeable(by_lines) == [(0, 999)]
    assert mergeable([]) == []


def test_a_hole_is_not_merged_away() -> None:
    """Chunks that don't follow each other keep their own line numbers."""
    assert mergeable([(0, 1, 5), (2, 3, 5), (5, 6, 5), (7, 8, 5)]) == [(0, 3), (5, 8)]


@given(text=texts, each=st.integers(1, 7))
def test_merging_changes_no_line(text: str, each: int) -> None:
    """After compressLog a log has fewer chunks and the same text."""
    chunks = pieces(text, each=each)
    sizes = [(chunk.first_line, chunk.last_line, len(chunk.content or b"")) for chunk in chunks]

    for first, last in mergeable(sizes):
        run = [chunk for chunk in chunks if first <= chunk.first_line <= last]
        whole = merged(run, "gz")
        assert (whole.first_line, whole.last_line) == (first, last)
        assert lines([whole], first, last) == lines(run, first, last)


def test_merging_compresses_what_was_too_short_before() -> None:
    """Lines that came one at a time are small only together."""
    chunks = pieces("".join(f"ostep {number}\n" for number in range(500)), each=1)

    assert {chunk.compressed for chunk in chunks} == {0}
    assert merged(chunks, "gz").compressed == METHODS["gz"].number
