"""Answers that are refusals, as OpenAPI has them."""

from __future__ import annotations

from buildapi.data.logchunks import LogChunk
from buildapi.docs.endpoints import Endpoint
from buildapi.docs.jsonschema import TEXT, Schema, ref

_REFUSED = {
    "400": "The query cannot be meant so: which argument, and why.",
    "404": "There is nothing.",
    "409": "A stored piece of the log cannot be read.",
    "503": "The database is busy or lost; try again later.",
}
_REFUSED_CALLS = {
    "400": "It is no call, or its parameters are wrong.",
    "403": "That is not allowed.",
    "404": "There is nothing.",
    "409": "The present state does not allow it.",
    "422": "The Idempotency-Key was used for another call.",
    "501": "There is no such method.",
    "503": "No build master listens, or the database is busy; try again later.",
}
_ERROR_TEXT = {**TEXT, "contentMediaType": "application/json"}
_ERROR_TEXT["contentSchema"] = ref("schemas", "Error")
RESPONSES = {
    **{
        status: {"description": said, "content": {"text/plain": {"schema": _ERROR_TEXT}}}
        for status, said in _REFUSED.items()
    },
    **{
        f"call.{status}": {
            "description": said,
            "content": {"application/json": {"schema": ref("schemas", "Refusal")}},
        }
        for status, said in _REFUSED_CALLS.items()
    },
}


def of_get(endpoint: Endpoint) -> Schema:
    """Return those of a GET, by status."""
    found = ["400", "404", "503"] if endpoint.elements else ["400", "503"]
    if endpoint.resource is LogChunk:
        found.insert(2, "409")
    return {status: ref("responses", status) for status in found}


def of_call() -> Schema:
    """Return those of a control call, by status."""
    return {status: ref("responses", f"call.{status}") for status in _REFUSED_CALLS}
