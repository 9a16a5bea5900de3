"""Whole lines out of whatever a process writes."""

from hypothesis import given
from hypothesis import strategies as st

from contrib.localmaster.lines import MAX_LINE, LineSplitter, header


def split(pieces: list[bytes], prefix: str = "o") -> str:
    """Everything that a splitter makes of the pieces."""
    splitter = LineSplitter(prefix)
    return "".join([splitter.feed(piece) for piece in pieces]) + splitter.end()


def test_only_whole_lines_are_handed_out() -> None:
    """A line waits until its newline has come."""
    splitter = LineSplitter("o")

    assert splitter.feed(b"one\ntwo") == "oone\n"
    assert splitter.feed(b" and a half") == ""
    assert splitter.feed(b"\n\n") == "otwo and a half\no\n"
    assert splitter.end() == ""


def test_a_partial_last_line_gets_its_newline_at_the_end() -> None:
    """What follows the last newline isn't lost."""
    assert split([b"one\ntwo"]) == "oone\notwo\n"


def test_all_three_line_ends_mean_the_same() -> None:
    """DOS line ends and lone carriage returns are newlines, also when cut in two."""
    assert split([b"a\r\nb\rc\n", b"d\r", b"\ne"]) == "oa\nob\noc\nod\noe\n"


def test_invalid_utf8_is_replaced() -> None:
    """A character cut in two is whole again; what is no character becomes U+FFFD."""
    assert split(["é".encode()[:1], "é".encode()[1:] + b"\xff\n\xc3"]) == "oé\ufffd\no\ufffd\n"


def test_other_separators_stay_in_their_line() -> None:
    """Only newlines end a line of a log."""
    text = "a\x0bb\x0cc\x85d\u2028e"

    assert split([text.encode()]) == f"o{text}\n"


def test_a_line_without_end_costs_no_memory() -> None:
    """A very long line goes on in the next one; nothing of it is lost."""
    lines = split([b"x" * 10_000] * 20, prefix="").splitlines()

    assert max(map(len, lines)) == MAX_LINE
    assert "".join(lines) == "x" * 200_000


@given(st.text(st.sampled_from("ab\r\né☃"), max_size=40), st.data())
def test_where_it_is_cut_does_not_matter(text: str, data: st.DataObject) -> None:
    """The same bytes give the same lines, in whichever pieces they come."""
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert split(pieces) == split([whole])


def test_headers_are_lines_too() -> None:
    """Each line of a header is marked as one."""
    assert header("one\ntwo") == "hone\nhtwo\n"
