"""
``DataAPI``: every way to read, control and change what a build master knows.

In process and over the web the same functions answer: a path given as a tuple with keyword
arguments means the same as the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Protocol, Self, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from buildapi.data import logtext, plainrows
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
    Appending,
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
from buildapi.data.pages import Page, capped, page
from buildapi.data.projects import Project, ProjectUpdates
from buildapi.data.properties import Properties, Property
from buildapi.data.query import NUL, Query, arguments, parse, parse_text, spelled, without_nul
from buildapi.data.requesting import BuildRequestUpdates
from buildapi.data.rootlinks import RootLink
from buildapi.data.router import LONGEST_REMEMBERED, Match, Route, Router
from buildapi.data.schedulers import Scheduler
from buildapi.data.schema import Resource
from buildapi.data.sourcestamps import SourceStamp
from buildapi.data.specs import Spec
from buildapi.data.spool import Spool
from buildapi.data.sql import Plan, Shape, params_of, plan, shape_of
from buildapi.data.steps import Step, StepUpdates
from buildapi.data.testresults import TestResult, TestResultSet, TestResultUpdates
from buildapi.data.versions import Versions
from buildapi.data.workers import Worker
from buildapi.db.connect import Reader
from buildapi.db.engine import LOGS, Database, TooLarge
from buildapi.db.eventlog import newest
from buildapi.db.transaction import Tx

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
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


class Gathering(Appending[T_contra], AbstractContextManager[object], Protocol[T_contra]):
    """
    Where a thread puts what it reads, inside of ``with``: entered again, it begins anew.

    It is closed if the reading fails, or if nobody waits for it any more; else by who asked for it.
    """

    def close(self) -> None:
        """Let go of what was read, though it may be filled right now."""


G = TypeVar("G", bound=Gathering[Any])
P = TypeVar("P", bound=Appending[Any])


class Gathered(list[T]):
    """Everything that was read, in memory."""

    def __enter__(self) -> Self:
        """Begin anew."""
        self.clear()
        return self

    def __exit__(self, *_: object) -> None:
        """Keep it."""

    def close(self) -> None:
        """Nothing has to be let go of."""


def _closed(failure: Failure, parts: Gathering[Any]) -> Failure:
    parts.close()
    return failure


def rows_of(ask: Ask) -> Callable[[Portion], list[Row]]:
    """Return what makes raw rows into dictionaries of plain Python values."""
    if ask.plan is None:
        return cast("Callable[[Portion], list[Row]]", list)  # its rows are dictionaries already
    make = ask.plan.as_python
    return lambda rows: [make(row) for row in rows]


class DataAPI:
    """
    Reads (``get``), and by ``updates`` and ``control`` changes, what is in one database.

    most_rows: how many rows a list that somebody else asks for has, if he does not say; 0: all.
    """

    def __init__(
        self,
        database: Database,
        gate: Gate,
        forceschedulers: Iterable[ForceScheduler] = (),
        most_rows: int = 0,
    ) -> None:
        self.database = database
        self.gate = gate
        self.forceschedulers = {scheduler.name: scheduler for scheduler in forceschedulers}
        self.totals = Totals()
        self.versions = Versions()
        self._most_rows = most_rows
        self.updates = AllUpdates(database)
        self._prepared = lru_cache(maxsize=4096)(self._prepare)
        self._stores_nul = database.connector.STORES_NUL

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
        properties: names, or ``["*"]``.  Without a limit a list is whole, however long it is.
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
        match = self._findable(ROUTER.find(path))
        for name, values in spelled(**query).items():
            args[name] = [*args.get(name, ()), *values]
        parsed = parse(match.route.resource, args, single=match.route.kind != "many")
        ask = self.asked(match, self._askable(parsed), self.gate.restriction(identity))
        reading = self.fetch(ask, rows_of(ask), Gathered[list[Row]]())
        answer = await reading if isinstance(reading, Deferred) else reading
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
        match = self._findable(ROUTER.match(path))
        restriction = self.gate.restriction(identity)
        # Long texts are not remembered: what pollers repeat is short.
        prepare = self._prepared if len(query) < LONGEST_REMEMBERED else self._prepare
        parsed, shape, ready, page = prepare(match.route, query, restriction)
        params = params_of(match.bound, parsed, restriction)
        return Ask(match, parsed, shape, ready, params, restriction, page)

    def _prepare(
        self, route: Route, text: str, restriction: Restriction | None
    ) -> tuple[Query, Shape, Plan | None, Page | None]:
        if route.kind != "many":
            query = self._askable(parse_text(route.resource, text, single=True))
            return query, *self._planned(route, query, restriction), None
        asked = self._askable(parse_text(route.resource, text, single=False))
        query = capped(asked, self._most_rows)
        its_page = page(text, query, capped=asked.limit is None)
        return query, *self._planned(route, query, restriction), its_page

    def _askable(self, query: Query) -> Query:
        return query if self._stores_nul else without_nul(query)

    def _findable(self, match: Match) -> Match:
        """Return the same path for a database none of whose texts has the character NUL."""
        if self._stores_nul:
            return match
        bound = {k: None if v.__class__ is str and NUL in v else v for k, v in match.bound.items()}
        return Match(match.route, bound)

    def asked(self, match: Match, query: Query, restriction: Restriction | None) -> Ask:
        """Return the same for a path and a query that have been understood."""
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
    def log(self) -> str | None:
        """The identity of the event log, if it tells of every change."""
        database = self.database
        return None if database.settings.foreign_writer else database.identity

    @property
    def logged(self) -> bool:
        """Whether the event log tells of every change."""
        return self.log is not None

    def changed(self, tables: Iterable[str], seq: int) -> None:
        """Take note that the batch up to ``seq``, which is being published, changed these."""
        tables = tuple(tables)
        self.totals.changed(tables, seq)
        self.versions.changed(tables)

    @property
    def tells_versions(self) -> bool:
        """Whether nothing changes that is not published here: nobody else writes."""
        return self.logged and self.database.writer is not None

    def version(self, ask: Ask) -> int | None:
        """
        Return what stays the same as long as the answer does, where ``tells_versions``.

        None: the answer depends on more than tables.  One that is read after this shows at least
        what had been published at this moment.
        """
        return None if ask.plan is None else self.versions.newest(ask.plan.tables)

    def fetch(
        self, ask: Ask, make: Callable[[Portion], T], parts: G
    ) -> Fetched[list[T]] | Fetched[G] | Deferred[Fetched[list[T]] | Fetched[G]]:
        """
        Read what is asked for: at once if it is small, else in the pool.

        make: from a portion of raw rows to what is wanted of them; it runs where the rows are read.
        parts: takes them, unless there are few; closed if the reading fails or is given up.
        Raises, or fails with, NoSuchResource and Unavailable, and what ``parts`` has to say.
        """
        limit = ask.query.limit

        def work(reader: Reader, few: bool) -> Fetched[list[T]] | Fetched[G]:
            if few:
                some: list[T] = []
                return self._read(reader, ask, make, some, few=True)
            with parts:
                return self._read(reader, ask, make, parts, few=False)

        # A whole list on a server may turn out to be short; one that does not is known for a while.
        perhaps = ask.plan is not None and ask.plan.has_seq
        small = perhaps or ask.single or (limit is not None and limit <= PORTION)
        only = (ask.plan.page, ask.params) if ask.single and ask.plan is not None else None
        answer = self.database.near(ask.shape, work, small=small, all_of_it=only)
        if isinstance(answer, Deferred):
            answer.addErrback(_closed, parts)
        return answer

    def lines(
        self, ask: Ask, around: Callable[[Row], tuple[bytes, bytes]], parts: Spool
    ) -> Deferred[Fetched[Spool]]:
        """
        Read lines of a log into ``parts``, as JSON, bit by bit.

        around: from the object without its content to what stands before and behind that.
        Fails as ``fetch`` does.
        """

        def work(reader: Reader) -> Fetched[Spool]:
            seq = newest(reader) if self.logged else None
            match, query = ask.match, ask.query
            found = LogChunk.opened(
                reader, match.route.pattern, match.bound, query, ask.restriction
            )
            row = plainrows.cut(found.row, query)
            opening, closing = around(row)
            with parts:
                parts.append(opening)
                if "content" in row:
                    logtext.fill(parts, reader, found)
                parts.append(closing)
            return Fetched(parts, None, seq)

        return self.database.read(work, LOGS).addErrback(_closed, parts)

    def aside(self, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work``, which takes a while and needs no database, where downloads are made."""
        return self.database.read(lambda _: work(), LOGS)

    def _read(
        self, reader: Reader, ask: Ask, make: Callable[[Portion], T], parts: P, *, few: bool
    ) -> Fetched[P]:
        if ask.plan is None:
            total, seq = self._plain(reader, ask, make, parts, few=few)
        else:
            totals = self.totals if self.tells_versions else None
            total, seq = fetched(reader, ask, make, parts, totals, logged=self.logged, few=few)
        return Fetched(parts, total, seq)

    def _plain(
        self,
        reader: Reader,
        ask: Ask,
        make: Callable[[Portion], T],
        parts: Appending[T],
        *,
        few: bool,
    ) -> tuple[int | None, int | None]:
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
            parts.append(make([plainrows.cut(rows[0], ask.query)]))
            return None, seq
        found = plainrows.matching(rows, ask.query)
        parts.append(make(plainrows.window(found, ask.query)))
        return len(found), seq
