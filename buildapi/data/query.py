"""
What is asked of a resource type: fields, filters, order, window, properties.

Every 400 of a query is born here. A query is parsed once and frozen; its ``shape`` is all of it but
the values, so that the SQL of a shape is built once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from buildapi.data.schema import Field, Resource
from buildapi.data.values import LARGEST, OPERATORS, ORDERING, SMALLEST, Operator, integer
from buildapi.errors import BadQuery

Arguments = Sequence[tuple[str, str]]

# Reserved for streams and log searches; each is refused where it has no meaning.
RESERVED = frozenset(
    ("include", "cursor", "until", "wait", "follow", "since", "lines", "grep", "context", "streams")
)


@dataclass(frozen=True)
class Filter:
    """``field op any of values``, on the values of the JSON answer; null is none of them."""

    field: str
    op: Operator
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Query:
    """
    A parsed query.

    fields: those wanted, None for all.  order: (field, ascending) pairs.  limit: None for no limit.
    properties: the names asked for; ``("*",)`` for all.
    """

    fields: tuple[str, ...] | None = None
    filters: tuple[Filter, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    offset: int = 0
    properties: tuple[str, ...] = ()

    @property
    def windowed(self) -> bool:
        """Whether a page is asked for, not the whole list."""
        return self.limit is not None or self.offset > 0


EVERYTHING = Query()


def arguments(text: str) -> list[tuple[str, str]]:
    """Split a query string; arguments without ``=`` are dropped."""
    found = []
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if equals:
            found.append((_unquoted(name), _unquoted(value)))
    return found


def _unquoted(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def spelled(
    filters: Mapping[str, Any] | None = None,
    fields: Iterable[str] | None = None,
    order: str | Iterable[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    properties: Iterable[str] | None = None,
) -> list[tuple[str, str]]:
    """
    Return a query given in Python as the arguments of the URL that means the same.

    filters: ``{"complete": False, "number__gt": 3, "name": ["a", "b"]}``.
    """
    found: list[tuple[str, str]] = []
    for name, value in (filters or {}).items():
        several = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        found += [(name, _text(name, one)) for one in several]
    found += [("field", name) for name in fields or ()]
    found += [("order", name) for name in ([order] if isinstance(order, str) else order or ())]
    found += [("limit", str(limit))] * (limit is not None)
    found += [("offset", str(offset))] * (offset is not None)
    found += [("property", name) for name in properties or ()]
    return found


def _text(name: str, value: Any) -> str:
    if value is None:
        raise BadQuery(f"{name}: there is no way to ask for null; leave the filter out")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse_text(resource: type[Resource], text: str, *, single: bool) -> Query:
    """Parse a query string; BadQuery names the argument that is wrong."""
    if not text:
        return EVERYTHING
    return parse(resource, arguments(text), single=single)


def parse(resource: type[Resource], args: Arguments, *, single: bool) -> Query:
    """
    Parse the arguments of a query.

    single: the path names one object; then filters are refused and order and window only checked.
    Raises BadQuery with the name of the argument, the reason, and what would be right.
    """
    grouped: dict[str, list[str]] = {}
    for name, value in args:
        grouped.setdefault(name, []).append(value)
    fields = _fields(resource, grouped.pop("field", None))
    order = _order(resource, grouped.pop("order", []))
    limit = _window("limit", grouped.pop("limit", None))
    offset = _window("offset", grouped.pop("offset", None)) or 0
    properties = tuple(dict.fromkeys(grouped.pop("property", ())))
    _refuse_unknown(resource, grouped)
    filters = tuple(_filter(resource, name, values) for name, values in grouped.items())
    _check_selected(fields, order, filters)
    if single:
        if filters:
            names = ", ".join(grouped)
            raise BadQuery(f"{names}: this is not a collection; it takes no filters")
        return Query(fields, limit=limit, offset=offset, properties=properties)
    if "*" in properties:
        properties = ("*",)
    return Query(fields, filters, order, limit, offset, properties)


def _known(resource: type[Resource], name: str, argument: str) -> None:
    # A resource whose objects have free keys (properties) has no declared fields.
    if name not in resource.fields and (resource.fields or not name):
        known = ", ".join(resource.fields)
        raise BadQuery(f"{argument}: no such field '{shown(name)}'; there are {known}")


def _fields(resource: type[Resource], values: list[str] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    for name in values:
        _known(resource, name, "field")
    return tuple(dict.fromkeys(values))


def _order(resource: type[Resource], values: list[str]) -> tuple[tuple[str, bool], ...]:
    found = []
    for value in values:
        name = value.removeprefix("-")
        _known(resource, name, "order")
        if resource.fields and not resource.fields[name].type.orderable:
            raise BadQuery(f"order: {name} is a list or an object; nothing can be ordered by it")
        found.append((name, not value.startswith("-")))
    return tuple(found)


def _window(name: str, values: list[str] | None) -> int | None:
    if values is None:
        return None
    try:
        value = integer(values[0])
    except ValueError:
        raise BadQuery(f"invalid {name}: a whole number from 0 is wanted") from None
    if value < 0:
        raise BadQuery(f"invalid {name}: it must not be negative")
    return min(value, LARGEST)


def _split(resource: type[Resource], argument: str) -> tuple[Field, Operator] | None:
    if argument in resource.fields:
        return resource.fields[argument], "eq"
    name, mark, op = argument.rpartition("__")
    for known in OPERATORS:
        if mark and op == known and name in resource.fields:
            return resource.fields[name], known
    return None


def _refuse_unknown(resource: type[Resource], grouped: Mapping[str, list[str]]) -> None:
    wrong = []
    for argument, values in grouped.items():
        found = _split(resource, argument)
        if found is None or (found[1] in ORDERING and len(values) > 1):
            wrong.append(shown(argument))
    if wrong:
        raise BadQuery(
            f"unknown argument {', '.join(wrong)}: there are field, order, limit, offset, property "
            f"and <field> or <field>__<{'|'.join(OPERATORS)}>; lt, le, gt and ge can be given once"
        )


def _filter(resource: type[Resource], argument: str, values: list[str]) -> Filter:
    found = _split(resource, argument)
    if found is None:  # _refuse_unknown has been asked before
        raise BadQuery(f"unknown argument {shown(argument)}")
    field, op = found
    if not field.type.allows(op):
        raise BadQuery(
            f"{shown(argument)}: {op} means nothing on {field.name}, a {field.type.kind}"
        )
    try:
        parsed = tuple(field.type.parse(value) for value in values)
    except ValueError:
        wanted = field.type.of or field.type
        raise BadQuery(
            f"invalid filter value for {shown(argument)}: {field.name} is a {wanted.kind}"
        ) from None
    return _possible(Filter(field.name, op, parsed))


def _check_selected(
    fields: tuple[str, ...] | None,
    order: tuple[tuple[str, bool], ...],
    filters: tuple[Filter, ...],
) -> None:
    if fields is None:
        return
    for name, _ in order:
        if name not in fields:
            raise BadQuery(f"order: cannot order on un-selected fields; add field={name}")
    for one in filters:
        if one.field not in fields:
            raise BadQuery(
                f"{one.field}: cannot filter on un-selected fields; add field={one.field}"
            )


def _possible(wanted: Filter) -> Filter:
    """Return an equal filter whose values a database can take."""
    if wanted.op in ORDERING:
        op, value = wanted.op, wanted.values[0]
        if isinstance(value, str):
            op, value = _comparable_text(op, value)
        elif isinstance(value, int) and not SMALLEST <= value <= LARGEST:
            op, value = _comparable_integer(op, value)
        return Filter(wanted.field, op, (value,))
    storable = tuple(value for value in dict.fromkeys(wanted.values) if _storable(value))
    return Filter(wanted.field, wanted.op, storable)


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
    return bool(SMALLEST <= value <= LARGEST)


def _comparable_integer(op: Operator, value: int) -> tuple[Operator, int]:
    # No stored integer lies beyond 64 bits: everything is below, or everything above.
    if value > 0:
        return ("le" if op in ("lt", "le") else "gt"), LARGEST
    return ("ge" if op in ("gt", "ge") else "lt"), SMALLEST


def _comparable_text(op: Operator, value: str) -> tuple[Operator, str]:
    # No stored text has a lone surrogate: those code points lie between U+D7FF and U+E000.
    if _storable(value):
        return op, value
    cut = next(i for i, c in enumerate(value) if "\ud800" <= c <= "\udfff")
    return ("lt" if op in ("lt", "le") else "ge"), value[:cut] + "\ue000"


def shown(text: str) -> str:
    """Return text from a request so that an answer can repeat it."""
    return text.encode("utf-8", "backslashreplace").decode()[:200]
