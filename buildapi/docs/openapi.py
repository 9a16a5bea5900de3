"""The API as an OpenAPI 3.1 document."""

from __future__ import annotations

import json

from buildapi.data.api import RESOURCES, ROUTER
from buildapi.data.builddata import BuildData
from buildapi.docs import arguments, live, refusals
from buildapi.docs.conventions import as_markdown
from buildapi.docs.endpoints import ROOT, Endpoint, described, endpoints
from buildapi.docs.jsonschema import COUNT, TEXT, Schema, messages, objects, ref

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A call that is repeated with its key is done once and answered alike.",
    "schema": {"type": "string"},
}


def document() -> Schema:
    """Return the document, as JSON has it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "buildapi",
            "version": "2",
            "summary": "The data API of a build master: Buildbot's REST API v2.",
            "description": as_markdown(2),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": r.plural, "description": described(r)} for r in RESOURCES],
        "paths": {
            **{ROOT + one.path: _path(one) for one in endpoints(ROUTER.routes)},
            f"{ROOT}/events": {"get": _events()},
        },
        "components": {
            "schemas": {**objects(), **messages()},
            "parameters": arguments.shared(),
            "responses": refusals.RESPONSES,
        },
    }


def text() -> str:
    """Return the document as it is checked in and served."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _path(endpoint: Endpoint) -> Schema:
    found: Schema = {
        "parameters": [arguments.in_path(parameter) for parameter in endpoint.parameters],
        "get": _get(endpoint),
        # The API's own patterns, which say exactly what is taken where.
        "x-patterns": list(endpoint.patterns),
    }
    if endpoint.actions:
        found["post"] = _post(endpoint)
    return found


def _get(endpoint: Endpoint) -> Schema:
    return {
        "summary": endpoint.summary,
        "operationId": f"get {endpoint.path}",
        "tags": [endpoint.resource.plural],
        "parameters": [ref("parameters", name) for name in arguments.names(endpoint)],
        "responses": {"200": _found(endpoint), **refusals.of_get(endpoint)},
    }


def _found(endpoint: Endpoint) -> Schema:
    if endpoint.kind in ("raw", "raw_inline"):
        stored = endpoint.resource is BuildData
        types = ("application/octet-stream",) if stored else ("text/plain", "text/html")
        return {"description": "Found.", "content": {media: {} for media in types}}
    name = endpoint.resource.singular
    meta: Schema = {"type": "object", "maxProperties": 0}
    if endpoint.kind == "many":
        meta = {"type": "object", "properties": {"total": COUNT}, "required": ["total"]}
    items = {"type": "array", "items": ref("schemas", name)}
    plural = endpoint.resource.plural
    answer = {
        "type": "object",
        "properties": {plural: items, "meta": meta},
        "required": [plural, "meta"],
    }
    return {
        "description": "Found.",
        "headers": {"X-Seq": {"schema": COUNT}, "X-Event-Log": {"schema": TEXT}},
        "content": {"application/json": {"schema": answer}, "text/plain": {}},
    }


def _events() -> Schema:
    """Describe the events over HTTP."""
    event = {
        "type": "object",
        "properties": {
            "seq": COUNT,
            "topic": TEXT,
            "at": {"type": "number"},
            "keys": {"type": "array", "items": TEXT},
            "m": {"type": "object"},
        },
        "required": ["seq", "topic", "at", "m"],
    }
    counts = dict.fromkeys(("seq", "oldest", "newest"), COUNT)
    meta = {
        "type": "object",
        "properties": {**counts, "more": {"type": "boolean"}},
        "required": [*counts, "more"],
    }
    page = {
        "type": "object",
        "properties": {"events": {"type": "array", "items": event}, "meta": meta},
        "required": ["events", "meta"],
    }
    gone: Schema = {
        "type": "object",
        "properties": {"error": TEXT, "oldest": COUNT, "newest": COUNT, "log": TEXT},
    }
    media = {"application/json": {"schema": page}, "text/event-stream": {}}
    refused = {status: ref("responses", status) for status in ("400", "503")}
    text = {**TEXT, "contentMediaType": "application/json"}
    return {
        "summary": "Events after a position.",
        "operationId": "get /events",
        "parameters": [ref("parameters", f"events.{one.name}") for one in live.EVENTS],
        "responses": {
            "200": {"description": "As one answer, or as a stream.", "content": media},
            **refused,
            "409": {
                "description": "There is no log that tells of every change.",
                "content": {"text/plain": {"schema": {**text, "contentSchema": gone}}},
            },
            "410": {
                "description": "Events have been forgotten, or the position is of another log.",
                "content": {"text/plain": {"schema": {**text, "contentSchema": gone}}},
            },
        },
    }


def _post(endpoint: Endpoint) -> Schema:
    methods = "".join(f"\n- `{name}`: {doc}" for name, doc in endpoint.actions.items())
    call = {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "boolean", "null"]},
            "method": {"enum": list(endpoint.actions)},
            "params": {"type": "object"},
        },
        "required": ["jsonrpc", "id", "method", "params"],
    }
    done = {
        "description": "Done.",
        "content": {"application/json": {"schema": ref("schemas", "Result")}},
    }
    return {
        "summary": f"Control one of {endpoint.resource.plural}.",
        "description": f"Methods:\n{methods}",
        "operationId": f"control {endpoint.path}",
        "tags": [endpoint.resource.plural],
        "parameters": [_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": call}}},
        "responses": {"200": done, **refusals.of_call()},
    }
