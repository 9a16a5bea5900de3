"""The API as a RAML 1.0 document."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from buildapi.data.api import RESOURCES, ROUTER
from buildapi.data.builddata import BuildData
from buildapi.data.logchunks import LogChunk
from buildapi.data.schema import Resource
from buildapi.data.values import ValueType
from buildapi.docs import yaml
from buildapi.docs.conventions import CONVENTIONS
from buildapi.docs.endpoints import (
    ROOT,
    Endpoint,
    Parameter,
    asked,
    described,
    endpoints,
    filters,
    object_types,
    orders,
    template,
)

Node = dict[str, Any]

_PLAIN = {
    "integer": "integer",
    "datetime": "integer",
    "string": "string",
    "identifier": "string",
    "boolean": "boolean",
    "binary": "nil",
    "object": "any",
    "sourced": "sourcedproperties",
}
_ELEMENT = {"n": "integer", "i": "string", "s": "string", "": "string"}
_COUNT = {"type": "integer", "minimum": 0, "required": False}


def document() -> Node:
    """Return the document as plain values."""
    listed = [resource for resource in RESOURCES if resource.fields]
    return {
        "title": "buildapi",
        "version": "v2",
        "description": "The data API of a build master: Buildbot's REST API v2.",
        "baseUri": "http://{host}",
        "baseUriParameters": {"host": {"type": "string", "default": "127.0.0.1:8010"}},
        "mediaType": ["application/json", "text/plain"],
        "documentation": [
            {"title": title, "content": content} for title, content in CONVENTIONS.items()
        ],
        "types": {**_objects(), **_MESSAGES},
        "traits": {**_TRAITS, **dict(trait for r in listed for trait in _traits(r))},
        ROOT: _tree(endpoints(ROUTER.routes)).described(),
    }


def text() -> str:
    """Return the document as it is checked in and served."""
    return "\n".join(("#%RAML 1.0", *yaml.lines(document()))) + "\n"


# Types.


def type_name(of: ValueType) -> str:
    """Return the type expression of a type."""
    name = _not_null(of)
    # Anything includes null; and what is never shown is null in any case.
    return f"{name} | nil" if of.nullable and name not in ("any", "nil") else name


def _not_null(of: ValueType) -> str:
    if of.of is not None:
        return f"({type_name(of.of)})[]" if of.of.nullable else f"{type_name(of.of)}[]"
    if of.resource is not None:
        return str(of.resource.singular)
    return of.shape.name if of.shape is not None else _PLAIN[of.kind]


def _objects() -> Node:
    docs = {resource.singular: resource for resource in RESOURCES}
    found = {
        name: _object(parts, docs.get(name))
        for name, parts in object_types(RESOURCES).items()
        if parts
    }
    prop = {"type": "array", "minItems": 2, "maxItems": 2}
    properties = {"type": "object", "properties": {"//": prop}}
    return {**found, "sourcedproperties": properties}


def _object(parts: dict[str, ValueType], resource: type[Resource] | None) -> Node:
    fields = {name: {"type": type_name(of), "required": False} for name, of in parts.items()}
    if resource is None:
        return {"type": "object", "properties": fields}
    for name, shown in fields.items():
        shown["description"] = resource.fields[name].doc
    return {"type": "object", "description": described(resource), "properties": fields}


_MESSAGES: Node = {
    "total": {"type": "object", "properties": {"total": "integer"}},
    "error": {"type": "object", "properties": {"error": "string"}},
    "call": {
        "type": "object",
        "properties": {
            "jsonrpc": {"type": "string", "enum": ["2.0"]},
            "id": "string | integer | boolean | nil",
            "method": "string",
            "params": "object",
        },
    },
    "result": {
        "type": "object",
        "properties": {"jsonrpc": "string", "id": "any", "result": "any"},
    },
    "refusal": {
        "type": "object",
        "properties": {
            "jsonrpc": "string",
            "id?": "any",
            "error": {
                "type": "object",
                "properties": {"code": "integer", "message": "string | object"},
            },
        },
    },
}


# Arguments.

_TRAITS: Node = {
    "paged": {
        "queryParameters": {
            "limit": {**_COUNT, "description": "Most objects."},
            "offset": {**_COUNT, "description": "How many to leave out at the beginning."},
        }
    },
    "propertied": {
        "queryParameters": {
            "property": {
                "type": "string[]",
                "required": False,
                "description": "Properties to show; * for all.",
            }
        }
    },
}


def _traits(resource: type[Resource]) -> list[tuple[str, Node]]:
    selected = {"field": _choice(list(resource.fields), "Fields to show.")}
    found = {f"{resource.plural}-selected": selected}
    if resource.many:
        order = {"order": _choice(orders(resource), "What to order by.")}
        found[f"{resource.plural}-listed"] = {**order, **_filters(resource)}
    return [(name, {"queryParameters": arguments}) for name, arguments in found.items()]


def _choice(values: list[str], doc: str) -> Node:
    items = {"type": "string", "enum": values}
    return {"type": "array", "items": items, "required": False, "description": doc}


def _filters(resource: type[Resource]) -> Node:
    """Return each field that can be filtered by; those with an operator are the convention."""
    found = {}
    for field_, operators in filters(resource):
        name = field_.name if "eq" in operators else f"{field_.name}__{operators[0]}"
        found[name] = {
            "type": f"{_not_null(asked(field_.type))}[]",
            "required": False,
            "description": f"Operators: {', '.join(operators)}.",
        }
    return found


# Paths.


@dataclass
class _Tree:
    """A path and what is below it.  parameter: by the name of an open element, what it takes."""

    below: dict[str, _Tree] = field(default_factory=dict)
    parameters: dict[str, list[Parameter]] = field(default_factory=dict)
    endpoint: Endpoint | None = None

    def add(self, endpoint: Endpoint) -> None:
        """Put an endpoint where its path says."""
        node = self
        for element in endpoint.elements:
            parent, node = node, node.below.setdefault(template(element), _Tree())
            if isinstance(element, Parameter):
                parent.parameters.setdefault(template(element), []).append(element)
        node.endpoint = endpoint

    def described(self) -> Node:
        """Return the resource that RAML has for it."""
        found: Node = {} if self.endpoint is None else _methods(self.endpoint)
        for element, tree in self.below.items():
            taken = self.parameters.get(element, ())
            found[f"/{element}"] = {**_taken(taken), **tree.described()}
        return found


def _tree(found: Iterable[Endpoint]) -> _Tree:
    root = _Tree()
    for endpoint in found:
        root.add(endpoint)
    return root


def _taken(parameters: Iterable[Parameter]) -> Node:
    """Return the declaration of an open element; below it, different paths may take more."""
    kinds = list(dict.fromkeys(kind for one in parameters for kind in one.kinds))
    if not kinds:
        return {}
    (name,) = {one.name for one in parameters}
    types = " | ".join(dict.fromkeys(_ELEMENT[kind] for kind in kinds))
    said = Parameter(name, tuple(kinds)).doc
    return {"uriParameters": {name: {"type": types, "description": f"It is {said}."}}}


def _methods(endpoint: Endpoint) -> Node:
    found: Node = {"get": _get(endpoint)}
    if endpoint.actions:
        found["post"] = _post(endpoint)
    return found


def _get(endpoint: Endpoint) -> Node:
    resource, patterns = endpoint.resource, ", ".join(endpoint.patterns)
    traits = []
    if endpoint.kind in ("one", "many") and resource.fields:
        traits.append(f"{resource.plural}-selected")
    if endpoint.kind == "many":
        traits.append(f"{resource.plural}-listed")
    if endpoint.kind == "many" or resource is LogChunk:
        traits.append("paged")
    if "properties" in resource.fields:
        traits.append("propertied")
    refused = {status: {"body": {"text/plain": "string"}} for status in _REFUSED}
    return {
        "displayName": endpoint.summary,
        "description": f"{endpoint.summary}  Taken: `{patterns}`.",
        **({"is": traits} if traits else {}),
        "responses": {"200": {"body": _found(endpoint)}, **refused},
    }


def _found(endpoint: Endpoint) -> Node:
    if endpoint.kind in ("raw", "raw_inline"):
        if endpoint.resource is BuildData:
            return {"application/octet-stream": {"type": "file"}}
        return {"text/plain": {"type": "string"}, "text/html": {"type": "string"}}
    meta = "total" if endpoint.kind == "many" else "object"
    plural, singular = endpoint.resource.plural, endpoint.resource.singular
    answer = {"type": "object", "properties": {plural: f"{singular}[]", "meta": meta}}
    return {"application/json": answer, "text/plain": {"type": "string"}}


def _post(endpoint: Endpoint) -> Node:
    methods = "".join(f"\n- `{name}`: {doc}" for name, doc in endpoint.actions.items())
    call = {"type": "call", "properties": {"method": {"enum": list(endpoint.actions)}}}
    refused = {status: _json("refusal") for status in _REFUSED_CALLS}
    return {
        "displayName": f"Control one of {endpoint.resource.plural}.",
        "description": f"Methods:\n{methods}",
        "body": {"application/json": call},
        "responses": {"200": _json("result"), **refused},
    }


def _json(name: str) -> Node:
    return {"body": {"application/json": {"type": name}}}


_REFUSED = ("400", "404", "503")
_REFUSED_CALLS = ("400", "403", "404", "409", "422", "501", "503")
