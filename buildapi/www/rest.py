"""
GET and HEAD below ``/api/v2``: from a request to an answer, one function for every door.

This is the hottest path of the server: it answers small reads at once, without a Deferred.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.data.api import DataAPI
from buildapi.data.builddata import BuildData
from buildapi.data.fetch import Ask, Fetched
from buildapi.data.gate import ANONYMOUS
from buildapi.data.logchunks import LogChunk
from buildapi.data.outcomes import Outcomes
from buildapi.data.spool import Spool
from buildapi.errors import BadRequest, NoSuchPath
from buildapi.settings import Limits
from buildapi.www import envelope
from buildapi.www.download import Body, Download
from buildapi.www.encoding import Coding, compressed, compressing, negotiated
from buildapi.www.envelope import COMPACT, INDENTED, Form
from buildapi.www.kept import Answer, Kept
from buildapi.www.longlist import ListBody
from buildapi.www.nextpage import next_page
from buildapi.www.rawlog import LogBody
from buildapi.www.rawvalue import ValueBody
from buildapi.www.replies import LARGEST_WITH_LENGTH, refusal, send, until_gone

# Above this an answer is compressed in the pool, as a megabyte takes some 10 ms, and is not kept.
LARGEST_HANDLED_HERE = 256 * 1024

_POSITIVE = 2**64 - 1


class _Reply(NamedTuple):
    """
    What an answer depends on, besides what is read.

    seq: the newest published position when the request came.  version: that of what it asks for at
    that moment, and tag: the ETag of that; None where they can't be known without reading.  key:
    what tells its answer from all others of that version.
    """

    request: Any
    path: bytes
    ask: Ask
    form: Form
    coding: Coding | None
    seq: int | None
    version: int | None
    tag: bytes | None
    key: Hashable


class Rest:
    """
    Answers GET and HEAD of the data API.

    seq: gives the newest published position.  base: gives the root of the URLs by which the client
    of a request knows this server.
    """

    def __init__(
        self,
        data: DataAPI,
        outcomes: Outcomes,
        limits: Limits,
        seq: Callable[[], int | None],
        base: Callable[[Any], str],
    ) -> None:
        self._data = data
        self._outcomes = outcomes
        self._limits = limits
        self._seq = seq
        self._base = base
        self._tells_versions = data.tells_versions
        # Versions are counted from the start of the process: no tag outlives it.
        self._process = secrets.token_hex(6).encode()
        self._kept = Kept(limits.kept_bytes)

    def render(self, request: Any, path: bytes, query: bytes) -> bytes | int:
        """
        Answer a request for ``path``, the part below ``/api/v2/``.

        Returns the body, or NOT_DONE_YET, as a resource's ``render`` does.
        """
        if b"until=" in query:
            return self._awaited(request, path, query)
        return self._render(request, path, query)

    def _awaited(self, request: Any, path: bytes, query: bytes) -> int:
        """Answer as soon as something is complete, or after a while."""

        async def left() -> bytes:
            text = query.decode("utf-8", "surrogateescape")
            found = await self._outcomes.awaited(_text(path), text, ANONYMOUS)
            return found.encode("utf-8", "surrogateescape")

        waiting = Deferred.fromCoroutine(left())
        gone = until_gone(request, waiting)
        waiting.addCallbacks(
            lambda found: None if gone() else self._render(request, path, found),
            lambda failure: None if gone() else self._refuse(request, failure, self._seq()),
        )
        return NOT_DONE_YET

    def _render(self, request: Any, path: bytes, query: bytes) -> int:
        seq = self._seq()
        try:
            ask = self._data.understood(
                _text(path), query.decode("utf-8", "surrogateescape"), ANONYMOUS
            )
            request.route = ask.match.route.pattern
            if ask.match.route.kind in ("raw", "raw_inline"):
                return self._raw(request, ask, seq)
            accept = request.getHeader(b"accept") or b""
            form = COMPACT if b"application/json" in accept else INDENTED
            coding = negotiated(request.getHeader(b"accept-encoding"))
            # Before anything is read: what is read later is never older than this.
            version = self._data.version(ask) if self._tells_versions else None
            tag, key = None, (path, query, ask.restriction, coding, form.letter)
            if version is not None:
                what = hash(key) & _POSITIVE
                tag = b'"%b-%x-%x-%b"' % (self._process, version, what, form.letter)
            reply = _Reply(request, path, ask, form, coding, seq, version, tag, key)
            if tag is not None and self._known(reply, tag):
                return NOT_DONE_YET
            return self._read(reply)
        except Exception:  # noqa: BLE001  every answer is ours, this one too
            return self._refuse(request, Failure(), seq)

    def _spool(self, between: bytes) -> Spool:
        limits = self._limits
        return Spool(between, limits.answer_memory_bytes, limits.answer_bytes)

    def _known(self, reply: _Reply, tag: bytes) -> bool:
        """Answer without reading, if the client has the answer, or it is kept here."""
        request = reply.request
        if tag in (request.getHeader(b"if-none-match") or b""):
            headers = request.responseHeaders
            request.setResponseCode(304)
            headers.addRawHeader(b"vary", b"accept, accept-encoding")
            headers.setRawHeaders(b"etag", [tag])
            self._position(headers, reply.seq)
            request.finish()
            return True
        kept = self._kept.get(reply.key, reply.version)
        if kept is None:
            return False
        self._describe(reply, kept.total, reply.seq)
        send(request, kept.body)
        return True

    def _read(self, reply: _Reply) -> int:
        ask, form = reply.ask, reply.form
        if ask.match.route.resource is LogChunk:
            around = partial(form.around, ask)
            return self._later(reply, self._data.lines(ask, around, self._spool(b"")))
        answer = self._data.fetch(ask, form.rows(ask), self._spool(form.between))
        if isinstance(answer, Deferred):
            return self._later(reply, answer)
        return self._answer(reply, answer)

    def _answer(self, reply: _Reply, answer: Fetched[list[bytes]] | Fetched[Spool]) -> int:
        ask, form, parts, total = reply.ask, reply.form, answer.parts, answer.total
        cut = self._describe(reply, total, answer.seq)
        # The next page's URL in a body is as the client spells this server: not for others.
        lasting = total if cut is None else None
        if isinstance(parts, list):
            return self._send_short(reply, form.whole(ask, parts, total, cut), lasting)
        if parts.in_file:
            return self._send_long(reply, parts, form.ends(ask, total, cut))
        body = form.whole(ask, [parts.read()], total, cut)
        parts.close()
        return self._send_short(reply, body, lasting)

    def _describe(self, reply: _Reply, total: int | None, seq: int | None) -> bytes | None:
        """
        Set the headers of what was read at ``seq``; return the next page's URL, if a cap cut it.
        """
        headers = reply.request.responseHeaders
        headers.setRawHeaders(b"content-type", [reply.form.content_type])
        headers.addRawHeader(b"vary", b"accept, accept-encoding")
        if reply.coding is not None:
            headers.setRawHeaders(b"content-encoding", [reply.coding.encode()])
        self._position(headers, seq)
        if reply.tag is not None and (seq == reply.seq or self._still(reply, seq)):
            headers.setRawHeaders(b"etag", [reply.tag])
        page = reply.ask.page
        if page is None or total is None:
            return None
        following = next_page(self._base, reply.request, reply.path, reply.ask, total)
        if following is None:
            return None
        headers.setRawHeaders(b"link", [b'<%b>; rel="next"' % following])
        return following if page.capped else None

    def _still(self, reply: _Reply, seq: int | None) -> bool:
        """Say whether what was read at ``seq`` is what the tag stands for, and not newer."""
        published = self._seq()
        if seq is None or published is None or seq > published:
            return False
        return self._data.version(reply.ask) == reply.version

    def _send_short(self, reply: _Reply, body: bytes, total: int | None) -> int:
        """Send a body that is in memory, and keep it unless ``total`` is None."""
        request, coding = reply.request, reply.coding
        if len(body) > LARGEST_HANDLED_HERE:
            if coding is None:
                return send(request, body)
            return self._send_made(reply, lambda: compressed(body, coding))
        if coding is not None:
            body = compressed(body, coding)
        if total is not None and request.responseHeaders.hasHeader(b"etag"):
            self._kept.put(reply.key, reply.version, Answer(body, total))
        return send(request, body)

    def _send_long(self, reply: _Reply, spool: Spool, ends: tuple[bytes, bytes]) -> int:
        request, coding = reply.request, reply.coding
        opening, closing = ends
        size = len(opening) + spool.size + len(closing)
        pieces = chain([opening], spool.pieces(), [closing])
        if coding is not None:
            pieces = chain(compressing(pieces, coding))
            if size <= LARGEST_WITH_LENGTH:
                return self._send_made(reply, lambda: b"".join(pieces), spool)
        elif size <= LARGEST_WITH_LENGTH:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % size])
        # However it ends: a piece that is being read then is for nobody.
        request.notifyFinish().addBoth(lambda _: self._let_go(spool))
        if request.method == b"HEAD":
            request.finish()
        else:
            Download(self._data.database, request, ListBody(pieces), self._refuse).begin()
        return NOT_DONE_YET

    def _send_made(
        self, reply: _Reply, make: Callable[[], bytes], spool: Spool | None = None
    ) -> int:
        """Send a body that is made in the pool, of what is in the spool."""
        request, working = reply.request, self._data.aside(make)
        gone = until_gone(request, working)
        working.addCallbacks(
            lambda done: None if gone() else send(request, done),
            lambda failure: None if gone() else self._refuse(request, failure, reply.seq),
        )
        if spool is not None:
            working.addCallback(lambda _: self._let_go(spool))
        return NOT_DONE_YET

    def _let_go(self, spool: Spool) -> None:
        """Close a spool; not here if that can be helped: to delete a gigabyte takes a while."""
        self._data.aside(spool.close).addErrback(lambda _: spool.close())

    def _position(self, headers: Any, seq: int | None) -> None:
        # Asked for each time: where others write it may be replaced.
        log = self._data.log
        if seq is not None and log is not None:
            headers.setRawHeaders(b"x-seq", [b"%d" % seq])
            headers.setRawHeaders(b"x-event-log", [log.encode()])

    def _later(
        self,
        reply: _Reply,
        reading: Deferred[Fetched[list[bytes]] | Fetched[Spool]] | Deferred[Fetched[Spool]],
    ) -> int:
        request = reply.request
        gone = until_gone(request, reading)

        def answered(answer: Fetched[list[bytes]] | Fetched[Spool]) -> None:
            if not gone():
                self._answer(reply, answer)
            elif isinstance(answer.parts, Spool):
                self._let_go(answer.parts)

        def failed(failure: Failure) -> None:
            if not gone():
                self._refuse(request, failure, reply.seq)

        reading.addCallback(answered).addErrback(failed)
        return NOT_DONE_YET

    def _raw(self, request: Any, ask: Ask, seq: int | None) -> int:
        self._position(request.responseHeaders, seq)
        body: Body
        if ask.match.route.resource is BuildData:
            body = ValueBody(ask, logged=self._data.logged)
        else:
            body = LogBody(ask, negotiated(request.getHeader(b"accept-encoding")))
        Download(self._data.database, request, body, self._refuse).begin()
        return NOT_DONE_YET

    def refuse_method(self, request: Any) -> int:
        """Answer a request by a method that the API does not have."""
        return self._refuse(request, Failure(BadRequest("invalid HTTP method")), self._seq())

    def position(self, headers: Any, seq: int | None = None) -> None:
        """Add a position to the headers of an answer, by default the newest published."""
        self._position(headers, self._seq() if seq is None else seq)

    def _refuse(self, request: Any, failure: Failure, seq: int | None = None) -> int:
        status, sentence = refusal(failure)
        request.setResponseCode(status)
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [envelope.TEXT])
        for name in (b"content-encoding", b"etag", b"link"):
            headers.removeHeader(name)
        self._position(headers, seq)
        body = envelope.error(sentence)
        if request.method != b"HEAD":
            headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
            request.write(body)
        request.finish()
        return NOT_DONE_YET


def _text(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        raise NoSuchPath("Invalid path: it is no UTF-8") from None
