"""Which requests were answered, how, and how quickly: counted in less than a microsecond each."""

from __future__ import annotations

from buildapi.histogram import Histogram

# Upper bounds of durations that are counted together.
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0)

# The beginnings of paths that are no pattern of the data API; there are not to be more routes than
# we have, whatever clients ask for.
_BEGINNINGS = frozenset((b"api", b"ws", b"sse", b"docs", b"metrics", b"healthz", b"readyz"))
_OTHER = "other"


class Tally:
    """The requests of one server."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Histogram] = {}

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = (route, status)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = Histogram(BOUNDS_S)
        found.observe(seconds)

    def answered(self) -> dict[tuple[str, ...], float]:
        """Return how many requests each route answered with each status."""
        numbers: dict[tuple[str, ...], float] = {}
        for (route, status), histogram in self._seen.items():
            *_, (_, number) = histogram.cumulative()
            numbers[route, str(status)] = float(number)
        return numbers

    def durations(self) -> dict[tuple[str, ...], Histogram]:
        """Return how long each route took."""
        merged: dict[tuple[str, ...], Histogram] = {}
        for (route, _), histogram in self._seen.items():
            merged[route,] = merged.get((route,), Histogram(BOUNDS_S)).merged(histogram)
        return merged


def beginning(path: bytes) -> str:
    """
    Return the route of a request that no pattern of the data API took.

    >>> beginning(b"/sse/listen/builds"), beginning(b"/wp-login.php")
    ('/sse', 'other')
    """
    word = path.split(b"/", 2)[1] if path.startswith(b"/") else b""
    return f"/{word.decode()}" if word in _BEGINNINGS else _OTHER
