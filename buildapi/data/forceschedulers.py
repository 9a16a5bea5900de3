"""Force schedulers: forms by which people ask for builds. They come from the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import sqlalchemy as sa

from buildapi.data.builders import Builder
from buildapi.data.fetch import Context, Plain, find
from buildapi.data.forcefields import ForceScheduler, as_row
from buildapi.data.plainrows import Row
from buildapi.data.query import Query
from buildapi.data.schema import field
from buildapi.data.values import Identifier, Json
from buildapi.db.connect import Params, Reader
from buildapi.db.tables import builders, schedulers
from buildapi.errors import NoSuchResource


class ForceSchedulers(Plain):
    """A form by which people ask for builds."""

    plural, singular = "forceschedulers", "forcescheduler"
    tables = frozenset({"builders", "builders_tags", "builder_masters", "schedulers", "tags"})
    one = ("forceschedulers/i:schedulername",)
    many = ("forceschedulers", "builders/:builderid/forceschedulers")
    actions = {
        "force": "Ask for builds.  Parameters: builderid (or the builder's name) or builderNames "
        "(a list; without both all of the form's builders), reason and the form's fields.  "
        "Result: [bsid, {builderid: buildrequestid}]."
    }

    name: Identifier = field(sa.null(), "Its name, unique.")
    button_name: str = field(sa.null(), "What stands on its button.")
    label: str = field(sa.null(), "What stands above the form.")
    builder_names: list[Identifier] = field(sa.null(), "The builders it can ask to build.")
    enabled: bool = field(sa.null(), "Whether it can be used.")
    all_fields: list[Json] = field(sa.null(), "The fields of the form, nested.")

    @classmethod
    def objects(
        cls,
        reader: Reader,
        pattern: str,
        bound: Params,
        query: Query,  # noqa: ARG003  filters and window are applied to what is returned
        context: Context,
    ) -> list[Row]:
        """
        Return those configured: one by name, all, or those that can force a builder.

        A hidden builder is in no form, and a form of hidden builders alone is not there.
        """
        known = _visible(reader, context)
        if "schedulername" in bound:
            if bound["schedulername"] not in known:
                raise NoSuchResource(f"there is no force scheduler {bound['schedulername']}")
            return _rows(reader, [known[bound["schedulername"]]])
        if "builderid" not in bound:
            return _rows(reader, known.values())
        try:
            builder = find(reader, Builder, pattern, bound, context.restriction)["name"]
        except NoSuchResource:
            return []
        return _rows(reader, [s for s in known.values() if builder in s.builder_names])


_NAMES = sa.select(builders.c.id, builders.c.name)
_DISABLED = sa.select(schedulers.c.name).where(schedulers.c.enabled == sa.literal_column("0"))


def _visible(reader: Reader, context: Context) -> Mapping[str, ForceScheduler]:
    if context.restriction is None:
        return context.forceschedulers
    hidden = {
        name
        for builderid, name in reader.rows(_NAMES, {})
        if builderid in context.restriction.hidden_builderids
    }
    left = {
        name: replace(it, builder_names=tuple(b for b in it.builder_names if b not in hidden))
        for name, it in context.forceschedulers.items()
    }
    return {name: it for name, it in left.items() if it.builder_names}


def _rows(reader: Reader, found: Iterable[ForceScheduler]) -> list[Row]:
    disabled = {name for (name,) in reader.rows(_DISABLED, {})}
    return [as_row(scheduler, enabled=scheduler.name not in disabled) for scheduler in found]
