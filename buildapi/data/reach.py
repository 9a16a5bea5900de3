"""
Who has to look again after a batch: open questions, by what can change their answers.

What is proved, so that a batch costs nobody SQL whom it cannot concern:

- An answer depends on the tables that its SQL reads; a batch that touched none of them left it
  as it was.
- Of most changes the rows are known (``Committed.touched``): inserted, or changed where they are,
  not put below another parent, not deleted. A question about the rows below one parent
  (``builds/7/steps``, ``builds?builderid=3``), or about one row, does not change by other rows of
  that table: they were none of its rows before, and are none now. Which parent a row has, the
  batch's events tell, as they show the whole object; of a row without one it is not known, and
  everybody looks again.
- Rows that only belong to a row of another table, as properties do to a build, concern who asks
  for that row; where that is to be seen from the SQL.
- That holds where the SQL reads the table once: else it may look at other rows, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from buildapi.data.fetch import Ask, Plain
from buildapi.data.schema import Resource
from buildapi.db.groupcommit import Committed
from buildapi.db.tables import metadata
from buildapi.db.transaction import owner
from buildapi.mq.event import Event

T = TypeVar("T")

# A question about more parents than these is asked again whenever the table changes.
MOST_VALUES = 64


class Handle(NamedTuple):
    """A field by which rows are told apart: the id of a type's rows, or that of their parent."""

    resource: type[Resource]
    field: str

    @property
    def is_own(self) -> bool:
        """Whether it is the row's own id."""
        return self.field == self.resource.ident


class Narrow(NamedTuple):
    """Rows of one table: those that have one of the values."""

    table: str
    handle: Handle
    values: tuple[int, ...]


def tables(ask: Ask) -> frozenset[str]:
    """Return the tables that an answer depends on."""
    if ask.plan is not None:
        return ask.plan.tables
    resource = ask.match.route.resource
    assert issubclass(resource, Plain)  # noqa: S101  only those have no plan
    return resource.tables


def narrowed(ask: Ask) -> Mapping[str, Narrow | None]:
    """Return the tables that an answer depends on, with the rows to which it is confined there."""
    resource, pattern = ask.match.route.resource, ask.match.route.pattern
    if ask.plan is not None:
        found = _narrow(ask)
        return {table: found and _at(found, table, ask.plan.page.sql) for table in tables(ask)}
    assert issubclass(resource, Plain)  # noqa: S101  only those have no plan
    if pattern not in resource.owners or ask.restriction is not None:
        return dict.fromkeys(resource.tables)
    kind, owned = resource.owners[pattern]
    assert kind.ident is not None  # noqa: S101  it is what the path names it by
    value = ask.match.bound[kind.ident]
    assert isinstance(value, int)  # noqa: S101  as above
    return {table: Narrow(table, Handle(kind, kind.ident), (value,)) for table in owned}


def _at(found: Narrow, table: str, sql: str) -> Narrow | None:
    """Return to which rows of a table the same confines an answer."""
    if table == found.table:
        return found
    own, column = metadata.tables[found.table], owner(metadata.tables[table])
    if column is None or _mentions(sql, table) != 1:
        return None
    (key,) = own.primary_key.columns
    joined = f"{table}.{column.name} = {found.table}.{key.name}"
    return found._replace(table=table) if column.references(key) and joined in sql else None


def _narrow(ask: Ask) -> Narrow | None:
    """Return to which rows of its own table a question is confined, if that is plain to see."""
    resource = ask.match.route.resource
    if ask.plan is None or ask.match.route.pattern in resource.special:
        return None
    table = resource.table.name
    if _mentions(ask.plan.page.sql, table) != 1:
        return None
    found = [
        Narrow(table, handle, values)
        for column, values in _conditions(ask)
        if len(values) <= MOST_VALUES and (handle := _handle(resource, column)) is not None
    ]
    # The row's own id needs no event to be known.
    return min(found, key=lambda one: (not one.handle.is_own, len(one.values)), default=None)


def _mentions(sql: str, table: str) -> int:
    # Every FROM and JOIN has the bare name; what else has it is counted to be on the safe side.
    return len(re.findall(rf"(?<![.\w]){table}(?![.\w])", sql))


def _conditions(ask: Ask) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Yield columns with the values of which every row of the answer has one."""
    resource = ask.match.route.resource
    for name, value in ask.match.bound.items():
        if isinstance(value, int) and name in resource.keys:
            yield resource.keys[name], (value,)
    for one in ask.query.filters:
        if one.op in ("eq", "in") and resource.fields[one.field].type.kind == "integer":
            yield resource.fields[one.field].expression, one.values


def _handle(resource: type[Resource], column: Any) -> Handle | None:
    if not isinstance(column, sa.Column) or column.table is not resource.table:
        return None
    if not (column.primary_key or column.foreign_keys):
        return None
    for name, field in resource.fields.items():
        if field.expression is column and (column.foreign_keys or name == resource.ident):
            return Handle(resource, name)
    return None


def told(resource: type[Resource], events: Sequence[Event]) -> dict[int, Mapping[str, Any]]:
    """Return the objects of a type that events show, by id."""
    words = resource.topic.split(".")
    found: dict[int, Mapping[str, Any]] = {}
    for event in events:
        its_words = event.topic.split(".")
        if len(its_words) == len(words) + 1 and all(map(_fits, words, its_words)):
            found[event.message.get(resource.ident, 0)] = event.message
    return found


def _builders(handle: Handle, events: Sequence[Event]) -> dict[int, int | None]:
    """Return the builder of each build of which an event tells anything, if that is asked for."""
    if handle.field != "builderid" or handle.resource.topic != "build.{buildid}":
        return {}
    words = (event.topic.split(".") for event in events)
    return {
        int(its[1]): event.builderid
        for its, event in zip(words, events, strict=True)
        if its[0] == "build" and its[1].isdecimal()
    }


def _fits(template: str, word: str) -> bool:
    return template == word or template.startswith("{")


class Reach(Generic[T]):
    """
    Those who wait for a change: each with the question that its answer is to.

    What waits must be hashable; it is in here once.
    """

    def __init__(self) -> None:
        self._by_table: dict[str, dict[T, None]] = {}
        self._by_row: dict[str, dict[Handle, dict[int, dict[T, None]]]] = {}

    def add(self, ask: Ask, who: T) -> None:
        """Wait."""
        for place in self._places(ask, make=True):
            place[who] = None

    def remove(self, ask: Ask, who: T) -> None:
        """Wait no more; the question is the one that it was added with."""
        for place in self._places(ask, make=False):
            place.pop(who, None)
        self._sweep(ask)

    def touched(self, committed: Committed) -> list[T]:
        """Return those whose answers a batch may have changed."""
        found: dict[T, None] = {}
        for table, idents in committed.touched.items():
            found.update(self._by_table.get(table, {}))
            for handle, by_value in self._by_row.get(table, {}).items():
                for value in _values(handle, by_value, idents, committed.events):
                    found.update(by_value.get(value, {}))
        return list(found)

    def _places(self, ask: Ask, *, make: bool) -> Iterator[dict[T, None]]:
        for table, confined in narrowed(ask).items():
            if confined is None:
                yield self._by_table.setdefault(table, {}) if make else self._by_table[table]
                continue
            by_value = self._by_row.setdefault(table, {}).setdefault(confined.handle, {})
            for value in confined.values:
                yield by_value.setdefault(value, {}) if make else by_value[value]

    def _sweep(self, ask: Ask) -> None:
        """Drop the places where nobody is left, or every id ever watched would keep one."""
        for table, confined in narrowed(ask).items():
            if confined is None:
                continue
            handles = self._by_row[table]
            by_value = handles[confined.handle]
            for value in confined.values:
                if not by_value.get(value, True):
                    del by_value[value]
            if not by_value:
                del handles[confined.handle]


def _values(
    handle: Handle, known: Mapping[int, Any], idents: set[int] | None, events: Sequence[Event]
) -> Iterator[int]:
    """Return the values, of those that are known, that touched rows may have."""
    if idents is None:
        yield from known
    elif handle.is_own:
        yield from idents
    else:
        objects = told(handle.resource, events)
        builders = _builders(handle, events)
        for ident in idents:
            value = objects.get(ident, {}).get(handle.field, builders.get(ident))
            if not isinstance(value, int):
                yield from known
                return
            yield value
