"""The bytes of build data, as a download."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from buildapi.data.builddata import value_of, value_piece
from buildapi.data.fetch import Ask
from buildapi.db.connect import Reader
from buildapi.www import envelope
from buildapi.www.download import Body

PIECE_BYTES = 256 * 1024
# To find a place in a large value a database may have to read all before it: not too often.  It
# costs memory: a value of 1 GB is sent in pieces of 32 MB.
MOST_PIECES = 32


class ValueBody(Body):
    """
    The value of build data: never compressed, since it mostly is, and its length is worth more.

    logged: whether the event log tells of every change.
    """

    def __init__(self, ask: Ask, *, logged: bool) -> None:
        self._ask = ask
        self._logged = logged
        self._made = 0

    def find(self, reader: Reader) -> None:
        """Find the value, or raise NoSuchResource."""
        match, restriction = self._ask.match, self._ask.restriction
        with reader.snapshot():
            self._value = value_of(
                reader, match.route.pattern, match.bound, restriction, logged=self._logged
            )
        self.length = self._value.size

    def following(self, reader: Reader) -> bytes:
        """Make some bytes; Conflict if they are of another value by now."""
        size = max(PIECE_BYTES, self._value.size // MOST_PIECES)
        with reader.snapshot():
            piece = value_piece(reader, self._value, self._made, size)
        self._made += len(piece)
        self.ended = self._made == self._value.size
        return piece

    def describe(self, headers: Headers) -> None:
        """Say that it is bytes, to be kept under the name of the data."""
        headers.setRawHeaders(b"content-type", [envelope.BYTES])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        disposition = f"attachment; filename={self._ask.match.bound['name']}".encode()
        headers.setRawHeaders(b"content-disposition", [disposition])
