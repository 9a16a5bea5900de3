"""
What is asked of a resource type: fields, filters, order, window, properties.

Every 400 of a query is born here. A query is parsed once and frozen; its ``shape`` is all of it but
the values, so that the SQL of a shape is built once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus

from buildapi.data.schema import Field, Resource
from buildapi.data.values import (
    LARGEST,
    OPERATORS,
    ORDERING,
    SMALLEST,
    Operator,
    integer,
    is_text,
)
from buildapi.errors import BadQuery

# The values of each argument.  In a URL there is at least one; in Python there may be none.
Arguments = Mapping[str, Sequence[str]]

# SQLite takes 32,766 bound values, and an expression that is a thousand levels deep.
MOST_VALUES = 8_192
MOST_CONTAINED = 512
NUL = "\0"
PLAIN = frozenset({"field", "order", "limit", "offset", "property"})
UNKNOWN = "unknown argument"


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
    properties: the names asked for; ``("*",)`` for all; None is a name that no property can have.
    """

    fields: tuple[str, ...] | None = None
    filters: tuple[Filter, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    offset: int = 0
    properties: tuple[str | None, ...] = ()


EVERYTHING = Query()


def arguments(text: str) -> dict[str, list[str]]:
    """Split a query string; arguments without ``=`` are dropped."""
    found: dict[str, list[str]] = {}
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(_unquoted(name), []).append(_unquoted(value))
    return found


def _unquoted(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def spelled(
    filters: Mapping[str, Any] | None = None,
    fields: str | Iterable[str] | None = None,
    order: str | Iterable[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    properties: str | Iterable[str] | None = None,
) -> dict[str, list[str]]:
    """
    Return a query given in Python as the arguments of the URL that means the same.

    filters: ``{"complete": False, "number__gt": 3, "name": ["a", "b"]}``; an empty list is equal to
    nothing. Raises BadQuery for a value that no URL can spell.
    """
    if filters is not None and not _is_named(filters):
        raise BadQuery("filters: a mapping of names to values is wanted")
    found = {
        name: [_text(name, one) for one in _several(value)]
        for name, value in (filters or {}).items()
    }
    others = {
        "field": fields,
        "order": order,
        "limit": limit,
        "offset": offset,
        "property": properties,
    }
    for name, value in others.items():
        if value is not None and (texts := [_text(name, one) for one in _several(value)]):
            found[name] = texts
    return found


def _is_named(filters: Any) -> bool:
    return isinstance(filters, Mapping) and all(isinstance(name, str) for name in filters)


def _several(value: Any) -> Iterable[Any]:
    return [value] if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else value


def _text(name: str, value: Any) -> str:
    if value is None:
        raise BadQuery(f"{name}: there is no way to ask for null; leave the filter out")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise BadQuery(f"{name}: a text, a whole number or a truth is wanted, not {shown(repr(value))}")


def parse_text(resource: type[Resource], text: str, *, single: bool) -> Query:
    """Parse a query string; BadQuery names the argument that is wrong."""
    if not text:
        return EVERYTHING
    return parse(resource, arguments(text), single=single)


def parse(resource: type[Resource], args: Arguments, *, single: bool) -> Query:
    """
    Parse the arguments of a query, in the order in which the wire format says they are checked.

    single: the path names one object; then filters are refused and order and window only checked.
    Raises BadQuery with the name of the argument, the reason, and what would be right.
    """
    try:
        return _parsed(resource, dict(args), single=single)
    except BadQuery as error:
        # Whatever else is wrong: a misspelt argument must not be looked for in vain.
        unknown = _unknown(resource, args)
        if unknown and not str(error).startswith(UNKNOWN):
            raise BadQuery(f"{error}; {UNKNOWN} {_shown_all(unknown)}") from None
        raise


def _parsed(resource: type[Resource], left: dict[str, Sequence[str]], *, single: bool) -> Query:
    fields = _fields(resource, left.pop("field", None))
    order = _order(resource, left.pop("order", ()), single=single)
    limit = _window("limit", left.pop("limit", None))
    offset = _window("offset", left.pop("offset", None)) or 0
    properties = _properties(left.pop("property", ()))
    filters = _filters(resource, left)
    _check_selected(fields, order, filters)
    if not single:
        return Query(fields, filters, order, limit, offset, properties)
    if filters:
        names = ", ".join(map(shown, left))
        raise BadQuery(f"{names}: this is not a collection; it takes no filters")
    return Query(fields, limit=limit, offset=offset, properties=properties)


def _known(resource: type[Resource], name: str, argument: str) -> None:
    # A resource whose objects have free keys (properties) has no declared fields.
    if name not in resource.fields and (resource.fields or not name):
        known = ", ".join(resource.fields)
        raise BadQuery(f"{argument}: no such field '{shown(name)}'; there are {known}")


def _fields(resource: type[Resource], values: Sequence[str] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    for name in values:
        _known(resource, name, "field")
    # In one order, whatever the client's: requests for the same fields have the same shape.
    return tuple(n for n in resource.fields if n in values) or tuple(dict.fromkeys(values))


def _order(
    resource: type[Resource], values: Sequence[str], *, single: bool
) -> tuple[tuple[str, bool], ...]:
    found: dict[str, bool] = {}
    for value in values:
        name = value.removeprefix("-")
        _known(resource, name, "order")
        # One object is in every order.
        if resource.fields and not single and not resource.fields[name].type.orderable:
            raise BadQuery(f"order: {name} is a list or an object; nothing can be ordered by it")
        # Once ordered by a field, to order by it again changes nothing.
        found.setdefault(name, not value.startswith("-"))
    return tuple(found.items())


def _properties(names: Sequence[str]) -> tuple[str | None, ...]:
    if "*" in names:
        return ("*",)
    return tuple(dict.fromkeys(name if is_text(name) else None for name in names))


def _window(name: str, values: Sequence[str] | None) -> int | None:
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


_WANTED = {
    "integer": "a whole number is wanted",
    "datetime": "a whole number of seconds since the epoch is wanted",
    "boolean": "on, true, yes, 1 or off, false, no, 0 is wanted",
}


def _filters(resource: type[Resource], args: Arguments) -> tuple[Filter, ...]:
    unknown = dict.fromkeys(_unknown(resource, args))
    filters = [
        _filter(argument, *found, values)
        for argument, values in args.items()
        if argument not in unknown and (found := _split(resource, argument)) is not None
    ]
    if unknown:
        raise BadQuery(
            f"{UNKNOWN} {_shown_all(unknown)}: there are field, order, limit, offset, property and "
            f"<field> or <field>__<{'|'.join(OPERATORS)}>; lt, le, gt and ge can be given once"
        )
    return tuple(filters)


def _unknown(resource: type[Resource], args: Arguments) -> list[str]:
    """Return the arguments that mean nothing."""
    return [
        argument
        for argument, values in args.items()
        if argument not in PLAIN
        and (
            (found := _split(resource, argument)) is None
            or (found[1] in ORDERING and len(values) != 1)
        )
    ]


def _shown_all(arguments: Iterable[str]) -> str:
    return ", ".join(map(shown, arguments))


def _filter(argument: str, field: Field, op: Operator, values: Sequence[str]) -> Filter:
    if not field.type.allows(op):
        raise BadQuery(
            f"{shown(argument)}: {op} means nothing on {field.name}, which is of type"
            f" {field.type.kind}"
        )
    most = MOST_CONTAINED if op == "contains" else MOST_VALUES
    if len(values) > most:
        raise BadQuery(f"{shown(argument)}: it can be given {most} times, not {len(values)}")
    try:
        parsed = tuple(field.type.parse(value) for value in values)
    except ValueError:
        wanted = _WANTED[(field.type.of or field.type).kind]
        raise BadQuery(f"invalid filter value for {shown(argument)}: {wanted}") from None
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
        return is_text(value)
    return bool(SMALLEST <= value <= LARGEST)


def _comparable_integer(op: Operator, value: int) -> tuple[Operator, int]:
    # No stored integer lies beyond 64 bits: everything is below, or everything above.
    if value > 0:
        return ("le" if op in ("lt", "le") else "gt"), LARGEST
    return ("ge" if op in ("gt", "ge") else "lt"), SMALLEST


def _comparable_text(op: Operator, value: str) -> tuple[Operator, str]:
    # No stored text has a lone surrogate: those code points lie between U+D7FF and U+E000.
    if is_text(value):
        return op, value
    cut = next(i for i, c in enumerate(value) if "\ud800" <= c <= "\udfff")
    return ("lt" if op in ("lt", "le") else "ge"), value[:cut] + "\ue000"


def without_nul(query: Query) -> Query:
    """Return an equal query for a database none of whose texts has the character NUL."""
    filters = tuple(map(_filter_without_nul, query.filters))
    properties = tuple(None if name is None or NUL in name else name for name in query.properties)
    return replace(query, filters=filters, properties=properties)


def _filter_without_nul(wanted: Filter) -> Filter:
    if not any(_has_nul(value) for value in wanted.values):
        return wanted
    if wanted.op not in ORDERING:
        values = tuple(value for value in wanted.values if not _has_nul(value))
        return Filter(wanted.field, wanted.op, values)
    # What is stored is as long as what stands before the NUL, and not above it, or it is above.
    before = wanted.values[0].partition(NUL)[0]
    return Filter(wanted.field, "le" if wanted.op in ("lt", "le") else "gt", (before,))


def _has_nul(value: Any) -> bool:
    return isinstance(value, str) and NUL in value


def shown(text: str) -> str:
    """Return text from a request so that an answer can repeat it."""
    return text.encode("utf-8", "backslashreplace").decode()[:200]
