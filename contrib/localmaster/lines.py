"""What a process writes, turned into whole lines of a log (pure)."""

from __future__ import annotations

import codecs
import io

# One stored line may have 65,536 bytes. What goes on without a newline goes on in the next line,
# so that a program which never ends its line costs neither memory nor its output.
MAX_LINE = 60_000


class LineSplitter:
    r"""
    Turn the bytes of one stream into whole lines.

    prefix: put before each line; a log of type ``s`` wants ``o``, ``e`` or ``h``.
    ``\r\n`` and ``\r`` become ``\n``, bytes that aren't UTF-8 become U+FFFD, wherever the pieces
    happen to be cut.

    >>> splitter = LineSplitter("o")
    >>> splitter.feed(b"one\r\ntw")
    'oone\n'
    >>> splitter.end()
    'otw\n'
    """

    def __init__(self, prefix: str = "") -> None:
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        self._prefix = prefix
        self._partial = ""

    def feed(self, data: bytes) -> str:
        """Return the lines that ``data`` completes, each with its newline; maybe an empty text."""
        return self._take(self._decoder.decode(data))

    def end(self) -> str:
        """Return what is left after the last newline, as a line."""
        text = self._take(self._decoder.decode(b"", final=True))
        if self._partial:
            text += f"{self._prefix}{self._partial}\n"
            self._partial = ""
        return text

    def _take(self, text: str) -> str:
        *lines, self._partial = (self._partial + text).split("\n")
        while len(self._partial) > MAX_LINE:
            lines.append(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        return "".join(f"{self._prefix}{line}\n" for line in lines)


def header(text: str) -> str:
    """Return ``text`` as header lines of a log of type ``s``."""
    return "".join(f"h{line}\n" for line in text.split("\n"))
