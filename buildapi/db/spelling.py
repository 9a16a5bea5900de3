"""
SQL that each database system spells in its own way: JSON, joined texts, order by code point.

Each class is an expression; what it compiles to stands below it, SQLite's way first.
"""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

Column = sa.ColumnElement[Any]


class _Spelled(FunctionElement[Any]):
    """An expression of other expressions.  names: of the function, by dialect."""

    inherit_cache = True
    names: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        compiles(cls)(_function)


def _function(element: _Spelled, compiler: Any, **kw: Any) -> str:
    name = element.names.get(compiler.dialect.name, element.names["sqlite"])
    return f"{name}({compiler.process(element.clauses, **kw)})"


class json_object(_Spelled):  # noqa: N801  it reads as the function that it is
    """A JSON object: of a name, a value, a name, a value, and so on."""

    type = sa.Text()
    names: ClassVar = {
        "sqlite": "json_object",
        "postgresql": "json_build_object",
        "mariadb": "json_object",
    }


class json_list(_Spelled):  # noqa: N801
    """A JSON array of these values."""

    type = sa.Text()
    names: ClassVar = {
        "sqlite": "json_array",
        "postgresql": "json_build_array",
        "mariadb": "json_array",
    }


class json_value(_Spelled):  # noqa: N801
    """A JSON text as the value that it is, to stand in an object or array."""

    type = sa.Text()
    names: ClassVar = {"sqlite": "json", "mariadb": "json_compact"}


@compiles(json_value, "postgresql")
def _cast_to_json(element: json_value, compiler: Any, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS json)"


class json_string(_Spelled):  # noqa: N801
    """A text as a JSON string, with its quotes; to be joined with others, as text."""

    type = sa.Text()
    names: ClassVar = {"sqlite": "json_quote", "mariadb": "json_quote"}


@compiles(json_string, "postgresql")
def _text_of_json(element: json_string, compiler: Any, **kw: Any) -> str:
    return f"CAST(to_json({compiler.process(element.clauses, **kw)}) AS text)"


class json_all(_Spelled):  # noqa: N801
    """
    The values of all rows as a JSON array; an empty one if there are none.

    A second expression is what they are ordered by, where the system can do that.
    """

    type = sa.Text()
    names: ClassVar = {"sqlite": "json_group_array"}


@compiles(json_all, "postgresql")
def _json_agg(element: json_all, compiler: Any, **kw: Any) -> str:
    return f"coalesce(json_agg({_ordered(element, compiler, **kw)}), '[]')"


@compiles(json_all, "mariadb")
def _json_arrayagg(element: json_all, compiler: Any, **kw: Any) -> str:
    return f"coalesce(json_arrayagg({_ordered(element, compiler, **kw)}), '[]')"


def _ordered(element: json_all, compiler: Any, **kw: Any) -> str:
    return " ORDER BY ".join(compiler.process(part, **kw) for part in element.clauses)


class json_in_order(FunctionElement[Any]):  # noqa: N801
    """
    An expression of all matching rows as a JSON array, in order; a scalar sub-select.

    Where an aggregate takes no ORDER BY (SQLite before 3.44), it takes the rows as they come.
    """

    type = sa.Text()
    inherit_cache = False

    def __init__(
        self, element: Column, source: sa.FromClause, where: Column, order: Column
    ) -> None:
        together = sa.select(json_all(element, order)).select_from(source).where(where)
        self.aggregated = together.scalar_subquery()
        rows = sa.select(element.label("element")).select_from(source).where(where)
        ordered = rows.order_by(order).correlate_except(source).subquery()
        self.lined_up = sa.select(json_all(ordered.c.element)).scalar_subquery()
        super().__init__(self.aggregated)


@compiles(json_in_order)
def _aggregated(element: json_in_order, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.aggregated, **kw))


@compiles(json_in_order, "sqlite")
def _lined_up(element: json_in_order, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.lined_up, **kw))


class joined(_Spelled):  # noqa: N801
    """The texts of all rows, with ``between`` between them; null if there are none."""

    type = sa.Text()
    names: ClassVar = {"sqlite": "group_concat", "postgresql": "string_agg"}

    def __init__(self, text: Column, between: str) -> None:
        super().__init__(text, sa.literal_column(f"'{between}'"))


@compiles(joined, "mariadb")
def _separated(element: joined, compiler: Any, **kw: Any) -> str:
    text, between = (compiler.process(one, **kw) for one in element.clauses)
    return f"group_concat({text} SEPARATOR {between})"


class position(_Spelled):  # noqa: N801
    """Where a text has another one, from 1, by code points; 0 if it has not."""

    type = sa.Integer()
    names: ClassVar = {"sqlite": "instr", "postgresql": "strpos", "mariadb": "instr"}

    def __init__(self, text: Column, part: Column) -> None:
        # As a text: MariaDB compares it with the collation that texts are bound with.
        super().__init__(text, sa.type_coerce(part, sa.Text()))


class code_points(_Spelled):  # noqa: N801
    """A text that is ordered by code point."""

    type = sa.Text()
    names: ClassVar = {}


@compiles(code_points)
def _as_it_is(element: code_points, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(code_points, "postgresql")
def _collated(element: code_points, compiler: Any, **kw: Any) -> str:
    return f'({compiler.process(element.clauses, **kw)}) COLLATE "C"'


@compiles(code_points, "mariadb")
def _converted(element: code_points, compiler: Any, **kw: Any) -> str:
    text = compiler.process(element.clauses, **kw)
    return f"CONVERT({text} USING utf8mb4) COLLATE utf8mb4_nopad_bin"


class null_is_least(_Spelled):  # noqa: N801
    """What to order by, such that null comes before every value."""

    names: ClassVar = {}
    inherit_cache = False

    def __init__(self, value: Column, *, up: bool) -> None:
        super().__init__(value)
        self.up = up


@compiles(null_is_least)
def _by_default(element: null_is_least, compiler: Any, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} {'ASC' if element.up else 'DESC'}"


@compiles(null_is_least, "postgresql")
def _said_aloud(element: null_is_least, compiler: Any, **kw: Any) -> str:
    direction = "ASC NULLS FIRST" if element.up else "DESC NULLS LAST"
    return f"{compiler.process(element.clauses, **kw)} {direction}"


def same_for_index(column: Column, name: str) -> Column:
    """Compare a column with the parameter ``name`` as an index on it does, which may fold."""
    # Declared as a text it would be bound with the collation that everything else is compared by.
    return column == sa.bindparam(name, type_=sa.LargeBinary())
