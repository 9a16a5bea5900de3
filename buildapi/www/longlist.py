"""A long list on its way: as it was read, with what stands around it, and compressed if need be."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.web.http_headers import Headers

from buildapi.db.connect import Reader
from buildapi.www.download import Body


class ListBody(Body):
    """A list that waits in a file.  pieces: made one after the other, where downloads are."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def find(self, reader: Reader) -> None:
        """Nothing is left to be found: it has been read."""

    def following(self, reader: Reader) -> bytes:  # noqa: ARG002  the database has done its part
        """Make the next piece; the last is empty."""
        piece = next(self._pieces, None)
        self.ended = piece is None
        return piece or b""

    def describe(self, headers: Headers) -> None:
        """All headers are there: they were known before the body."""
