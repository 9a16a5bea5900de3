"""
JSON-RPC 2.0 on a resource's URL: control it.

    POST /api/v2/builds/10
    {"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"reason": "a typing error"}}

    200  {"jsonrpc": "2.0", "id": 1, "result": null}
    404  {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "there is no build 10"}}

Before anything is looked up, in this order: the content type is ``application/json``, the body is
JSON, an object, of the four keys above with the right types, of version 2.0.  What fails there is
answered without an ``id``.  ``id`` is a string, an integer, true, false or null.  There are no
batches and no notifications.  ``message`` is a sentence, or ``{field: sentence}`` for a form.

    400  -32700  not JSON                       409  -32600  not in this state
    400  -32600  not such an object             422  -32600  Idempotency-Key of another call
    404  -32600  no such path or object         400  -32602  wrong parameters
    403  -32600  not allowed                    503  -32000  not now
    501  -32601  no such action                 500  -32603  our fault

Source: the specification of the wire, section 8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildapi.errors import (
    BadRequest,
    BuildAPIError,
    FieldErrors,
    NoSuchAction,
    Unavailable,
)

CONTENT_TYPE = b"application/json"

NOT_JSON = -32700
INVALID_REQUEST = -32600
NO_SUCH_ACTION = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
NOT_NOW = -32000

Id = str | int | bool | None

# bool is an int; a float is none of these.
_KEYS = {
    "jsonrpc": (str, "a string"),
    "method": (str, "a string"),
    "id": (str | int | None, "a string, an integer, true, false or null"),
    "params": (dict, "an object"),
}


@dataclass(frozen=True)
class Call:
    """A call of the right form; whether there is such a method is for its resource to say."""

    method: str
    id: Id
    params: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP status and the body that goes with it, of type CONTENT_TYPE."""

    status: int
    body: bytes


def parse(body: bytes, content_type: str | None) -> Call | Answer:
    """Return the call that a request's body is, or the answer that says why it is none."""
    if content_type is None or content_type.partition(";")[0] != "application/json":
        return refused("the content type must be application/json")
    try:
        root = _load(body)
    except (ValueError, RecursionError):
        return refused("the body is not JSON", NOT_JSON)
    fault = _fault(root)
    if fault is not None:
        return refused(fault)
    return Call(root["method"], root["id"], root["params"])


def answer(call: Call, result: object) -> Answer:
    """Return the answer to a call that was carried out."""
    return Answer(200, _dump({"jsonrpc": "2.0", "id": call.id, "result": result}))


def refusal(error: Exception, call: Call | None) -> Answer:
    """
    Return the answer to a call that ended in ``error``.

    An error that is not ours says nothing about itself: its text was not written for the caller.
    """
    if not isinstance(error, BuildAPIError) or error.status == 500:  # noqa: PLR2004
        return _error(500, INTERNAL, "internal error", call)
    message = error.fields if isinstance(error, FieldErrors) else error.sentence
    return _error(error.status, _code(error), message, call)


def refused(message: str, code: int = INVALID_REQUEST) -> Answer:
    """Return the answer to a body that is no call."""
    return _error(BadRequest.status, code, message, None)


def _fault(root: Any) -> str | None:
    """Say why a JSON value is no call, or return None."""
    if not isinstance(root, dict):
        return "the body must be one object; there are no batches"
    for key, (kind, wanted) in _KEYS.items():
        if key not in root:
            return f"{key} is missing"
        if not isinstance(root[key], kind):
            return f"{key} must be {wanted}"
    return None if root["jsonrpc"] == "2.0" else 'jsonrpc must be "2.0"'


def _code(error: BuildAPIError) -> int:
    match error:
        case BadRequest():
            return INVALID_PARAMS
        case NoSuchAction():
            return NO_SUCH_ACTION
        case _ if error.status == Unavailable.status:
            return NOT_NOW
        case _:
            return INVALID_REQUEST


def _error(status: int, code: int, message: str | Mapping[str, str], call: Call | None) -> Answer:
    body: dict[str, Any] = {"jsonrpc": "2.0", "error": {"code": code, "message": message}}
    if call is not None:
        body["id"] = call.id
    return Answer(status, _dump(body))


def _load(body: bytes) -> Any:
    """
    Return the value of a JSON text, or raise ValueError or RecursionError.

    Not orjson: it reads an integer beyond 64 bits as a float, but an id has to come back whole.
    What the standard library lets through besides JSON is refused here: NaN and infinity, numbers
    as large as that, and halves of surrogate pairs, which no database could store.
    """
    root = json.loads(body.decode(), parse_constant=_no_number, parse_float=_finite)
    if b"\\ud" in body.lower():
        json.dumps(root, ensure_ascii=False).encode()
    return root


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        return _no_number(text)
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
