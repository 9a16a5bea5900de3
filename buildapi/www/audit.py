"""
``GET /api/audit``: which control calls were made, the newest first.

    GET /api/audit?limit=2

    {"calls": [{"id": 7, "at": 1795262400.5, "who": "anonymous", "path": "builds/1",
                "action": "rebuild", "params": {}, "status": 200, "result": [2, {"1": 2}],
                "error": null, "repeated": false}, ...],
     "meta": {"next": "/api/audit?limit=2&before=6"}}

``next`` is the address of the next page, null behind the last.  Who may not control may not read
this.  A page of a site that is not ours may not either, even if its name leads to this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from twisted.internet.defer import Deferred

from buildapi.data.control import Control
from buildapi.data.gate import ANONYMOUS
from buildapi.errors import BadQuery, Forbidden
from buildapi.www import envelope
from buildapi.www.replies import refused_with

PATH = "/api/audit"

_LIMIT = 100
_MOST_DIGITS = 18


class Audit:
    """Answers with pages of the audit.  is_own: says whether no page of another site asks."""

    def __init__(self, control: Control, is_own: Callable[[Any], bool]) -> None:
        self._control = control
        self._is_own = is_own

    def render(self, request: Any) -> Deferred[bytes]:
        """Answer a GET or HEAD."""
        answering = Deferred.fromCoroutine(self._answer(request))
        return answering.addErrback(refused_with, request)

    async def _answer(self, request: Any) -> bytes:
        if not self._is_own(request):
            raise Forbidden("invalid origin")
        given = _numbers(request.args)
        limit, before = given.get("limit", _LIMIT), given.get("before")
        calls = await self._control.audit(limit, before, ANONYMOUS)
        last = calls[-1]["id"] if len(calls) == limit else None
        following = last and f"{PATH}?limit={limit}&before={last}"
        request.setHeader(b"content-type", envelope.JSON)
        return orjson.dumps({"calls": calls, "meta": {"next": following}})


def _numbers(args: Mapping[bytes, list[bytes]]) -> dict[str, int]:
    found = {}
    for name, values in args.items():
        word, value = name.decode("utf-8", "replace"), values[0]
        if word not in ("limit", "before"):
            raise BadQuery(f"there is no argument {word!r}, only limit and before")
        if not value.isdigit() or len(value) > _MOST_DIGITS:
            raise BadQuery(f"{word} must be a whole number")
        found[word] = int(value)
    return found
