"""What is known of a build: its properties, and the environment made from them (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Properties = Mapping[str, tuple[Any, str]]
"""Value and source by name."""


def of_source(sourcestamp: Mapping[str, Any]) -> Properties:
    """Return the properties that say what is built."""
    names = ("branch", "revision", "repository", "codebase", "project")
    return {name: (sourcestamp[name] or None, "Build") for name in names}


def environment(properties: Properties) -> dict[str, str]:
    """
    Return properties as variables for a build's commands.

    A value that somebody typed into a form is never made part of a command's text.

    >>> environment({"revision": ("08f0dd", "Build"), "with-docs": (True, "Force Build Form")})
    {'BUILD_REVISION': '08f0dd', 'BUILD_WITH_DOCS': 'true'}
    """
    return {
        f"BUILD_{re.sub(r'[^A-Z0-9]', '_', name.upper())}": _text(value)
        for name, (value, _source) in properties.items()
        if value is not None
    }


def _text(value: Any) -> str:
    # An environment can't hold a zero byte.
    return (value if isinstance(value, str) else json.dumps(value)).replace("\0", "")
