"""The API as it tells of itself: every path, and what is found there."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from buildapi.data.fetch import Context, Plain
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.router import Route
from buildapi.data.schema import NOTHING, Resource, field
from buildapi.data.values import Json, ValueType
from buildapi.db.connect import Params, Reader

# What the contract calls these kinds; it has the same names as ours for the others.
_NAMES = {"object": "jsonobject", "sourced": "sourcedproperties"}


class Spec(Plain):
    """A path, and the type of what is found there."""

    plural = "specs"
    many = ("application.spec",)

    path: str = field(NOTHING, "The path's pattern, below the root of the API.")
    type: str = field(NOTHING, "What one object is called.")
    listed_as: str = field(NOTHING, "The name of the list in the answer.", name="plural")
    type_spec: Json = field(NOTHING, "What an object is made of: its fields with their types.")

    @classmethod
    def objects(
        cls,
        reader: Reader,  # noqa: ARG003  it is in no table
        pattern: str,  # noqa: ARG003  there is one
        bound: Params,  # noqa: ARG003  it has no keys
        query: Query,  # noqa: ARG003  filters and window are applied to what is returned
        context: Context,
    ) -> list[Row]:
        """Return one for each path, by path."""
        found = [_spec(route) for route in context.routes]
        return sorted(found, key=itemgetter("path"))


def _spec(route: Route) -> Row:
    return {
        "path": route.pattern.strip("/"),
        "type": route.resource.singular,
        "plural": route.resource.plural,
        "type_spec": _resource_spec(route.resource),
    }


def _resource_spec(resource: type[Resource]) -> Row:
    """Return what an object of a resource type is made of."""
    if not resource.fields:
        return {"name": resource.singular}
    fields = [(name, it.declared or it.type) for name, it in resource.fields.items()]
    return _object_spec(resource.singular, fields)


def _object_spec(name: str, fields: Iterable[tuple[str, ValueType]]) -> Row:
    parts = [
        {"name": part, "type": _type_name(of), "type_spec": _type_spec(of)} for part, of in fields
    ]
    return {"fields": parts, "type": name}


def _type_name(of: ValueType) -> str:
    return f"{_plain_name(of)} or None" if of.nullable else _plain_name(of)


def _plain_name(of: ValueType) -> str:
    if of.resource is not None:
        return str(of.resource.singular)
    if of.shape is not None:
        return of.shape.name
    return _NAMES.get(of.kind, of.kind)


def _type_spec(of: ValueType) -> Row:
    null = {"can_be_null": True} if of.nullable else {}
    if of.of is not None:
        return {"of": _type_spec(of.of), "type": "list", **null}
    if of.resource is not None:
        return {**_resource_spec(of.resource), **null}
    if of.shape is not None:
        return {**_object_spec(of.shape.name, of.shape.parts), **null}
    return {"name": _plain_name(of), **null}
