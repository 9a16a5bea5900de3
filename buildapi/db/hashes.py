"""
Names and the columns made from them: hashes, slugs, suffixes, shortened texts (pure).

A text of any length can't be unique in every database, but its sha1 can: ``name_hash`` and
``ss_hash`` are what rows are found by.  The other programs that use the database compute the same.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from hashlib import sha1
from itertools import count

# The longest step name, log slug and worker name.
MOST_CHARACTERS = 50

_NOT_OF_AN_IDENTIFIER = re.compile(r"^[0-9]|[^a-zA-Z0-9_-]")


def name_hash(name: str) -> str:
    """
    The ``name_hash`` of a builder, scheduler, change source, master, project, tag or codebase.

    >>> name_hash("child-1")
    '2c4209cb073d9d73063b7199b2ec5077f8a0ae68'
    """
    return _sha1(name.encode())


def ss_hash(
    *,
    branch: str | None,
    revision: str | None,
    repository: str,
    project: str,
    codebase: str,
    patchid: int | None,
) -> str:
    """
    What makes a source stamp the same as another.

    Each added patch is a row of its own, so two patched source stamps never have the same hash.
    """
    # 0xF5 never occurs in UTF-8: null is not the empty text.
    parts = (branch, revision, repository, project, codebase, patchid)
    return _sha1(b"\0".join(b"\xf5" if part is None else str(part).encode() for part in parts))


def _sha1(data: bytes) -> str:
    return sha1(data, usedforsecurity=False).hexdigest()


def identifier(name: str) -> str:
    """
    A log's name as its slug: what can stand in a URL, and at most 50 characters of it.

    >>> identifier("report.html"), identifier("123numeric")
    ('report_html', '_23numeric')
    """
    # The empty name too gets a slug that a URL can hold.
    return _NOT_OF_AN_IDENTIFIER.sub("_", name[:MOST_CHARACTERS]) or "_"


def free_slug(name: str, taken: Container[str]) -> str:
    """
    The slug of a new log: ``stdio``, or ``stdio_2``, ``stdio_3``, … if the step has that already.

    taken: the slugs of the step's logs.
    """
    return _free(identifier(name), taken, count(2))


def free_step_name(name: str, taken: Container[str]) -> str:
    """
    The name of a new step: ``compile``, or ``compile_1``, ``compile_2``, … if the build has it.

    taken: the names of the build's steps.  Of a longer name the first 50 characters are used.
    """
    return _free(name[:MOST_CHARACTERS], taken, count(1))


def _free(wanted: str, taken: Container[str], numbers: Iterator[int]) -> str:
    """The wanted name, or its start with the first number that makes it a free one."""
    name = wanted
    while name in taken:
        suffix = f"_{next(numbers)}"
        name = wanted[: MOST_CHARACTERS - len(suffix)] + suffix
    return name


def shortened(text: str, longest: int) -> str:
    """
    A text that fits into a column: the whole, or its first half and as much of its sha1.

    longest: the column's length.  Two long texts with the same beginning stay different.
    """
    if len(text) <= longest:
        return text
    half = longest // 2
    return text[:half] + _sha1(text.encode())[:half]
