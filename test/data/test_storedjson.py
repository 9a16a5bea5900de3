"""Stored JSON is shown as JSON, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.storedjson import LONG, SHORT, shown_text, valid_json


def strictly(text: str) -> Any:
    """Return the value of a JSON text; fail on what only Python takes for one."""
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ('{"a": [1, null, "x"]}', {"a": [1, None, "x"]}),
        ("NaN", None),
        ('[-Infinity, {"a": NaN}, 1e999, 0.5]', [None, {"a": None}, None, 0.5]),
        ('["NaN"]', ["NaN"]),
        ("9" * 40, int("9" * 40)),
        ('"\\ud800"', "\ud800"),
        ("[" * 5_000 + "]" * 5_000, None),
        ("9" * 5_000, None),
        ("{broken", None),
        ("", None),
        ("[1, ", None),
        (b'["\xff"]', ["\ufffd"]),
        (7, 7),
        (1.5, 1.5),
    ],
)
def test_a_stored_text_is_shown_as_json(stored: Any, shown: Any) -> None:
    """What has no meaning in JSON is null; the rest is untouched."""
    assert strictly(valid_json(stored)) == shown


def test_a_list_that_is_none_is_empty() -> None:
    """A client that walks through it goes on."""
    assert valid_json("[1, ", "[]") == "[]"
    assert valid_json("[1, ", "{}") == "{}"


@given(st.text())
def test_any_text_gives_json(text: str) -> None:
    """Short and long ones, which are remembered, and longer ones, which are not."""
    for stored in (text, text + " " * SHORT, text + " " * LONG):
        strictly(valid_json(stored))


def test_bytes_are_shown_as_text() -> None:
    """As far as they are some."""
    assert shown_text(b"a\xff\x00") == "a\ufffd\x00"
    assert shown_text(7) == "7"
