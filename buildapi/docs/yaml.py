"""YAML of plain values: mappings, lists, texts, numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# A key that means itself, whatever YAML takes yes, no, 1.5 or ~ for.
_PLAIN_KEY = re.compile(r"/?[a-zA-Z_{][a-zA-Z0-9_{}./-]*|/")
_NOT_TEXT = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))


def lines(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines of a block; a text is written as in JSON, which YAML reads as well."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield f"{indent}{_key(key)}:"
            yield from lines(inner, indent + "  ")
        else:
            yield f"{indent}{_key(key)}: {json.dumps(inner, ensure_ascii=False)}"


def _key(name: str) -> str:
    plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _NOT_TEXT and name[0] != "{"
    return name if plain else json.dumps(name, ensure_ascii=False)
