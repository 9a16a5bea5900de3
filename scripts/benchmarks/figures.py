"""Small sums over measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest value that is not exceeded by ``share`` of all; 0 if there are none.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([], 0.99)
    (2, 0.0)
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, of two the lower."""
    return percentile(values, 0.5)
