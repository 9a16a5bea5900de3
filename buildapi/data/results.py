"""Result codes, and which of several counts."""

from __future__ import annotations

from collections.abc import Iterable

SUCCESS, WARNINGS, FAILURE, SKIPPED, EXCEPTION, RETRY, CANCELLED = range(7)

_FROM_BEST_TO_WORST = (SKIPPED, SUCCESS, WARNINGS, FAILURE, EXCEPTION, RETRY, CANCELLED)


def worst(results: Iterable[int | None]) -> int:
    """
    Return the worst of several results, SUCCESS if there is none.

    From best to worst: skipped, success, warnings, failure, exception, retry, cancelled.
    """
    found = SUCCESS
    for result in results:
        if result in _FROM_BEST_TO_WORST:
            found = max(found, result, key=_FROM_BEST_TO_WORST.index)
    return found
