"""The API as an OpenAPI 3.1 document."""

from __future__ import annotations

import json
from typing import Any

from buildapi.data.api import RESOURCES, ROUTER
from buildapi.data.builddata import BuildData
from buildapi.data.logchunks import LogChunk
from buildapi.data.schema import Resource
from buildapi.data.values import ValueType
from buildapi.docs import live
from buildapi.docs.conventions import as_markdown
from buildapi.docs.endpoints import (
    IDENTIFIER,
    ROOT,
    Endpoint,
    Parameter,
    asked,
    described,
    endpoints,
    filters,
    object_types,
    orders,
)

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PROPERTY: Schema = {"type": "array", "prefixItems": [{}, _TEXT], "minItems": 2, "maxItems": 2}
_PLAIN: dict[str, Schema] = {
    "integer": {"type": "integer"},
    "datetime": {"type": "integer", "description": "Seconds since the epoch."},
    "string": _TEXT,
    "identifier": _TEXT,
    "boolean": {"type": "boolean"},
    "binary": {"type": "null", "description": "Bytes are not shown here."},
    "object": {},
    "sourced": {"type": "object", "additionalProperties": _PROPERTY},
}
_ELEMENT: dict[str, Schema] = {
    "n": {"type": "integer", "minimum": 0},
    "i": {"type": "string", "pattern": IDENTIFIER},
    "s": {"type": "string", "minLength": 1},
    "": {"type": "string", "minLength": 1},
}


def document() -> Schema:
    """Return the document, as JSON has it."""
    resources = [resource for resource in RESOURCES if resource.fields]
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
            "schemas": {**_objects(), **_messages()},
            "parameters": {
                **_SHARED,
                **_LIVE,
                **dict(p for r in resources for p in _parameters(r)),
            },
            "responses": _RESPONSES,
        },
    }


def text() -> str:
    """Return the document as it is checked in and served."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def schema(of: ValueType) -> Schema:
    """Return the JSON Schema of a type."""
    found = _not_null(of)
    if not of.nullable or not found or of.kind == "binary":
        return found
    if "$ref" in found:
        return {"anyOf": [found, {"type": "null"}]}
    return {**found, "type": [found["type"], "null"]}


def _not_null(of: ValueType) -> Schema:
    if of.of is not None:
        return {"type": "array", "items": schema(of.of)}
    if of.resource is not None:
        return _ref("schemas", of.resource.singular)
    if of.shape is not None:
        return _ref("schemas", of.shape.name)
    return _PLAIN[of.kind]


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


# Objects.


def _objects() -> dict[str, Schema]:
    docs = {r.singular: r for r in RESOURCES}
    found = {
        name: _object(parts, docs.get(name))
        for name, parts in object_types(RESOURCES).items()
        if parts
    }
    return {**found, "sourcedproperties": _PLAIN["sourced"]}


def _object(parts: dict[str, ValueType], resource: type[Resource] | None) -> Schema:
    if resource is None:
        return {"type": "object", "properties": {name: schema(of) for name, of in parts.items()}}
    fields = {
        name: {**schema(of), "description": resource.fields[name].doc} for name, of in parts.items()
    }
    return {"type": "object", "description": described(resource), "properties": fields}


def _messages() -> dict[str, Schema]:
    ident = {"type": ["string", "integer", "boolean", "null"]}
    version = {"const": "2.0"}
    sentences = {"type": "object", "additionalProperties": _TEXT}
    fault = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"anyOf": [_TEXT, sentences]}},
        "required": ["code", "message"],
    }
    return {
        "Error": {
            "type": "object",
            "properties": {"error": {"type": "string", "description": "A sentence."}},
            "required": ["error"],
        },
        "Result": {
            "type": "object",
            "properties": {"jsonrpc": version, "id": ident, "result": {}},
            "required": ["jsonrpc", "id", "result"],
        },
        "Refusal": {
            "type": "object",
            "properties": {"jsonrpc": version, "id": ident, "error": fault},
            "required": ["jsonrpc", "error"],
        },
    }


# Arguments.

_SHARED: dict[str, Schema] = {
    "limit": {"name": "limit", "in": "query", "description": "Most objects.", "schema": _COUNT},
    "offset": {
        "name": "offset",
        "in": "query",
        "description": "How many objects to leave out at the beginning.",
        "schema": _COUNT,
    },
    "property": {
        "name": "property",
        "in": "query",
        "description": "Properties to show; * for all.",
        "schema": {"type": "array", "items": _TEXT},
    },
}


_TAKEN: dict[str, Schema] = {
    "text": _TEXT,
    "texts": {"type": "array", "items": _TEXT},
    "integer": _COUNT,
    "seconds": {"type": "number", "minimum": 0},
}
_LIVE: dict[str, Schema] = {
    f"{place}.{one.name}": {
        "name": one.name,
        "in": "query",
        "description": one.doc,
        "schema": _TAKEN[one.kind],
    }
    for place, arguments in (
        ("log", live.FOLLOWED),
        ("outcome", live.OUTCOME),
        ("events", live.EVENTS),
    )
    for one in arguments
}


def _parameters(resource: type[Resource]) -> list[tuple[str, Schema]]:
    found = {"field": _choice("field", list(resource.fields), "Fields to show.")}
    if resource.many:
        found["order"] = _choice("order", orders(resource), "What to order by.")
        found["filters"] = _filters(resource)
    return [(f"{resource.plural}.{name}", parameter) for name, parameter in found.items()]


def _choice(name: str, values: list[str], doc: str) -> Schema:
    items = {"type": "string", "enum": values}
    return {
        "name": name,
        "in": "query",
        "description": doc,
        "schema": {"type": "array", "items": items},
    }


def _filters(resource: type[Resource]) -> Schema:
    properties = {}
    for field, operators in filters(resource):
        value = _not_null(asked(field.type))
        if "eq" in operators:
            properties[field.name] = value
        properties |= {f"{field.name}__{operator}": value for operator in operators}
    return {
        "name": "filters",
        "in": "query",
        "description": "Each is an argument of its own: `<field>=` or `<field>__<operator>=`.",
        "style": "form",
        "explode": True,
        "schema": {"type": "object", "properties": properties, "additionalProperties": False},
    }


# Paths.


def _path(endpoint: Endpoint) -> Schema:
    found: Schema = {
        "parameters": [_element(parameter) for parameter in endpoint.parameters],
        "get": _get(endpoint),
        # The API's own patterns, which say exactly what is taken where.
        "x-patterns": list(endpoint.patterns),
    }
    if endpoint.actions:
        found["post"] = _post(endpoint)
    return found


def _element(parameter: Parameter) -> Schema:
    kinds = [_ELEMENT[kind] for kind in parameter.kinds]
    return {
        "name": parameter.name,
        "in": "path",
        "required": True,
        "description": f"It is {parameter.doc}.",
        "schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
    }


def _get(endpoint: Endpoint) -> Schema:
    return {
        "summary": endpoint.summary,
        "operationId": f"get {endpoint.path}",
        "tags": [endpoint.resource.plural],
        "parameters": [_ref("parameters", name) for name in _asked(endpoint)],
        "responses": {"200": _found(endpoint), **_refused(endpoint)},
    }


def _asked(endpoint: Endpoint) -> list[str]:
    resource, found = endpoint.resource, []
    if endpoint.kind in ("one", "many") and resource.fields:
        found.append(f"{resource.plural}.field")
    if endpoint.kind == "many":
        found += [f"{resource.plural}.order", f"{resource.plural}.filters"]
    if endpoint.kind == "many" or resource is LogChunk:
        found += ["limit", "offset"]
    if "properties" in resource.fields:
        found.append("property")
    if resource is LogChunk and endpoint.elements != ("logchunks",):
        waits = endpoint.kind == "one"
        found += [f"log.{one.name}" for one in live.FOLLOWED if waits or one.name != "wait"]
    if endpoint.kind == "one" and "complete" in resource.fields:
        found += [f"outcome.{one.name}" for one in live.OUTCOME]
    return found


def _found(endpoint: Endpoint) -> Schema:
    if endpoint.kind in ("raw", "raw_inline"):
        stored = endpoint.resource is BuildData
        types = ("application/octet-stream",) if stored else ("text/plain", "text/html")
        return {"description": "Found.", "content": {media: {} for media in types}}
    name = endpoint.resource.singular
    meta: Schema = {"type": "object", "maxProperties": 0}
    if endpoint.kind == "many":
        meta = {"type": "object", "properties": {"total": _COUNT}, "required": ["total"]}
    items = {"type": "array", "items": _ref("schemas", name)}
    plural = endpoint.resource.plural
    answer = {
        "type": "object",
        "properties": {plural: items, "meta": meta},
        "required": [plural, "meta"],
    }
    return {
        "description": "Found.",
        "headers": {"X-Seq": {"schema": _COUNT}, "X-Event-Log": {"schema": _TEXT}},
        "content": {"application/json": {"schema": answer}, "text/plain": {}},
    }


def _events() -> Schema:
    """Describe the events over HTTP."""
    event = {
        "type": "object",
        "properties": {
            "seq": _COUNT,
            "topic": _TEXT,
            "at": {"type": "number"},
            "keys": {"type": "array", "items": _TEXT},
            "m": {"type": "object"},
        },
        "required": ["seq", "topic", "at", "m"],
    }
    counts = dict.fromkeys(("seq", "oldest", "newest"), _COUNT)
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
        "properties": {"error": _TEXT, "oldest": _COUNT, "newest": _COUNT, "log": _TEXT},
    }
    media = {"application/json": {"schema": page}, "text/event-stream": {}}
    refused = {status: _ref("responses", status) for status in ("400", "503")}
    text = {**_TEXT, "contentMediaType": "application/json"}
    return {
        "summary": "Events after a position.",
        "operationId": "get /events",
        "parameters": [_ref("parameters", f"events.{one.name}") for one in live.EVENTS],
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


def _refused(endpoint: Endpoint) -> Schema:
    found = ["400", "404", "503"] if endpoint.elements else ["400", "503"]
    if endpoint.resource is LogChunk:
        found.insert(2, "409")
    return {status: _ref("responses", status) for status in found}


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
    done = {"description": "Done.", "content": {"application/json": {"schema": _RESULT}}}
    refused = {status: _ref("responses", f"call.{status}") for status in _REFUSED_CALLS}
    return {
        "summary": f"Control one of {endpoint.resource.plural}.",
        "description": f"Methods:\n{methods}",
        "operationId": f"control {endpoint.path}",
        "tags": [endpoint.resource.plural],
        "parameters": [_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": call}}},
        "responses": {"200": done, **refused},
    }


_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A call that is repeated with its key is done once and answered alike.",
    "schema": {"type": "string"},
}


# Answers that are refusals.

_RESULT = _ref("schemas", "Result")
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
_ERROR_TEXT = {**_TEXT, "contentMediaType": "application/json"}
_ERROR_TEXT["contentSchema"] = _ref("schemas", "Error")
_RESPONSES = {
    **{
        status: {"description": said, "content": {"text/plain": {"schema": _ERROR_TEXT}}}
        for status, said in _REFUSED.items()
    },
    **{
        f"call.{status}": {
            "description": said,
            "content": {"application/json": {"schema": _ref("schemas", "Refusal")}},
        }
        for status, said in _REFUSED_CALLS.items()
    },
}
