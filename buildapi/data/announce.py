"""
From a change to its event: the object read back, its topic and slash keys, its scope.

The body is the object exactly as a GET of it shows it, read in the transaction that changed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa

from buildapi.data.schema import Column, Narrowing, Resource, placeholders
from buildapi.data.sql import RowMaker, row_maker, selected
from buildapi.db.connect import Reader
from buildapi.db.eventlog import Draft
from buildapi.db.tables import builders
from buildapi.errors import NoSuchResource


@dataclass(frozen=True)
class Reading:
    """How an object is read for its events: its fields, the words of its names, its scope."""

    select: sa.Select[Any]
    row: RowMaker
    words: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class Told:
    """An object as its events tell of it."""

    object: dict[str, Any]
    words: dict[str, Any]
    builderid: int | None
    projectid: int | None


@lru_cache(maxsize=256)
def _reading(resource: Any) -> Reading:
    cells = [(declared, declared.sql(Narrowing())) for declared in resource.fields.values()]
    own = selected(cells)
    templates = (resource.topic, *resource.slash_keys, *_own_keys(resource))
    names = sorted({name for template in templates for name in placeholders(template)})
    # One chain of joins serves all words: the longest, as each shorter one is a beginning of it.
    source: sa.FromClause = resource.source
    columns: list[Column] = []
    for name in names:
        found = resource.up(name)
        if len(_tables(found[0])) > len(_tables(source)):
            source = found[0]
        columns.append(found[1])
    owner = resource.builder()
    columns.append(sa.null() if owner is None else owner)
    scope = builders.alias("scope")
    projectid = sa.select(scope.c.projectid).where(scope.c.id == columns[-1]).scalar_subquery()
    select = (
        sa.select(*own, *columns, projectid)
        .select_from(source)
        .where(resource.row_key() == sa.bindparam("ident"))
    )
    return Reading(select, row_maker(cells, fragments=True), tuple(names), len(own))


def _own_keys(resource: type[Resource]) -> list[str]:
    return [key for happening in resource.events.values() for key in happening.keys or ()]


def _tables(source: sa.FromClause) -> list[Any]:
    return list(sa.sql.visitors.iterate(source))


def told(resource: type[Resource], reader: Reader, ident: int) -> Told:
    """Read the object ``ident``; NoSuchResource if there is none."""
    reading = _reading(resource)  # type: ignore[arg-type]  # classes hash
    row = reader.first(reading.select, {"ident": ident})
    if row is None:
        raise NoSuchResource(f"there is no {resource.singular} {ident}")
    words = dict(zip(reading.words, row[reading.width :], strict=False))
    return Told(reading.row(row), words, row[-2], row[-1])


def drafted(
    resource: type[Resource],
    it: Told,
    event: str,
    body: dict[str, Any] | None,
    extra: dict[str, Any],
) -> Draft:
    """
    Return the event of what was read.

    The body is the object with ``extra``, or ``body``, where an event has one of its own.
    """
    topic, keys = names(resource, it.words, event)
    whole = body if body is not None else {**it.object, **extra} if extra else it.object
    return Draft(topic, keys, orjson.dumps(whole), it.builderid, it.projectid)


def names(
    resource: type[Resource], words: dict[str, Any], event: str
) -> tuple[str, tuple[str, ...]]:
    """Return the topic and the slash keys of an event of the object that ``words`` name."""
    happening = resource.events[event]
    topic = f"{resource.topic.format_map(words)}.{event}"
    if happening.slash is None:
        return topic, ()
    beginnings = resource.slash_keys if happening.keys is None else happening.keys
    last = happening.slash or event
    return topic, tuple(f"{key.format_map(words)}/{last}" for key in beginnings)


def announced(
    source: type[Resource],
    reader: Reader,
    ident: int,
    event: str,
    body: dict[str, Any] | None,
    extra: dict[str, Any],
) -> Draft:
    """Read the object back and return the event that tells of it: what ``Tx.emit`` does."""
    return drafted(source, told(source, reader, ident), event, body, extra)
