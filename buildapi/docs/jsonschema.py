"""The JSON Schemas of what the API answers and takes."""

from __future__ import annotations

from typing import Any

from buildapi.data.api import RESOURCES
from buildapi.data.schema import Resource
from buildapi.data.values import ValueType
from buildapi.docs.endpoints import described, object_types

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
_PROPERTY: Schema = {"type": "array", "prefixItems": [{}, TEXT], "minItems": 2, "maxItems": 2}
_PLAIN: dict[str, Schema] = {
    "integer": {"type": "integer"},
    "datetime": {"type": "integer", "description": "Seconds since the epoch."},
    "string": TEXT,
    "identifier": TEXT,
    "boolean": {"type": "boolean"},
    "binary": {"type": "null", "description": "Bytes are not shown here."},
    "object": {},
    "sourced": {"type": "object", "additionalProperties": _PROPERTY},
}


def schema(of: ValueType) -> Schema:
    """Return the JSON Schema of a type."""
    found = not_null(of)
    if not of.nullable or not found or of.kind == "binary":
        return found
    if "$ref" in found:
        return {"anyOf": [found, {"type": "null"}]}
    return {**found, "type": [found["type"], "null"]}


def not_null(of: ValueType) -> Schema:
    """Return the JSON Schema of a type where it is not null."""
    if of.of is not None:
        return {"type": "array", "items": schema(of.of)}
    if of.resource is not None:
        return ref("schemas", of.resource.singular)
    if of.shape is not None:
        return ref("schemas", of.shape.name)
    return _PLAIN[of.kind]


def ref(kind: str, name: str) -> Schema:
    """Return a reference to a component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def objects() -> dict[str, Schema]:
    """Return the schemas of all objects, by name."""
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


def messages() -> dict[str, Schema]:
    """Return the schemas of errors, and of the answers to calls, by name."""
    ident = {"type": ["string", "integer", "boolean", "null"]}
    version = {"const": "2.0"}
    sentences = {"type": "object", "additionalProperties": TEXT}
    fault = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"anyOf": [TEXT, sentences]}},
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
