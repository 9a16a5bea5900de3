"""The whole text of a log, as a download."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from buildapi.data.fetch import Ask
from buildapi.data.logchunks import RawLog, part, raw_log
from buildapi.data.longlines import PIECE_BYTES, LongLine
from buildapi.db.connect import Reader
from buildapi.errors import CorruptChunk, LineTooLong
from buildapi.www.download import Body
from buildapi.www.encoding import Coding, compressor


class LogBody(Body):
    """The lines of a log, compressed if a coding is given."""

    def __init__(self, ask: Ask, coding: Coding | None) -> None:
        self._ask = ask
        self._coding = coding
        self._compressor = None if coding is None else compressor(coding)
        self._next = 0
        # A line that is sent piece by piece, and whether nothing of it has been sent yet.
        self._long: LongLine | None = None
        self._long_begins = True

    def find(self, reader: Reader) -> None:
        """Find the log, or raise NoSuchResource."""
        match = self._ask.match
        self._log = raw_log(reader, match.route.pattern, match.bound, self._ask.restriction)

    def following(self, reader: Reader) -> bytes:
        """Make some lines; CorruptChunk if there should be more than there are."""
        log = self._log
        if self._long is not None:
            return self._compressed(self._long_piece(reader))
        try:
            found = part(reader, log.logid, self._next, log.num_lines, longest=PIECE_BYTES)
        except LineTooLong:
            self._long = LongLine(log.logid, self._next)
            return self._compressed(log.heading if self._next == 0 else b"")
        # House-keeping empties old logs, and leaves the number of their lines.
        if found.missing and found.next > 0:
            raise CorruptChunk(f"lines of log {log.logid} are missing")
        text = log.shown(found.text)
        if self._next == 0:
            text = log.heading + text
        self._next = found.next
        self.ended = found.missing > 0 or found.next >= log.num_lines
        return self._compressed(text)

    def _long_piece(self, reader: Reader) -> bytes:
        assert self._long is not None  # noqa: S101  it is being read
        piece = self._long.following(reader)
        if self._long_begins and self._log.type == "s" and piece[:1] != b"\n":
            shown = piece[1:]
        else:
            shown = piece
        self._long_begins = False
        if not piece:
            self._long, self._long_begins = None, True
            self._next += 1
            self.ended = self._next >= self._log.num_lines
        return shown

    def _compressed(self, text: bytes) -> bytes:
        if self._compressor is None:
            return text
        piece = self._compressor.feed(text)
        return piece + self._compressor.finish() if self.ended else piece

    def describe(self, headers: Headers) -> None:
        """Say that it is text, whose it is, and how it is compressed."""
        headers.addRawHeader(b"vary", b"accept-encoding")
        if self._coding is not None:
            headers.setRawHeaders(b"content-encoding", [self._coding.encode()])
        describe_log(headers, self._log, attached=self._ask.match.route.kind == "raw")


def describe_log(headers: Headers, log: RawLog, *, attached: bool) -> None:
    """Say what a raw log is.  attached: whether it is to be kept as a file."""
    headers.setRawHeaders(b"content-type", [log.content_type])
    headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
    if log.type == "h":
        # What a build prints must never act as a page of ours.
        headers.setRawHeaders(b"content-security-policy", [b"sandbox"])
    if attached:
        disposition = f"attachment; filename={log.filename}".encode()
        headers.setRawHeaders(b"content-disposition", [disposition])
