"""How often values were how large: cheap to fill, from any one thread."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate


class Histogram:
    """
    Counts of values by upper bounds, which must be in order; ``total`` is their sum.

    >>> sizes = Histogram((1, 10))
    >>> for size in (1, 4, 5, 50):
    ...     sizes.observe(size)
    >>> list(sizes.cumulative()), sizes.total
    ([(1, 1), (10, 3), (inf, 4)], 60)
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.total: float = 0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Give each bound with the number of values that are no larger, at last all of them."""
        return zip((*self.bounds, float("inf")), accumulate(self._counts), strict=True)

    def merged(self, other: Histogram) -> Histogram:
        """Return what counts the values of both."""
        sum_of_both = Histogram(self.bounds)
        sum_of_both.total = self.total + other.total
        pairs = zip(self._counts, other._counts, strict=True)
        sum_of_both._counts = [one + two for one, two in pairs]
        return sum_of_both
