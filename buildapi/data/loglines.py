"""
What somebody wants of a log's lines, and reading that from a place on, as the log grows.

A place is all that a follower has to remember: three numbers. With ``grep`` some lines before it
are undecided: they are wanted if a match follows soon. They are not kept, but read again then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson
import re2
import sqlalchemy as sa

from buildapi.data.gate import Scope
from buildapi.data.logchunks import PART_BYTES, part, texts, without_letters
from buildapi.db.connect import Reader
from buildapi.db.tables import builders, builds, logs, steps
from buildapi.errors import BadRequest, LineTooLong, NoSuchResource
from buildapi.settings import Limits

# How much is searched in one read, if nothing is found: so long a follower can't be stopped.
SEARCHED_BYTES = 16 * PART_BYTES
# After so many lines without a match a frame without lines says how far the search has come.
QUIET_LINES = 10_000

# Such a pattern may mean the beginning or the end of the whole text: each line is searched alone.
_ABOUT_TEXT = re.compile(r"\\[AzZ]|\(\?[A-Za-z]*-")

_EXTENT = sa.select(logs.c.num_lines, logs.c.complete, logs.c.type).where(
    logs.c.id == sa.bindparam("logid")
)
_SCOPE = (
    sa.select(builds.c.builderid, builders.c.projectid)
    .select_from(
        logs.join(steps, steps.c.id == logs.c.stepid)
        .join(builds, builds.c.id == steps.c.buildid)
        .outerjoin(builders, builders.c.id == builds.c.builderid)
    )
    .where(logs.c.id == sa.bindparam("logid"))
)


@dataclass(frozen=True)
class Selection:
    """
    Which lines are wanted: those that ``grep`` matches, with ``context`` lines around, of these
    ``streams`` (letters; empty: of all).  A log that is not of type s has no streams.
    """

    grep: str | None = None
    context: int = 0
    streams: frozenset[bytes] = frozenset()
    pattern: Any = field(default=None, compare=False, repr=False)

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.grep is None and not self.streams

    def matches(self, text: bytes, kind: str) -> list[int]:
        """Return which of these whole lines match, counted from 0."""
        letters = self.streams if kind == "s" else frozenset[bytes]()
        if self.pattern is None:
            found: Iterator[int] = iter(range(text.count(b"\n")))
        else:
            plain = without_letters(text) if kind == "s" else text
            search = self._by_line if _ABOUT_TEXT.search(self.grep or "") else self._at_once
            found = search(plain)
        if not letters:
            return list(found)
        lines = text.split(b"\n")
        return [i for i in found if lines[i][:1] in letters]

    def _at_once(self, text: bytes) -> Iterator[int]:
        # The last newline ends a line, and begins none.
        text = text[:-1]
        at, number = 0, 0
        while at <= len(text) and (found := self.pattern.search(text, at)):
            number += text.count(b"\n", at, found.start())
            yield number
            end = text.find(b"\n", found.start())
            if end < 0:
                return
            at, number = end + 1, number + 1

    def _by_line(self, text: bytes) -> Iterator[int]:
        for number, line in enumerate(text[:-1].split(b"\n")):
            if self.pattern.search(line):
                yield number


EVERY_LINE = Selection()


def selection(grep: str | None, context: int, streams: str | None, limits: Limits) -> Selection:
    """
    Return what these arguments want; BadRequest names the one that is wrong.

    grep: an RE2 pattern, which takes time that grows with the text, whatever it is.
    """
    if grep is None and context:
        raise BadRequest("context: it means nothing without grep")
    if not 0 <= context <= limits.context_lines:
        raise BadRequest(f"context: a number from 0 to {limits.context_lines} is wanted")
    if streams is not None and not (streams and set(streams) <= set("oeh")):
        raise BadRequest("streams: letters are wanted: o output, e errors, h header")
    letters = frozenset(one.encode() for one in streams or "")
    return Selection(grep, context, letters, None if grep is None else _compiled(grep, limits))


def _compiled(grep: str, limits: Limits) -> Any:
    if len(grep) > limits.grep_characters:
        raise BadRequest(f"grep: a pattern has {limits.grep_characters} characters at most")
    options = re2.Options()
    options.max_mem = limits.grep_memory_bytes
    options.never_nl = True
    options.never_capture = True
    options.log_errors = False
    try:
        # ^ and $ are the ends of each line.
        return re2.compile(b"(?m)" + grep.encode(), options)
    except UnicodeEncodeError:
        raise BadRequest("grep: the pattern is no UTF-8") from None
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace")
        raise BadRequest(f"grep: it is no pattern that RE2 takes: {reason}") from None


@dataclass(frozen=True)
class Place:
    """
    How far a follower has come.

    told: the next line, as its client knows it: to resume there repeats nothing and loses nothing.
    seen: the next line to be looked at.  until: lines before this one follow a match closely.
    """

    told: int
    seen: int
    until: int = 0

    def undecided(self, context: int) -> int:
        """Return the first line that a match at ``seen`` would make wanted."""
        return max(self.told, self.seen - context)


@dataclass(frozen=True, eq=False)
class Lines:
    """
    Some whole lines that were wanted, of those from ``first`` up to, but without, ``next``.

    numbers: of each of them; None if they are all that there are.  They are shared by all who
    follow, and so is what is made of them.
    """

    logid: int
    kind: str
    first: int
    next: int
    text: bytes
    numbers: tuple[int, ...] | None = None
    grepped: bool = False

    @cached_property
    def members(self) -> bytes:
        """The members of a frame, as JSON without the opening brace."""
        frame = {"logid": self.logid, "first": self.first, "next": self.next}
        if self.grepped:
            texts = self.content.split("\n")
            pairs = list(zip(self.numbers or (), texts, strict=False))
            return orjson.dumps({**frame, "lines": pairs})[1:]
        return orjson.dumps({**frame, "content": self.content})[1:]

    @cached_property
    def frames(self) -> dict[bytes, bytes]:
        """What was made of it for sockets, by how it begins there."""
        return {}

    @property
    def content(self) -> str:
        """The text, as ``/contents`` has it."""
        return self.text.decode("utf-8", "replace")

    @cached_property
    def shown(self) -> bytes:
        """The text, as a raw download has it."""
        return without_letters(self.text) if self.kind == "s" else self.text

    @cached_property
    def event(self) -> bytes:
        """The frame as a server-sent event."""
        return b"id: %d\nevent: lines\ndata: {%b\n\n" % (self.next, self.members)

    def head(self, most: int) -> Lines:
        """Return the first so many of the lines."""
        if self.text.count(b"\n") <= most:
            return self
        text = self.text[: _start_of(self.text, most)]
        if self.numbers is None:
            return replace(self, next=self.first + most, text=text)
        return replace(self, next=self.numbers[most], text=text, numbers=self.numbers[:most])

    def since(self, told: int) -> Lines:
        """Return what of these somebody needs who knows of the lines before ``told``."""
        if told == self.first:
            return self
        if self.numbers is None:
            at = _start_of(self.text, told - self.first)
            return replace(self, first=told, text=self.text[at:])
        skipped = sum(number < told for number in self.numbers)
        at = _start_of(self.text, skipped)
        return replace(self, first=told, text=self.text[at:], numbers=self.numbers[skipped:])

    def split(self, most_bytes: int) -> Iterator[Lines]:
        """Return the same as several, of which only one that has a single line is longer."""
        rest = self
        while len(rest.text) > most_bytes:
            at = rest.text.rfind(b"\n", 0, most_bytes) + 1 or rest.text.index(b"\n") + 1
            if at == len(rest.text):
                break
            count = rest.text.count(b"\n", 0, at)
            end = rest.first + count if rest.numbers is None else rest.numbers[count]
            head = rest.numbers and rest.numbers[:count]
            yield replace(rest, next=end, text=rest.text[:at], numbers=head)
            tail = rest.numbers and rest.numbers[count:]
            rest = replace(rest, first=end, text=rest.text[at:], numbers=tail)
        yield rest


def _start_of(text: bytes, line: int) -> int:
    at = 0
    for _ in range(line):
        at = text.find(b"\n", at) + 1
        if at == 0:
            return len(text)
    return at


@dataclass(frozen=True)
class Growth:
    """
    What one read gave: lines, if any are wanted, and the place behind them.

    total: the number of the log's lines then; complete: whether there won't be more.
    """

    logid: int
    total: int
    complete: bool
    place: Place
    lines: Lines | None

    @property
    def at_end(self) -> bool:
        """Whether all lines that there are have been looked at."""
        return self.place.seen >= self.total


def scope(reader: Reader, logid: int) -> Scope:
    """Read what a log belongs to, by which rights are decided; NoSuchResource."""
    row = reader.first(_SCOPE, {"logid": logid})
    if row is None:
        raise NoSuchResource(f"log {logid} has been deleted")
    return Scope("log", *row)


def growth(
    reader: Reader,
    logid: int,
    place: Place | None,
    offset: int,
    wanted: Selection = EVERY_LINE,
    most_bytes: int = PART_BYTES,
    longest: int | None = None,
) -> Growth:
    """
    Read what comes next.

    place: None at the beginning, which is line ``offset``, from the end if negative.
    Raises NoSuchResource if the log has been deleted, LineTooLong if the next line has more than
    ``longest`` bytes.
    """
    row = reader.first(_EXTENT, {"logid": logid})
    if row is None:
        raise NoSuchResource(f"log {logid} has been deleted")
    total, complete, kind = row
    search = _Search(reader, logid, kind, wanted, most_bytes, longest)
    if place is None:
        first = max(0, total + offset) if offset < 0 else offset
        place = search.begin(first, total)
    found = search.all(place, total) if wanted.is_all else search.some(place, total)
    return Growth(logid, total, bool(complete), *found)


@dataclass(frozen=True)
class _Search:
    """Reading one log, with what is wanted of it."""

    reader: Reader
    logid: int
    kind: str
    wanted: Selection
    most_bytes: int
    longest: int | None

    def begin(self, first: int, total: int) -> Place:
        """Return the place of somebody who has all lines before ``first``."""
        context, until = self.wanted.context, 0
        # What follows a match is wanted though the match is not: so it is when somebody resumes.
        # Who comes back behind a line that is too long has not seen it.
        with suppress(LineTooLong):
            for number, text in self._texts(max(0, first - context), min(first, total)):
                for match in self.wanted.matches(text, self.kind):
                    until = number + match + context + 1
        return Place(first, first, until)

    def all(self, place: Place, total: int) -> tuple[Place, Lines | None]:
        """Return the next lines."""
        first = place.seen
        found = part(self.reader, self.logid, first, total, self.most_bytes, self.longest)
        if found.text:
            lines = Lines(self.logid, self.kind, first, found.next, found.text)
            return Place(found.next, found.next), lines
        # House-keeping has taken these lines away; nobody will ever get them.
        end = max(first, total)
        return Place(end, end), None

    def some(self, place: Place, total: int) -> tuple[Place, Lines | None]:
        """Return the next of the lines that are wanted."""
        begun, kept = place, _Kept()
        searched = 0
        try:
            for number, text in self._texts(place.seen, total):
                place = self._sifted(place, number, text, kept)
                searched += len(text)
                if kept.size >= self.most_bytes or searched >= SEARCHED_BYTES:
                    break
            else:
                place = Place(place.told, max(place.seen, total), place.until)
        except LineTooLong:
            # What was found before it is told first.
            if place.seen == begun.seen:
                raise
        told = place.undecided(self.wanted.context)
        if not kept.lines and told - begun.told < QUIET_LINES:
            return place, None
        lines = Lines(
            self.logid,
            self.kind,
            begun.told,
            told,
            b"".join(line + b"\n" for line in kept.lines),
            tuple(kept.numbers),
            grepped=self.wanted.grep is not None,
        )
        return Place(told, place.seen, place.until), lines

    def _sifted(self, place: Place, number: int, text: bytes, kept: _Kept) -> Place:
        """Keep what is wanted of lines from ``number`` on; return the place behind them."""
        end, context = number + text.count(b"\n"), self.wanted.context
        matches = [number + i for i in self.wanted.matches(text, self.kind)]
        until = place.until
        if matches:
            before = range(max(place.undecided(context), matches[0] - context), number)
            self._keep(kept, before.start, self._lines(before))
            until = max(until, matches[-1] + context + 1)
        if matches or place.until > number:
            lines = text.split(b"\n")
            for one in _ranges(number, end, matches, place.until, context):
                self._keep(kept, one.start, lines[one.start - number : one.stop - number])
        return Place(max(place.told, kept.end), end, until)

    def _keep(self, kept: _Kept, number: int, lines: list[bytes]) -> None:
        letters = self.wanted.streams if self.kind == "s" else ()
        for line in lines:
            if not letters or line[:1] in letters:
                kept.numbers.append(number)
                kept.lines.append(line)
                kept.size += len(line) + 1
            number += 1
        kept.end = max(kept.end, number)

    def _lines(self, numbers: range) -> list[bytes]:
        texts = self._texts(numbers.start, numbers.stop)
        return [line for _, text in texts for line in text.split(b"\n")[:-1]]

    def _texts(self, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Read whole lines, by chunk, with the number of the first of each."""
        for begin, _, text in texts(self.reader, self.logid, first, end, self.longest):
            yield begin, text


@dataclass
class _Kept:
    """Lines that are wanted.  end: the line behind the last one that was decided on."""

    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    end: int = 0


def _ranges(number: int, end: int, matches: list[int], until: int, context: int) -> Iterator[range]:
    """Return which lines are wanted of those from ``number`` to ``end``: in order, once each."""
    at = number
    if until > at:
        yield range(at, min(until, end))
        at = min(until, end)
    for match in matches:
        first, last = max(at, match - context), min(match + context + 1, end)
        if first < last:
            yield range(first, last)
            at = last
