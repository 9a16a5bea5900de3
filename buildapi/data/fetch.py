"""
From an understood request to rows, on the thread that reads.

A page, its total and ``seq`` come from one snapshot. Rows come in portions, so that a long list
neither fills the memory as Python objects nor keeps the interpreter lock from the reactor.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from buildapi.data.forcefields import ForceScheduler
from buildapi.data.gate import Restriction
from buildapi.data.pages import Page
from buildapi.data.query import EVERYTHING, Query
from buildapi.data.router import Match, Route
from buildapi.data.schema import Resource
from buildapi.data.sql import Plan, Row, Shape, params_of, plan, shape_of
from buildapi.db.connect import Compiled, Params, Reader
from buildapi.db.engine import TooLarge
from buildapi.db.eventlog import newest
from buildapi.errors import CorruptValue, NoSuchResource

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Portion = list[Any]
PORTION = 200


class Ask(NamedTuple):
    """
    A request that has been understood: what to read, by which plan, with which values.

    plan: None for a type whose rows are no SELECT.  restriction: what must not be seen.
    page: None where nothing can come behind the answer, or nobody asked what does.
    """

    match: Match
    query: Query
    shape: Shape
    plan: Plan | None
    params: Params
    restriction: Restriction | None
    page: Page | None = None

    @property
    def single(self) -> bool:
        """Whether one object is asked for, not a list."""
        return self.shape.single


class Appending(Protocol[T_contra]):
    """Where portions go, as they are read and made into whatever was wanted."""

    def append(self, part: T_contra, /) -> None:
        """Take one more."""


class Fetched(NamedTuple, Generic[T]):
    """What was read: what took the portions, the number of all matches, the position of it."""

    parts: T
    total: int | None
    seq: int | None


class Totals:
    """
    How many rows match, remembered as long as nothing that matters has changed.

    A number counted at position E is right at position S if no table it depends on was changed
    after E, which is known only for positions that have been published.
    """

    def __init__(self, most: int = 2000) -> None:
        self.published = 0
        self._changed: dict[str, int] = {}
        self._known: OrderedDict[Any, tuple[int, int]] = OrderedDict()
        self._most = most

    def changed(self, tables: Iterable[str], seq: int) -> None:
        """Take note that the batch up to ``seq`` changed these tables."""
        # A batch without events changed them behind that position, not at it.
        changed_at = seq if seq > self.published else seq + 1
        self.published = seq
        for table in tables:
            self._changed[table] = changed_at

    def get(self, key: Any, tables: Iterable[str], seq: int) -> int | None:
        """Return the number for a snapshot at ``seq``, if it is known."""
        known = self._known.get(key)
        if known is None:
            return None
        counted_at, total = known
        if max(seq, counted_at) > self.published:
            return None
        unchanged = all(self._changed.get(table, 0) <= min(counted_at, seq) for table in tables)
        return total if unchanged else None

    def put(self, key: Any, seq: int, total: int) -> None:
        """Remember a number that was counted in a snapshot at ``seq``."""
        self._known[key] = (seq, total)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def fetched(  # what reading depends on
    reader: Reader,
    ask: Ask,
    make: Callable[[Portion], T],
    parts: Appending[T],
    totals: Totals | None,
    *,
    logged: bool,
    few: bool,
) -> tuple[int | None, int | None]:
    """
    Read what is asked for into ``parts``, and return the total and the position.

    make: from a portion of raw rows to what is wanted of them.  totals: None if the event log can't
    tell what changed.  logged: whether there is a position to read.  few: raise TooLarge rather
    than read more than a portion.  Raises NoSuchResource if a single object is not there.
    """
    assert ask.plan is not None  # noqa: S101  the caller looked
    if ask.single:
        rows = _one(reader, ask.plan, ask)
        parts.append(make(rows[:1]))
        return None, rows[0][-1] if ask.plan.has_seq else None
    limit, count = ask.query.limit, 0
    page, at_once = (ask.plan.page, ask.params), limit is not None and limit <= PORTION
    if few and ask.plan.has_seq and not at_once:
        page, at_once = _beginning(reader, ask), True
    if at_once and ask.plan.has_seq and (found := _in_one_statement(reader, ask, page, totals)):
        rows, total = found
        parts.append(make(rows))
        return total, rows[0][-1]
    with reader.snapshot():
        seq = newest(reader) if logged else None
        portions = reader.portions(*page, PORTION, few=at_once)
        with contextlib.closing(portions):
            for rows in portions:
                if few and count:
                    raise TooLarge
                parts.append(make(rows))
                count += len(rows)
        return _total(reader, ask.plan, ask, count, seq, totals), seq


def _one(reader: Reader, plan: Plan, ask: Ask) -> Portion:
    rows = reader.run_all(plan.page, ask.params)
    if not rows:
        raise NoSuchResource(f"not found while getting from endpoint for {ask.shape.pattern}")
    return rows


def _beginning(reader: Reader, ask: Ask) -> tuple[Compiled, Params]:
    """Return what reads a list that may be short: by a row too many it shows if it is not."""
    limited = plan(replace(ask.shape, limited=True), reader.dialect)
    return limited.page, {**ask.params, "limit": PORTION + 1}


def _in_one_statement(
    reader: Reader, ask: Ask, page: tuple[Compiled, Params], totals: Totals | None
) -> tuple[Portion, int] | None:
    """
    Read a page that tells its position, and its total; None if that has to be counted.

    A statement sees one state of the database: it needs no transaction, which a server would have
    to be told to begin and to end.
    """
    assert ask.plan is not None  # noqa: S101  the caller looked
    rows = reader.run_all(*page)
    if not rows:
        return None
    if len(rows) > PORTION:
        raise TooLarge
    total = _known_total(ask.plan, ask, len(rows), rows[0][-1], totals)
    return None if total is None else (rows, total)


def _total(  # what a total depends on
    reader: Reader, plan: Plan, ask: Ask, count: int, seq: int | None, totals: Totals | None
) -> int:
    known = _known_total(plan, ask, count, seq, totals)
    if known is not None:
        return known
    ((total,),) = reader.run_all(plan.count, ask.params)
    if totals is not None and seq is not None:
        totals.put(_counted(plan, ask), seq, total)
    return int(total)


def _known_total(
    plan: Plan, ask: Ask, count: int, seq: int | None, totals: Totals | None
) -> int | None:
    """Return how many rows match, if so many rows of a page say so or it is remembered."""
    query = ask.query
    complete = query.limit is None or count < query.limit
    if complete and (count > 0 or query.offset == 0):
        return query.offset + count
    if totals is None or seq is None:
        return None
    return totals.get(_counted(plan, ask), plan.tables, seq)


def _counted(plan: Plan, ask: Ask) -> Any:
    """Return what makes two counts the same."""
    return plan.count.sql, tuple(i for i in ask.params.items() if i[0] not in ("limit", "offset"))


def find(
    reader: Reader,
    resource: type[Resource],
    pattern: str,
    bound: Params,
    restriction: Restriction | None,
) -> Row:
    """Read the one object that a path of this pattern means; NoSuchResource if there is none."""
    shape = shape_of(resource, pattern, EVERYTHING, restriction, single=True, with_seq=False)
    ready = plan(shape, reader.dialect)
    params = params_of(bound, EVERYTHING, restriction)
    rows = reader.run_all(ready.page, params)
    if not rows:
        raise NoSuchResource(f"not found while getting from endpoint for {pattern}")
    found = ready.as_python(rows[0])
    for name, field in resource.fields.items():
        # SQLite keeps any value in any column; who finds an object goes on with its numbers.
        if field.type.kind == "integer" and not isinstance(found[name], int | None):
            raise CorruptValue(f"{resource.singular}: the stored {name} is no whole number")
    return found


@dataclass(frozen=True)
class Context:
    """
    What rows may depend on besides the database: rights, what the master is configured with, and
    all paths that there are.
    """

    restriction: Restriction | None
    forceschedulers: Mapping[str, ForceScheduler]
    routes: tuple[Route, ...]


class Plain(Resource, ABC):
    """
    A resource type whose rows are not a SELECT.

    tables: all that its rows depend on, whatever the path; beside what never changes.
    owners: by path that names it by its id, the type of the one object that its rows belong to, and
    the only tables that they depend on for who may see everything, with nothing but its rows.
    """

    tables: ClassVar[frozenset[str]] = frozenset()
    owners: ClassVar[Mapping[str, tuple[type[Resource], frozenset[str]]]] = {}

    @classmethod
    @abstractmethod
    def objects(
        cls, reader: Reader, pattern: str, bound: Params, query: Query, context: Context
    ) -> list[Row]:
        """
        Return the objects that a path means, before filters and window.

        Raises NoSuchResource if a single one is not there.
        """
