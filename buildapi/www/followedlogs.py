r"""
Following a log over HTTP; ``follow`` says what its arguments mean.

    GET /api/v2/logs/60/contents?follow=1&offset=120        Accept: text/event-stream

    id: 184
    event: lines
    data: {"logid":60,"first":120,"next":184,"content":"whole lines\n"}

    id: 4711
    retry: 86400000
    event: end
    data: {"end":{"num_lines":4711,"complete":true}}

A browser that lost the connection comes back with the last ``id`` as ``Last-Event-ID``, which wins
over ``offset``. A stream that can't go on ends with ``event: error``. A page should close its
``EventSource`` at either; the one that does not comes back in a day (``retry``).

    GET /api/v2/logs/60/raw?follow=1

The download, which grows with the log and ends with it. One that is cut before that breaks off.

    GET /api/v2/logs/60/contents?offset=120&wait=25

    {"logchunks": [{"logid": 60, "firstline": 120, "content": "whole lines\n",
                    "next": 184, "complete": false}], "meta": {}}

One answer with the next lines, as soon as there are any, but not with more than a frame has; pass
``next`` as the offset of the next one. It is empty when none came in time, and at the end of the
log: ``complete``. With ``grep`` there are ``lines`` instead of ``content``.

The path of a log that is not there yet waits for it. Where nothing is to be said meanwhile, no
status is sent: it is 404 if the step ends without such a log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from buildapi.data.gate import ANONYMOUS
from buildapi.data.logchunks import LogChunk
from buildapi.errors import NoSuchPath
from buildapi.www.eventstream import EventStreams
from buildapi.www.heldanswer import refuse
from buildapi.www.hub import Hubs
from buildapi.www.loganswers import EventsAnswer, PageAnswer, RawAnswer
from buildapi.www.logquery import parsed


def asks_to_follow(path: bytes, query: bytes) -> bool:
    """Say, quickly, whether this may be a GET that follows a log."""
    if b"follow=" not in query and b"wait=" not in query:
        return False
    return path.endswith((b"/contents", b"/raw", b"/raw_inline"))


class FollowedLogs:
    """
    Answers such GETs.

    position: adds the newest position to the headers of an answer.  otherwise: answers what does
    not ask to follow after all.
    """

    def __init__(
        self,
        hubs: Hubs,
        streams: EventStreams,
        position: Callable[[Any], None],
        otherwise: Callable[[Any, bytes, bytes], Any],
    ) -> None:
        self._hubs = hubs
        self._data = hubs.data
        self._streams = streams
        self._position = position
        self._otherwise = otherwise

    def render(self, request: Any, path: bytes, query: bytes) -> Any:
        """Answer a GET or HEAD."""
        try:
            text = path.decode()
            ask = self._data.understood(text, "", ANONYMOUS)
            raw = ask.match.route.kind in ("raw", "raw_inline")
            asked = parsed(query.decode("utf-8", "surrogateescape"), self._hubs.limits, raw=raw)
            if asked is None or ask.match.route.resource is not LogChunk:
                return self._otherwise(request, path, query)
            request.route = "follow"
            self._position(request.responseHeaders)
            kind = RawAnswer if raw else EventsAnswer if asked.wait_s is None else PageAnswer
            answer = kind(self._hubs, self._streams, request, ask, asked)
        except UnicodeDecodeError:
            self._refuse(request, Failure(NoSuchPath("Invalid path: it is no UTF-8")))
        except Exception:  # noqa: BLE001  every answer is ours, this one too
            self._refuse(request, Failure())
        else:
            Deferred.fromCoroutine(answer.sent(text.rpartition("/")[0])).addErrback(answer.fail)
        return NOT_DONE_YET

    def _refuse(self, request: Any, failure: Failure) -> None:
        self._position(request.responseHeaders)
        refuse(request, failure)
