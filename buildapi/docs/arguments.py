"""The arguments of requests, in paths and in queries, as OpenAPI has them."""

from __future__ import annotations

from buildapi.data.api import RESOURCES
from buildapi.data.logchunks import LogChunk
from buildapi.data.schema import Resource
from buildapi.docs import live
from buildapi.docs.endpoints import IDENTIFIER, Endpoint, Parameter, asked, filters, orders
from buildapi.docs.jsonschema import COUNT, TEXT, Schema, not_null

_ELEMENT: dict[str, Schema] = {
    "n": {"type": "integer", "minimum": 0},
    "i": {"type": "string", "pattern": IDENTIFIER},
    "s": {"type": "string", "minLength": 1},
    "": {"type": "string", "minLength": 1},
}
_SHARED: dict[str, Schema] = {
    "limit": {"name": "limit", "in": "query", "description": "Most objects.", "schema": COUNT},
    "offset": {
        "name": "offset",
        "in": "query",
        "description": "How many objects to leave out at the beginning.",
        "schema": COUNT,
    },
    "property": {
        "name": "property",
        "in": "query",
        "description": "Properties to show; * for all.",
        "schema": {"type": "array", "items": TEXT},
    },
}
_TAKEN: dict[str, Schema] = {
    "text": TEXT,
    "texts": {"type": "array", "items": TEXT},
    "integer": COUNT,
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


def shared() -> dict[str, Schema]:
    """Return the arguments of queries that stand in more than one place, by name."""
    resources = [resource for resource in RESOURCES if resource.fields]
    return {**_SHARED, **_LIVE, **dict(p for r in resources for p in _parameters(r))}


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
        value = not_null(asked(field.type))
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


def in_path(parameter: Parameter) -> Schema:
    """Describe an element of a path."""
    kinds = [_ELEMENT[kind] for kind in parameter.kinds]
    return {
        "name": parameter.name,
        "in": "path",
        "required": True,
        "description": f"It is {parameter.doc}.",
        "schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
    }


def names(endpoint: Endpoint) -> list[str]:
    """Return the names of those that a GET takes in its query."""
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
