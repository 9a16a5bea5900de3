"""
Every URL of the API as descriptions of it have them: the walk that all of them share.

A description knows a path by its shape: where the API takes ``builders/n:builderid`` and
``builders/s:buildername``, it has one path ``/builders/{builderid_or_buildername}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from buildapi.data.router import Kind, Route
from buildapi.data.schema import Field, Resource
from buildapi.data.values import OPERATORS, Operator, ValueType

ROOT = "/api/v2"


@dataclass(frozen=True)
class Parameter:
    """A part of a path that is open.  kinds: what the API takes there, as its patterns say it."""

    name: str
    kinds: tuple[str, ...]

    @property
    def doc(self) -> str:
        """Say what can stand there."""
        return " or ".join(_TAKEN[kind] for kind in self.kinds)


_TAKEN = {
    "n": "a number in plain digits",
    "i": "an identifier",
    "s": "a text, percent-encoded",
    "": "a number; nothing is found by another text",
}
IDENTIFIER = "^[a-zA-Z_-][a-zA-Z0-9._-]*$"


@dataclass(frozen=True)
class Endpoint:
    """
    A path, and what is there.

    patterns: the API's own, one or several.  elements: the path's, literal or open.
    """

    resource: type[Resource]
    kind: Kind
    patterns: tuple[str, ...]
    elements: tuple[str | Parameter, ...]

    @property
    def path(self) -> str:
        """Return the path as a template: ``/builds/{buildid}``."""
        return "".join(f"/{template(element)}" for element in self.elements)

    @property
    def parameters(self) -> list[Parameter]:
        """Return the open parts, from left to right."""
        return [element for element in self.elements if isinstance(element, Parameter)]

    @property
    def summary(self) -> str:
        """Say what a GET gives."""
        plural = self.resource.plural
        said = {
            "one": f"One of {plural}.",
            "many": f"A list of {plural}.",
            "raw": "The bytes, to be saved.",
            "raw_inline": "The text, to be looked at.",
        }
        return said[self.kind]

    @property
    def actions(self) -> dict[str, str]:
        """Return the JSON-RPC methods that a POST can call there, each with what it does."""
        return dict(self.resource.actions) if self.kind == "one" else {}


def template(element: str | Parameter) -> str:
    """Return an element of a path, in braces if it is open."""
    return f"{{{element.name}}}" if isinstance(element, Parameter) else element


def endpoints(routes: Iterable[Route]) -> list[Endpoint]:
    """Return what the routes give, one for each shape of path, by path."""
    alike: dict[tuple[str, ...], list[Route]] = {}
    for route in routes:
        alike.setdefault(tuple(_shape(route.pattern)), []).append(route)
    return sorted(map(_merged, alike.values()), key=lambda endpoint: endpoint.path)


def _shape(pattern: str) -> Iterator[str]:
    yield from ("*" if ":" in element else element for element in _elements(pattern))


def _elements(pattern: str) -> list[str]:
    return [element for element in pattern.split("/") if element]


def _merged(routes: list[Route]) -> Endpoint:
    """Return the endpoint that routes of one shape are; numbers are tried before names."""
    ((resource, kind),) = {(route.resource, route.kind) for route in routes}
    columns = zip(*(_elements(route.pattern) for route in routes), strict=True)
    elements = tuple(_element(dict.fromkeys(column)) for column in columns)
    return Endpoint(resource, kind, tuple(route.pattern for route in routes), elements)


def _element(found: Iterable[str]) -> str | Parameter:
    parts = sorted((element.partition(":") for element in found), key=lambda part: _rank(part[0]))
    (kind, colon, _), *_ = parts
    if not colon:
        return kind
    return Parameter("_or_".join(p[2] for p in parts), tuple(p[0] for p in parts))


def _rank(kind: str) -> int:
    return list(_TAKEN).index(kind) if kind in _TAKEN else 0


# What can be asked of a resource type.


def orders(resource: type[Resource]) -> list[str]:
    """Return the values that ``order`` can have."""
    names = [name for name, field in resource.fields.items() if field.type.orderable]
    return [f"{sign}{name}" for name in names for sign in ("", "-")]


def filters(resource: type[Resource]) -> Iterator[tuple[Field, list[Operator]]]:
    """Yield the fields that lists can be filtered by, with the operators that each allows."""
    for field in resource.fields.values():
        allowed = [operator for operator in OPERATORS if field.type.allows(operator)]
        if allowed:
            yield field, allowed


def asked(of: ValueType) -> ValueType:
    """Return the type of the values that a field is filtered by: a list's are its elements."""
    return of.of if of.of is not None else of


def described(resource: type[Resource]) -> str:
    """Return what the resource type is, in a sentence or two on one line."""
    return " ".join((resource.__doc__ or "").split())


def object_types(resources: Iterable[type[Resource]]) -> dict[str, dict[str, ValueType]]:
    """
    Return every type of object that answers are made of, by name: its parts with their types.

    These are the resource types, and the objects of fixed parts inside them.
    """
    found: dict[str, dict[str, ValueType]] = {}
    for resource in resources:
        found[resource.singular] = {name: it.type for name, it in resource.fields.items()}
        for of in found[resource.singular].values():
            inner = asked(of).shape
            if inner is not None:
                found[inner.name] = dict(inner.parts)
    return dict(sorted(found.items()))
