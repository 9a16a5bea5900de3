"""What is wanted of a log's lines: patterns, context, streams, and places to go on from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.loglines import EVERY_LINE, Growth, Lines, Place, Selection, growth, selection
from buildapi.errors import BadRequest, NoSuchResource
from buildapi.service import BuildAPI
from buildapi.settings import Limits
from buildapi.testing import a_log, in_memory_api, result_of


def select(grep: str | None = None, context: int = 0, streams: str | None = None) -> Selection:
    """Return a selection with the default limits."""
    return selection(grep, context, streams, Limits())


def read(
    api: BuildAPI, wanted: Selection, offset: int = 0, most_bytes: int = 100, logid: int = 1
) -> Iterator[Lines]:
    """Read all that there is."""
    place: Place | None = None
    while True:
        step = partial(growth, logid=logid, place=place, offset=offset)
        reading = partial(step, wanted=wanted, most_bytes=most_bytes)
        found: Growth = result_of(api.database.read(reading))
        place = found.place
        if found.lines is not None:
            yield found.lines
        if found.at_end:
            return


def numbers(api: BuildAPI, wanted: Selection, offset: int = 0) -> list[int]:
    """Return which lines are wanted."""
    return [n for lines in read(api, wanted, offset) for n in lines.numbers or ()]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b", [1, 4]),
        ("^b", [1, 4]),
        ("^b$", [1]),
        (r"\Ab\z", [1]),
        ("^$", [2]),
        (r"\s", [4]),
        ("[^x]", [0, 1, 3, 4]),
        ("a.*b", []),
        ("(?s)a.*b", []),
        ("(?-m)^b$", [1]),
        ("(?i)A", [0]),
        ("☃", [3]),
        ("^.$", [0, 1, 3]),
        ("", [0, 1, 2, 3, 4]),
        ("nothing", []),
    ],
)
@pytest.mark.parametrize("kind", ["t", "s"])
def test_each_line_is_searched_for_itself(pattern: str, expected: list[int], kind: str) -> None:
    """No match goes beyond a line, and the letter of a stream is no part of it."""
    lines = ["a", "b", "", "☃", "b c"]
    text = "".join(f"{'o' if kind == 's' else ''}{line}\n" for line in lines)

    assert select(pattern).matches(text.encode(), kind) == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("(",), "grep"),
        (("[",), "grep"),
        ((r"(a)\1",), "grep"),
        (("x" * 1001,), "grep"),
        (("((a{100}){100}){100}",), "grep"),
        (("(?:a{1000}){100}" * 10,), "grep"),
        (("\ud800",), "grep"),
        ((None, 1), "context"),
        (("x", -1), "context"),
        (("x", 101), "context"),
        ((None, 0, ""), "streams"),
        ((None, 0, "x"), "streams"),
        ((None, 0, "oex"), "streams"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: Any, named: str) -> None:
    """With the name of the argument, and for a pattern the reason."""
    with pytest.raises(BadRequest, match=f"^{named}: "):
        select(*arguments)


def test_a_pattern_takes_the_memory_that_a_setting_allows() -> None:
    """The same pattern is taken or refused."""
    pattern = r"\pL{100}"

    with pytest.raises(BadRequest, match="too large"):
        selection(pattern, 0, None, Limits(grep_memory_bytes=65_536))
    assert selection(pattern, 0, None, Limits(grep_memory_bytes=2**24))


def test_a_hostile_pattern_takes_linear_time() -> None:
    """Where backtracking would take longer than the universe is old."""
    text = b"a" * 20_000 + b"\n"

    assert select("(a*)*(a|aa)+(a?){50}b$").matches(text, "t") == []


def test_streams_are_chosen_by_their_letters(api: BuildAPI) -> None:
    """Only in a log of type s; other lines are neither searched nor context."""
    result_of(a_log(api, "oa\neb\nha\noa\neb\n", kind="s"))
    result_of(a_log(api, "oa\neb\n", kind="t", stepid=1, name="text"))

    assert numbers(api, select(streams="e")) == [1, 4]
    assert numbers(api, select(streams="oh")) == [0, 2, 3]
    assert numbers(api, select("a", 0, "h")) == [2]
    assert numbers(api, select("a", 1, "he")) == [1, 2]
    assert [lines.content for lines in read(api, select(streams="e"))] == ["eb\neb\n"]
    (text,) = read(api, select(streams="e"), logid=2)
    assert text.content == "oa\neb\n"


def test_what_was_not_wanted_is_passed_over_now_and_then(api: BuildAPI) -> None:
    """A frame without lines moves a client on, so that it need not begin anew."""
    result_of(a_log(api, "x\n" * 25_000))

    (lines,) = read(api, select("y"))

    assert (lines.numbers, lines.first, lines.next) == ((), 0, 25_000)


def test_a_deleted_log_is_not_found(api: BuildAPI) -> None:
    """Whoever reads on hears of it."""
    with pytest.raises(NoSuchResource):
        list(read(api, EVERY_LINE))


def test_lines_are_split_between_lines_only() -> None:
    """Each part is told as the whole would be."""
    whole = Lines(1, "t", 5, 9, b"a\nbbbbbbbb\nc\nd\n")

    parts = list(whole.split(4))

    assert [(part.first, part.next, part.text) for part in parts] == [
        (5, 6, b"a\n"),
        (6, 7, b"bbbbbbbb\n"),
        (7, 9, b"c\nd\n"),
    ]


lines_of_text = st.lists(st.sampled_from(["x", "a", "", "b", "bb"]), min_size=1, max_size=8)


@given(
    st.sampled_from(["^x", "a$", "^$", "x"]),
    st.sampled_from([0, 1, 2, 5]),
    st.lists(
        st.tuples(lines_of_text, st.booleans(), st.booleans(), st.sampled_from([1, 5, 100])),
        min_size=1,
        max_size=15,
    ),
)
def test_whoever_resumes_has_every_wanted_line_once(
    grep: str, context: int, happenings: list[tuple[list[str], bool, bool, int]]
) -> None:
    """Wherever it was interrupted, and however the log is cut: as if it had been read at once."""
    api = in_memory_api()
    result_of(a_log(api))
    wanted = select(grep, context)
    lines: list[str] = []
    got: list[int] = []
    told = 0
    for new, compress, look, most_bytes in [*happenings, (["end"], False, True, 100)]:
        lines += new
        result_of(api.data.updates.appendLog(1, "".join(f"{line}\n" for line in new)))
        if compress:
            result_of(api.data.updates.compressLog(1))
        if not look:
            continue
        for found in read(api, wanted, told, most_bytes):
            for part in found.split(most_bytes):
                assert part.first == told
                told = part.next
                assert all(part.first <= number < told for number in part.numbers or ())
                got += part.numbers or ()

    matches = [n for n, line in enumerate(lines) if re.search(grep, line)]
    around = {m + d for m in matches for d in range(-context, context + 1)}
    assert got == sorted(around & set(range(len(lines))))
    assert all(a < b for a, b in pairwise(got))
