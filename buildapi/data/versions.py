"""
Which state of the database an answer shows, told without asking the database.

Every delivered batch has a number, and for each table it is known which batch changed it last. Two
answers that depend on the same tables at the same numbers are the same. The numbers begin anew with
each process, and mean something only where nobody else writes.
"""

from __future__ import annotations

from collections.abc import Iterable


class Versions:
    """The number of the batch that last changed each table."""

    def __init__(self) -> None:
        self._batch = 0
        self._changed: dict[str, int] = {}
        # What has been asked since the last batch: pollers ask for the same again and again.
        self._known: dict[frozenset[str], int] = {}

    def changed(self, tables: Iterable[str]) -> None:
        """Take note that one batch more changed these tables."""
        # Not by the position of the event log: a batch without events would leave no mark.
        self._batch += 1
        for table in tables:
            self._changed[table] = self._batch
        self._known.clear()

    def newest(self, tables: frozenset[str]) -> int:
        """Return the number of the last batch that changed one of these; 0: none has."""
        known = self._known.get(tables)
        if known is None:
            known = max((self._changed.get(table, 0) for table in tables), default=0)
            self._known[tables] = known
        return known
