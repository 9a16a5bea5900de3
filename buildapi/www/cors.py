"""
CORS: which pages of other origins may use this server (pure).

A browser says with ``Origin`` from where a page comes.  Our own pages may use it, and so may those
whose origin matches one of the ``allowed_origins``: ``*`` stands for any text, ``?`` for one
character, case does not count.  Every other page is refused, whatever it asks for; a client that is
no browser sends no ``Origin`` and is not concerned.

    Origin: https://ci.example.org        access-control-allow-origin: https://ci.example.org
                                          access-control-allow-headers: Content-Type
                                          access-control-max-age: 3600
                                          access-control-expose-headers: X-Seq, X-Event-Log, ...

Before an unusual request a browser asks with OPTIONS whether it may send it (a preflight), and
names the headers that it would have.  Source: the specification of the wire, section 2.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from buildapi.www.listening import is_own

Headers = tuple[tuple[bytes, bytes], ...]

_METHODS = (b"GET", b"POST", b"HEAD")
# Beyond Content-Type, which every answer names; only a preflight that asks for these gets them.
_ON_REQUEST = (b"Authorization", b"If-None-Match", b"Idempotency-Key", b"Last-Event-ID")
# Beyond what a page may always read of an answer.
_EXPOSED = (b"access-control-expose-headers", b"X-Seq, X-Event-Log, Link, ETag")
_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)


@dataclass(frozen=True)
class Allowed:
    """Go on, and add these headers to the answer, whatever it will be."""

    headers: Headers = ()


@dataclass(frozen=True)
class Answered:
    """Send this, and no more: a refusal or the answer to a preflight."""

    status: int
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True)
class Cors:
    """
    The rule.

    allowed_origins: globs, such as ``https://*.example.org``.  local_only: whether our own pages
    come from this machine, under a name that nobody else can give: a name in somebody's hands may
    lead here too, and its pages would be taken for ours (DNS rebinding).
    """

    allowed_origins: tuple[str, ...] = ()
    local_only: bool = False

    def allows(self, origin: bytes, own_origin: str) -> bool:
        """Say whether pages of ``origin`` may use the server that they know as ``own_origin``."""
        lowered = origin.decode("latin-1").lower()
        if lowered == own_origin.lower() and not (self.local_only and not _is_local(own_origin)):
            return True
        return bool(self._globs.fullmatch(lowered))

    def decide(
        self, method: bytes, header: Callable[[bytes], bytes | None], own_origin: str
    ) -> Allowed | Answered:
        """
        Return what becomes of a request.

        header: a header's value by its lower-case name, or None.
        own_origin: scheme, host and port of this server, as in ``http://127.0.0.1:8010``.
        """
        origin = header(b"origin")
        if not origin:
            return Allowed()
        if not self.allows(origin, own_origin):
            # An answer to POST is read as JSON-RPC, where an error is an object.
            body = b'{"message":"invalid origin"}' if method == b"POST" else b'"invalid origin"'
            return Answered(400, _TEXT, b'{"error":%s}' % body)
        if method != b"OPTIONS":
            return Allowed((*_granted(origin), _EXPOSED))
        if header(b"access-control-request-method") not in _METHODS:
            return Answered(400, _TEXT, b'{"error":"invalid method"}')
        wanted = header(b"access-control-request-headers") or b""
        return Answered(200, ((b"content-type", b"text/html"), *_granted(origin, wanted)))

    @cached_property
    def _globs(self) -> re.Pattern[str]:
        # fnmatch would take the brackets of http://[::1]:8010 for a set of characters.
        literal = (glob.lower().replace("[", "[[]") for glob in self.allowed_origins)
        return re.compile("|".join(map(fnmatch.translate, literal)) or r"\Z.")


def _is_local(origin: str) -> bool:
    try:
        return is_own(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def own_origin(base_url: str | None, host: bytes | None, *, secure: bool) -> str:
    """
    Return the origin of our own pages.

    base_url: the address people know this server by, if that is not the one they ask.
    host: the Host header of the request.  secure: whether it came by TLS.

    >>> own_origin("https://ci.example.org/buildapi/", None, secure=False)
    'https://ci.example.org'
    """
    if base_url is not None:
        parts = urlsplit(base_url)
        return f"{parts.scheme}://{parts.netloc}"
    return f"{'https' if secure else 'http'}://{(host or b'localhost').decode('latin-1')}"


def _granted(origin: bytes, wanted: bytes = b"") -> Headers:
    asked = {name.strip().lower() for name in wanted.split(b",")}
    names = (b"Content-Type", *(name for name in _ON_REQUEST if name.lower() in asked))
    return (
        (b"access-control-allow-origin", origin.lower()),
        (b"access-control-allow-headers", b", ".join(names)),
        (b"access-control-max-age", b"3600"),
        # Or a cache would give one page what was meant for another.
        (b"vary", b"origin"),
    )
