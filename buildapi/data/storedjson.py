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

# Longer texts are not remembered: what is repeated is short.
LONGEST_REMEMBERED = 1024


def valid_json(stored: Any, otherwise: str = "null") -> str:
    """
    Return stored JSON text as JSON: NaN and Infinity as null, ``otherwise`` for what is no JSON.
    """
    text = stored if type(stored) is str else shown_text(stored)
    if len(text) > LONGEST_REMEMBERED:
        return _valid(text, otherwise)
    # A dashboard asks for the same rows again and again.
    return _remembered(text, otherwise)


def _valid(text: str, otherwise: str) -> str:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _mended(text, otherwise)
    return text


_remembered = lru_cache(maxsize=8192)(_valid)


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
