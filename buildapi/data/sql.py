"""
From a resource type, a path and a query to SQL.

Pure: builds and compiles each *shape* of a query once (type, path keys, fields, operators with
their number of values, order), and pairs it with a generated row maker. Values are bound when it
runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa

from buildapi.data.gate import Restriction
from buildapi.data.query import Filter, Query
from buildapi.data.schema import (
    EMPTY_OBJECT,
    NOTHING,
    Column,
    Condition,
    Field,
    Narrowing,
    Resource,
    truth,
)
from buildapi.data.storedjson import valid_json
from buildapi.data.values import ORDERING
from buildapi.db import spelling
from buildapi.db.connect import Compiled, Params
from buildapi.db.tables import buildapi_log, builds

Row = dict[str, Any]
RowMaker = Callable[[Sequence[Any]], Row]
Cells = Sequence[tuple[Field, Column]]


@dataclass(frozen=True)
class Plan:
    """
    How to answer every query of one shape.

    page gives the rows; count their number without the window. as_json and as_python make a row:
    the first leaves nested JSON as the text that it is. tables: what the answer depends on.
    has_seq: whether each row ends with the position that it was read at.
    """

    page: Compiled
    count: Compiled
    as_json: RowMaker
    as_python: RowMaker
    tables: frozenset[str]
    has_seq: bool


@dataclass(frozen=True)
class Shape:
    """All that a plan depends on."""

    resource: type[Resource]
    pattern: str
    fields: tuple[str, ...] | None
    filters: tuple[tuple[Any, ...], ...]
    order: tuple[tuple[str, bool], ...]
    limited: bool
    skipping: bool
    properties: int
    restricted: int
    with_seq: bool
    single: bool


def shape_of(
    resource: type[Resource],
    pattern: str,
    query: Query,
    restriction: Restriction | None,
    *,
    single: bool,
    with_seq: bool,
) -> Shape:
    """Return the shape of a query: what is left when its values are taken away."""
    return Shape(
        resource,
        pattern,
        query.fields,
        tuple(_filter_shape(resource.fields[one.field], one) for one in query.filters),
        query.order,
        query.limit is not None and not single,
        query.offset > 0 and not single,
        -1 if query.properties == ("*",) else len(query.properties),
        0 if restriction is None else len(restriction.hidden_builderids),
        with_seq,
        single,
    )


def _filter_shape(field: Field, one: Filter) -> tuple[Any, ...]:
    if field.type.kind == "boolean":
        # Only two values exist: which of them pass is part of the shape, and nothing is bound.
        return (one.field, one.op, tuple(v for v in (False, True) if _passes(v, one)))
    return (one.field, one.op, _extent(len(one.values)))


def _extent(number: int) -> int:
    # The last value is repeated up to a power of two: lists of any length make few shapes.
    return 1 << (number - 1).bit_length() if number else 0


def _passes(value: bool, one: Filter) -> bool:
    match one.op:
        case "eq" | "in":
            return value in one.values
        case "ne" | "notin":
            return value not in one.values
        case "lt":
            return bool(value < one.values[0])
        case "le":
            return bool(value <= one.values[0])
        case "gt":
            return bool(value > one.values[0])
        case _:
            return bool(value >= one.values[0])


def params_of(bound: Params, query: Query, restriction: Restriction | None) -> Params:
    """Return the values that a plan of this query's shape wants."""
    params = dict(bound)
    for number, one in enumerate(query.filters):
        if one.values and isinstance(one.values[0], bool):
            continue
        for index in range(_extent(len(one.values))):
            params[f"f{number}_{index}"] = one.values[min(index, len(one.values) - 1)]
    if query.limit is not None:
        params["limit"] = query.limit
    if query.offset:
        params["offset"] = query.offset
    if query.properties != ("*",):
        params.update((f"p{index}", name) for index, name in enumerate(query.properties))
    if restriction is not None:
        params.update((f"g{i}", b) for i, b in enumerate(sorted(restriction.hidden_builderids)))
    return params


@lru_cache(maxsize=2048)
def plan(shape: Shape, dialect: sa.Dialect) -> Plan:
    """Build and compile the SQL of a shape."""
    resource = shape.resource
    narrowing = Narrowing(
        shape.pattern, shape.properties, frozenset(name for name, _, _ in shape.filters)
    )
    source, where = resource.located(shape.pattern)
    where = [*where, *_filters(shape, narrowing), *_restricted(shape, narrowing)]
    wanted = [resource.fields[name] for name in shape.fields or resource.fields]
    cells = [(field, field.sql(narrowing)) for field in wanted]
    columns: list[Column] = selected(cells)
    # A server is asked for a page in one statement, if that says all; SQLite needs no journey.
    has_seq = shape.with_seq and (shape.single or dialect.name != "sqlite")
    if has_seq:
        columns.append(sa.select(buildapi_log.c.seq).scalar_subquery().label("_seq"))
    # SELECT needs a column, even where all that is wanted is always the same.
    page = sa.select(*(columns or [sa.literal_column("1")])).select_from(source).where(*where)
    if not shape.single:
        page = page.order_by(*_order(shape, narrowing))
        far = shape.limited and shape.skipping and dialect.name == "postgresql"
        if far and (isinstance(source, sa.Join) or _has_subselects(cells)):
            page = page.where(_in_window(page, shape))
        else:
            page = _windowed(page, shape)
    count = sa.select(sa.func.count()).select_from(source).where(*where)
    return Plan(
        Compiled(page, dialect),
        Compiled(count, dialect),
        row_maker(cells, fragments=True),
        row_maker(cells, fragments=False),
        _tables(page),
        has_seq,
    )


def _windowed(page: sa.Select[Any], shape: Shape) -> sa.Select[Any]:
    if shape.limited:
        page = page.limit(sa.bindparam("limit"))
    if shape.skipping:
        page = page.offset(sa.bindparam("offset"))
    return page


def _has_subselects(cells: Cells) -> bool:
    nodes = (node for _, column in cells for node in sa.sql.visitors.iterate(column))
    return any(isinstance(node, sa.ScalarSelect) for node in nodes)


def _in_window(page: sa.Select[Any], shape: Shape) -> Condition:
    """
    Return the condition that a row is on the page.

    PostgreSQL makes the joins and sub-selects of every row that it skips; of ids there are none.
    """
    ident = shape.resource.row_key()
    shown = _windowed(page.with_only_columns(ident), shape).correlate(None).scalar_subquery()
    return ident == sa.any_(sa.func.array(shown, type_=sa.ARRAY(sa.BigInteger)))


def _filters(shape: Shape, narrowing: Narrowing) -> list[Condition]:
    found = []
    for number, (name, op, extent) in enumerate(shape.filters):
        field = shape.resource.fields[name]
        if field.type.kind == "boolean":
            found.append(_boolean(field, op, extent, narrowing))
        else:
            numbers = (field.type.of or field.type).kind in ("integer", "datetime")
            kind = sa.BigInteger() if numbers else sa.Text()
            values: list[Column] = [
                sa.bindparam(f"f{number}_{index}", type_=kind) for index in range(extent)
            ]
            found.append(_condition(field, op, values, narrowing))
    return found


def _boolean(field: Field, op: str, passing: tuple[bool, ...], narrowing: Narrowing) -> Condition:
    value = field.sql(narrowing)
    null_passes = field.type.nullable and op in ("ne", "notin")
    if len(passing) == 2:  # noqa: PLR2004  both truth values
        return sa.true() if null_passes or not field.type.nullable else value.is_not(None)
    if not passing:
        return value.is_(None) if null_passes else sa.false()
    found = truth(value) if passing[0] else _untruth(value)
    return sa.or_(found, value.is_(None)) if null_passes else found


def _untruth(value: Column) -> Condition:
    if isinstance(value.type, sa.Boolean):
        return sa.not_(value)
    return value == sa.literal_column("0")


def _condition(field: Field, op: str, values: list[Column], narrowing: Narrowing) -> Condition:
    value = field.sql(narrowing)
    if op == "contains":
        return sa.or_(sa.false(), *(field.contains(one, narrowing) for one in values))
    if op in ("eq", "in"):
        return value.in_(values) if len(values) > 1 else _single(value, values, sa.false())
    if op in ("ne", "notin"):
        if not values:
            return sa.true()
        differs = value.not_in(values) if len(values) > 1 else value != values[0]
        # null differs from every value.
        return sa.or_(value.is_(None), differs) if field.type.nullable else differs
    assert op in ORDERING  # noqa: S101  the query parser knows no other operator
    value = _comparable(field, value)
    compare = {"lt": value.__lt__, "le": value.__le__, "gt": value.__gt__, "ge": value.__ge__}
    return compare[op](values[0])


def _single(value: Column, values: list[Column], otherwise: Condition) -> Condition:
    return value == values[0] if values else otherwise


def _order(shape: Shape, narrowing: Narrowing) -> list[Any]:
    resource, found = shape.resource, []
    for name, up in shape.order:
        # What is always null orders nothing, and PostgreSQL would not have it there.
        if resource.fields[name].sql(narrowing) is not NOTHING:
            found.append(_ordered(resource.fields[name], narrowing, up=up))
        if name == resource.ident:
            return found
    return [*found, resource.id_column().asc()]


def _ordered(field: Field, narrowing: Narrowing, *, up: bool) -> Column:
    value = _comparable(field, field.sql(narrowing))
    if field.type.nullable:
        return spelling.null_is_least(value, up=up)
    return value.asc() if up else value.desc()


def _comparable(field: Field, value: Column) -> Column:
    """Return a field's SQL such that texts are ordered by code point."""
    return spelling.code_points(value) if field.type.is_text else value


def _restricted(shape: Shape, narrowing: Narrowing) -> list[Condition]:
    """Leave out what belongs to a builder that the gate hides, and what is below it in paths."""
    if not shape.restricted:
        return []
    hidden: list[Column] = [sa.bindparam(f"g{index}") for index in range(shape.restricted)]
    found = [shape.resource.visible(hidden)]
    if "builderid" in narrowing.keys:
        found.append(sa.bindparam("builderid").not_in(hidden))
    if "buildid" in narrowing.keys:
        build = builds.alias("of_path")
        its = sa.select(build.c.builderid).where(build.c.id == sa.bindparam("buildid"))
        found.append(its.scalar_subquery().not_in(hidden))
    return [condition for condition in found if condition is not None]


def _tables(statement: sa.Select[Any]) -> frozenset[str]:
    return frozenset(
        table.name
        for table in sa.sql.visitors.iterate(statement)
        if isinstance(table, sa.Table) and not table.name.startswith("buildapi_")
    )


def selected(cells: Cells) -> list[Column]:
    """Return what has to be selected: all but what is always the same."""
    return [column.label(f.name) for f, column in cells if _constant(f, column) is None]


def row_maker(cells: Cells, *, fragments: bool) -> RowMaker:
    """Generate ``lambda r: {"id": r[0], …}``: twice as quick as zipping names to values."""
    parts, index = [], 0
    for field, column in cells:
        value = _constant(field, column)
        if value is None:
            value = _cell(field, f"r[{index}]")
            index += 1
        parts.append(f"{field.name!r}: {value}")
    made: RowMaker = eval(  # noqa: S307  the text is made of our own field names
        f"lambda r: {{{', '.join(parts)}}}", {"nested": _fragment if fragments else _loaded}
    )
    return made


def _constant(field: Field, column: Column) -> str | None:
    if column is EMPTY_OBJECT:
        return "{}"
    return "None" if column is NOTHING or field.type.kind == "binary" else None


def _cell(field: Field, cell: str) -> str:
    if field.type.kind == "boolean":
        return f"None if {cell} is None else {cell} == 1" if field.type.nullable else f"{cell} == 1"
    if not field.type.json_text:
        return cell
    return f"nested({cell}, {_EMPTY.get(field.type.kind, 'null')!r})"


# What is shown where the stored text is no JSON.
_EMPTY = {"list": "[]", "sourced": "{}"}


def _fragment(text: str | None, otherwise: str) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(valid_json(text, otherwise))


def _loaded(text: str | None, otherwise: str) -> Any:
    return None if text is None else json.loads(valid_json(text, otherwise))
