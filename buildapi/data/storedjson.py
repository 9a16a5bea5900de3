"""
JSON as a database has it: text that other programs wrote, too.

Python's own writer makes NaN and Infinity; a column that was too narrow cut a text in two; SQLite
keeps anything.  What is answered is JSON in any case.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

import orjson

# Dashboards ask for the same rows again and again: short texts are remembered, and some that are
# long, as all properties of a build; together at most some 16 MB.
SHORT, LONG = 1024, 16 * 1024


def valid_json(stored: Any, otherwise: str = "null") -> str:
    """
    Return stored JSON text as JSON: NaN and Infinity as null, ``otherwise`` for what is no JSON.
    """
    text = stored if type(stored) is str else shown_text(stored)
    if len(text) <= SHORT:
        return _short(text, otherwise)
    return _long(text, otherwise) if len(text) <= LONG else _valid(text, otherwise)


def _valid(text: str, otherwise: str) -> str:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _mended(text, otherwise)
    return text


_short = lru_cache(maxsize=8192)(_valid)
_long = lru_cache(maxsize=512)(_valid)


def _mended(text: str, otherwise: str) -> str:
    try:
        return json.dumps(json.loads(text, parse_constant=lambda _: None, parse_float=_finite))
    except (ValueError, RecursionError):
        return otherwise


def _finite(text: str) -> float | None:
    number = float(text)
    return None if math.isinf(number) else number


def shown_text(value: Any) -> str:
    """Return what SQLite has where a text should be as one: bytes, as it happens, or a number."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def in_one_line(value: Any) -> bytes:
    """Return a value as compact JSON."""
    try:
        return orjson.dumps(value, shown_text)
    except orjson.JSONEncodeError:
        # A property may be an integer beyond 64 bits, or text that is half a character.
        return json.dumps(plain(value), separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """Return a value as JSON can say it, numbers of any size included: infinity is null."""
    return json.loads(json.dumps(value, default=shown_text), parse_constant=lambda _: None)
