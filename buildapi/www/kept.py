"""
Answers that are given again as they are, as long as nothing they show has changed.

Dashboards ask for the same lists, all of them, over and over, and between two changes of a table
each answer is the one before.  What is kept is bounded by its size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

# What an answer takes beside its body: its key, with path and query, and the tables it is in.
OVERHEAD = 1024


class Answer(NamedTuple):
    """A body as it is sent, and the number of all rows that match."""

    body: bytes
    total: int


class Kept:
    """The answers that were wanted last.  most_bytes: the memory that they may take together."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._answers: OrderedDict[Hashable, tuple[int | None, Answer]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable, version: int | None) -> Answer | None:
        """Return the answer to a request, if it is kept and of this version."""
        found = self._answers.get(key)
        if found is None or found[0] != version:
            return None
        self._answers.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, version: int | None, answer: Answer) -> None:
        """Keep an answer, in place of an older one to the same request."""
        self._drop(self._answers.pop(key, None))
        self._answers[key] = (version, answer)
        self.bytes += _size(answer)
        while self.bytes > self._most_bytes:
            self._drop(self._answers.popitem(last=False)[1])

    def _drop(self, found: tuple[int | None, Answer] | None) -> None:
        if found is not None:
            self.bytes -= _size(found[1])


def _size(answer: Answer) -> int:
    return len(answer.body) + OVERHEAD
