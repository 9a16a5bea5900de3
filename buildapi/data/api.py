"""
``DataAPI``: every way to read, control and change what a build master knows.

In process and over the web the same functions answer: a path given as a tuple with keyword
arguments means the same as the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred

from buildapi.data import plainrows
from buildapi.data.builddata import BuildData, BuildDataUpdates
from buildapi.data.builders import Builder
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build, BuildUpdates
from buildapi.data.buildsets import Buildset
from buildapi.data.changes import Change, ChangeUpdates
from buildapi.data.changesources import ChangeSource
from buildapi.data.codebases import Branch, Codebase, CodebaseUpdates, Commit
from buildapi.data.commitgraphs import CommitGraph
from buildapi.data.fetch import (
    PORTION,
    Ask,
    Context,
    Fetched,
    Plain,
    Portion,
    Totals,
    fetched,
)
from buildapi.data.forcefields import ForceScheduler
from buildapi.data.forceschedulers import ForceSchedulers
from buildapi.data.gate import ANONYMOUS, MASTER, Gate, Identity, Restriction
from buildapi.data.housekeeping import Housekeeping
from buildapi.data.logchunks import LogChunk
from buildapi.data.logs import Log
from buildapi.data.logupdates import LogUpdates
from buildapi.data.masters import Master
from buildapi.data.projects import Project, ProjectUpdates
from buildapi.data.properties import Properties, Property
from buildapi.data.query import Query, arguments, parse, parse_text, spelled
from buildapi.data.requesting import BuildRequestUpdates
from buildapi.data.rootlinks import RootLink
from buildapi.data.router import LONGEST_REMEMBERED, Match, Route, Router
from buildapi.data.schedulers import Scheduler
from buildapi.data.schema import Resource
from buildapi.data.sourcestamps import SourceStamp
from buildapi.data.specs import Spec
from buildapi.data.sql import Plan, Shape, params_of, plan, shape_of
from buildapi.data.steps import Step, StepUpdates
from buildapi.data.testresults import TestResult, TestResultSet, TestResultUpdates
from buildapi.data.workers import Worker
from buildapi.db.connect import Reader
from buildapi.db.engine import Database, TooLarge
from buildapi.db.eventlog import newest
from buildapi.db.transaction import Tx

T = TypeVar("T")
Row = dict[str, Any]

RESOURCES: tuple[type[Resource], ...] = (
    Builder,
    Build,
    BuildRequest,
    Worker,
    LogChunk,
    Buildset,
    Change,
    Master,
    SourceStamp,
    Scheduler,
    ForceSchedulers,
    Step,
    Log,
    Properties,
    Property,
    RootLink,
    ChangeSource,
    Project,
    Codebase,
    Commit,
    Branch,
    CommitGraph,
    BuildData,
    TestResultSet,
    TestResult,
    Spec,
)
ROUTER = Router(RESOURCES)


class AllUpdates(
    StepUpdates,
    LogUpdates,
    BuildUpdates,
    BuildDataUpdates,
    BuildRequestUpdates,
    ChangeUpdates,
    ProjectUpdates,
    CodebaseUpdates,
    TestResultUpdates,
    Housekeeping,
):
    """Every update method; see the classes it is made of."""


class Rows(list[Row]):
    """
    A list of objects.  total: all matches, before the window.  seq: the position it was read at.
    """

    total: int | None = None
    seq: int | None = None


def rows_of(ask: Ask) -> Callable[[Portion], list[Row]]:
    """Return what makes raw rows into dictionaries of plain Python values."""
    if ask.plan is None:
        return cast("Callable[[Portion], list[Row]]", list)  # its rows are dictionaries already
    make = ask.plan.as_python
    return lambda rows: [make(row) for row in rows]


class DataAPI:
    """Reads (``get``), and by ``updates`` and ``control`` changes, what is in one database."""

    def __init__(
        self, database: Database, gate: Gate, forceschedulers: Iterable[ForceScheduler] = ()
    ) -> None:
        self.database = database
        self.gate = gate
        self.forceschedulers = {scheduler.name: scheduler for scheduler in forceschedulers}
        self.totals = Totals()
        self.updates = AllUpdates(database)
        self._prepared = lru_cache(maxsize=4096)(self._prepare)

    def get(
        self,
        path: str | Sequence[int | str],
        *,
        filters: Mapping[str, Any] | None = None,
        fields: str | Iterable[str] | None = None,
        order: str | Iterable[str] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        properties: str | Iterable[str] | None = None,
        identity: Identity = MASTER,
    ) -> Deferred[Any]:
        """
        Read an object, or a list of them.

        path: ``("builds", 10, "steps")`` or ``"builds/10/steps"``; a text may carry a query, as in
        a URL.  filters: ``{"complete": False, "number__gt": 3}``; a list means any of its values.
        properties: names, or ``["*"]``.
        Fires with a dictionary, or with ``Rows`` for a collection.
        Fails with NoSuchPath, NoSuchResource, BadQuery or Unavailable.
        """
        query = {
            "filters": filters,
            "fields": fields,
            "order": order,
            "limit": limit,
            "offset": offset,
            "properties": properties,
        }
        return Deferred.fromCoroutine(self._get(path, query, identity))

    async def _get(
        self, path: str | Sequence[int | str], query: dict[str, Any], identity: Identity
    ) -> Any:
        args = {}
        if isinstance(path, str):
            path, _, text = path.partition("?")
            args = arguments(text)
        match = ROUTER.find(path)
        for name, values in spelled(**query).items():
            args[name] = [*args.get(name, ()), *values]
        parsed = parse(match.route.resource, args, single=match.route.kind != "many")
        ask = self._asked(match, parsed, self.gate.restriction(identity))
        answer = await self._anywhere(ask, rows_of(ask))
        rows = Rows(row for part in answer.parts for row in part)
        rows.total, rows.seq = answer.total, answer.seq
        return rows[0] if ask.single else rows

    def transaction(self, body: Callable[[Tx], T]) -> Deferred[T]:
        """
        Make several updates one transaction; fire with what ``body`` returns once it is durable.

        body: gets the transaction, and calls updates by ``.within(tx, …)``; it runs on the writer's
        thread, maybe more than once, and must have no other effects.
        """
        return self.database.write(body)

    def understood(self, path: str, query: str, identity: Identity = ANONYMOUS) -> Ask:
        """
        Return what a GET of ``path`` (below /api/v2, percent-encoded) asks for.

        Raises NoSuchPath, BadQuery.
        """
        match = ROUTER.match(path)
        restriction = self.gate.restriction(identity)
        # Long texts are not remembered: what pollers repeat is short.
        prepare = self._prepared if len(query) < LONGEST_REMEMBERED else self._prepare
        parsed, shape, ready = prepare(match.route, query, restriction)
        params = params_of(match.bound, parsed, restriction)
        return Ask(match, parsed, shape, ready, params, restriction)

    def _prepare(
        self, route: Route, text: str, restriction: Restriction | None
    ) -> tuple[Query, Shape, Plan | None]:
        query = parse_text(route.resource, text, single=route.kind != "many")
        return query, *self._planned(route, query, restriction)

    def _asked(self, match: Match, query: Query, restriction: Restriction | None) -> Ask:
        shape, ready = self._planned(match.route, query, restriction)
        params = params_of(match.bound, query, restriction)
        return Ask(match, query, shape, ready, params, restriction)

    def _planned(
        self, route: Route, query: Query, restriction: Restriction | None
    ) -> tuple[Shape, Plan | None]:
        single = route.kind != "many"
        shape = shape_of(
            route.resource, route.pattern, query, restriction, single=single, with_seq=self.logged
        )
        ready = None
        if not issubclass(route.resource, Plain):
            ready = plan(shape, self.database.connector.dialect)
        return shape, ready

    @property
    def logged(self) -> bool:
        """Whether the event log tells of every change."""
        return self.database.identity is not None and not self.database.settings.foreign_writer

    def fetch(self, ask: Ask, make: Callable[[Portion], T]) -> Fetched[T] | Deferred[Fetched[T]]:
        """
        Read what is asked for: at once if it is small, else in the pool.

        make: from a portion of raw rows to what is wanted of them; it runs where the rows are read.
        Raises, or fails with, NoSuchResource and Unavailable.
        """
        limit = ask.query.limit
        return self.database.near(
            ask.shape,
            lambda reader, few: self._read(reader, ask, make, few=few),
            small=ask.single or (limit is not None and limit <= PORTION),
        )

    async def _anywhere(self, ask: Ask, make: Callable[[Portion], T]) -> Fetched[T]:
        answer = self.fetch(ask, make)
        return await answer if isinstance(answer, Deferred) else answer

    def _read(
        self, reader: Reader, ask: Ask, make: Callable[[Portion], T], *, few: bool
    ) -> Fetched[T]:
        if ask.plan is None:
            return self._plain(reader, ask, make, few=few)
        totals = self.totals if self.logged and self.database.writer is not None else None
        return fetched(reader, ask, make, totals, logged=self.logged, few=few)

    def _plain(
        self, reader: Reader, ask: Ask, make: Callable[[Portion], T], *, few: bool
    ) -> Fetched[T]:
        resource = ask.match.route.resource
        assert issubclass(resource, Plain)  # noqa: S101  only those have no plan
        if few and resource is LogChunk:
            raise TooLarge
        context = Context(ask.restriction, self.forceschedulers, ROUTER.routes)
        seq = newest(reader) if self.logged else None
        rows = resource.objects(
            reader, ask.match.route.pattern, ask.match.bound, ask.query, context
        )
        if ask.single:
            return Fetched([make([plainrows.cut(rows[0], ask.query)])], None, seq)
        found = plainrows.matching(rows, ask.query)
        return Fetched([make(plainrows.window(found, ask.query))], len(found), seq)
