"""Pages: the cap on lists, and the query string that asks for what comes behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.builds import Build
from buildapi.data.pages import Page, capped, page
from buildapi.data.query import EVERYTHING, Query, arguments, parse_text


def following(text: str, most: int = 0) -> str | None:
    """The query string behind that of builds, with a cap of ``most``."""
    asked = parse_text(Build, text, single=False)
    found = page(text, capped(asked, most), capped=asked.limit is None)
    return found.following if found else None


@pytest.mark.parametrize(("most", "limit"), [(0, None), (5, 5)])
def test_a_cap_is_for_who_gives_no_limit(most: int, limit: int | None) -> None:
    """Zero is none; whoever gives one gets it."""
    assert capped(EVERYTHING, most).limit == limit
    assert capped(Query(limit=100), most).limit == 100
    assert capped(Query(limit=0), most).limit == 0


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("limit=2", "limit=2&offset=2"),
        ("offset=3&limit=2&order=-number", "order=-number&limit=2&offset=5"),
        ("limit=%202&limit=9&offset=1_0", "limit=2&offset=12"),
        ("limit=2&nothing", "limit=2&offset=2"),
        ("%6Cimit=2", "limit=2&offset=2"),
    ],
)
def test_what_comes_behind_begins_where_this_ends(text: str, behind: str) -> None:
    """Window arguments are replaced, however they were written; others stay."""
    assert following(text) == behind


@pytest.mark.parametrize("text", ["limit=0", "limit=0&offset=5", ""])
def test_nothing_comes_behind_no_page(text: str) -> None:
    """To follow an empty page would never end."""
    assert following(text) is None


def test_a_capped_page_leads_to_a_capped_page() -> None:
    """It says so of itself, and asks for no limit."""
    asked = parse_text(Build, "offset=5", single=False)

    assert page("offset=5", capped(asked, 3), capped=True) == Page(True, "offset=8")


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_stays_what_it_is(values: list[str]) -> None:
    """Signs of URLs, other alphabets, text that is no UTF-8."""
    texts = [value.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for value in values]
    quoted = "&".join(f"state_string={t}" for t in map(_quoted, texts))

    behind = following(f"{quoted}&limit=1")

    assert behind is not None
    assert behind.isascii()
    assert not set(behind) & set(' <>"#')
    assert arguments(behind)["state_string"] == texts


def test_bytes_that_are_no_text_are_quoted_again() -> None:
    """As they came."""
    assert following("state_string=%FF&limit=1") == "state_string=%FF&limit=1&offset=1"


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
