"""
Force schedulers: the form of each, and what a filled-in form asks for.

One is declared in a settings file:

    [[forcescheduler]]
    name = "force"
    builder_names = ["runtests"]
    fields = [
        {type = "text", name = "target", regex = "^[a-z]+$", required = true},
        {type = "list", name = "mode", choices = ["quick", "full"], default = "quick"},
    ]
    codebases = [{codebase = "app"}, {codebase = "lib", label = "The library"}]

``type`` is the word of the REST object.  Every form begins with ``username``, ``reason`` and
``priority``, then ``branch``, ``project``, ``repository`` and ``revision`` of each codebase.
Source of names, order and defaults: the specification of the wire, sections 8 and 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from buildapi.data.formfields import (
    Field,
    Int,
    Leaf,
    Line,
    Nested,
    Text,
    UserName,
    field_row,
    full_name,
    leaves,
    shown,
)
from buildapi.errors import BadSettings, FieldErrors

SOURCE = "Force Build Form"
"""The source of every property that a form sets."""

ANONYMOUS = "anonymous"
"""The owner of what nobody in particular asks for."""

# What nobody has declared: which builders, and who asks.
_OTHERS = {"builderid", "builderNames", "owner"}
# A script whose variable is empty does not mean every builder.
_BUILDER = Text(name="builderid", required=True)
# Where pydantic's own words are about Python.
_WRONG = {"missing": "it must be given", "unexpected_keyword_argument": "there is no such option"}
_IDENTIFIER = re.compile(r"[a-zA-Z_-][a-zA-Z0-9._-]*")

# What the columns of the database hold, in characters; priority is an integer of 32 bits there.
# The user's name is a part of the reason, and must leave room for the rest of it.
_LONGEST_REASON = 256
_LONGEST_USERNAME = 128
_LONGEST = {"branch": 256, "project": 512, "repository": 512, "revision": 256}
_HIGHEST_PRIORITY = 2**31 - 1

_USERNAME = UserName(name="username", label="Your name:")
_REASON = Text(name="reason", default="force build", size=20)
_PRIORITY = Int(name="priority")
_BRANCH = Text(name="branch", label="Branch:")
_PROJECT = Text(name="project", label="Project:")
_REPOSITORY = Text(name="repository", label="Repository:")
_REVISION = Text(name="revision", label="Revision:")


def _check_one_text(name: str, field: Leaf) -> None:
    # Each of these fills one column of text.
    if getattr(field, "multiple", False) or not isinstance(field.default, str):
        raise ValueError(f"{name} is one text, not a list or a number")


@dataclass(frozen=True, kw_only=True)
class Codebase:
    """The fields of one codebase; a field's name is its place here, whatever it says itself."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    codebase: str = ""
    label: str | None = None
    branch: Line = _BRANCH
    project: Line = _PROJECT
    repository: Line = _REPOSITORY
    revision: Line = _REVISION

    def __post_init__(self) -> None:
        """Refuse fields that are no text."""
        for name in _LONGEST:
            _check_one_text(name, getattr(self, name))

    @property
    def group(self) -> Nested:
        """The four as a group, named like the codebase."""
        label = f"Codebase: {self.codebase}" if self.codebase else ""
        return Nested(
            name=self.codebase,
            label=label if self.label is None else self.label,
            fields=tuple(replace(getattr(self, name), name=name) for name in _LONGEST),
        )


@dataclass(frozen=True, kw_only=True)
class ForceScheduler:
    """
    A scheduler that starts builds when somebody fills in its form.

    label, button_name: the name, if not given.  fields: what becomes properties of the build.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    builder_names: tuple[str, ...]
    label: str | None = None
    button_name: str | None = None
    username: Line = _USERNAME
    reason: Line = _REASON
    priority: Int = _PRIORITY
    codebases: tuple[Codebase, ...] = (Codebase(),)
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are missing, taken or no identifiers."""
        if not _IDENTIFIER.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no identifier, as in build-all_2.0")
        _check_one_text("username", self.username)
        _check_one_text("reason", self.reason)
        seen = set(_OTHERS)
        for name, field in leaves(self.groups):
            if not field.name:
                raise ValueError(f"a field of type {field.type} has no name")
            if name in seen:
                raise ValueError(f"two fields are called {name}")
            seen.add(name)

    @cached_property
    def groups(self) -> tuple[Leaf | Nested, ...]:
        """The whole form, in the order of the REST object."""
        asked = (("username", self.username), ("reason", self.reason), ("priority", self.priority))
        about = Nested(fields=tuple(replace(field, name=name) for name, field in asked))
        return (about, *(codebase.group for codebase in self.codebases), *self.fields)


def force_schedulers(tables: object) -> tuple[ForceScheduler, ...]:
    """
    Return the schedulers that a settings file declares: its ``[[forcescheduler]]`` tables.

    Raises BadSettings: one sentence on the first thing that is wrong, and where it stands.
    """
    try:
        found = TypeAdapter(tuple[ForceScheduler, ...]).validate_python(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("forcescheduler", *first["loc"])))
        wrong = _WRONG.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{where}: {wrong}") from None
    names = [scheduler.name for scheduler in found]
    for name in names:
        if names.count(name) > 1:
            raise BadSettings(f"forcescheduler: two are called {name}")
    return found


def as_row(scheduler: ForceScheduler, *, enabled: bool = True) -> dict[str, Any]:
    """Return the REST object of a scheduler.  enabled: what the database says of it."""
    label, button_name = scheduler.label, scheduler.button_name
    return {
        "name": scheduler.name,
        "label": scheduler.name if label is None else label,
        "button_name": scheduler.name if button_name is None else button_name,
        "builder_names": list(scheduler.builder_names),
        "enabled": enabled,
        "all_fields": [field_row(field) for field in scheduler.groups],
    }


@dataclass(frozen=True)
class ForceRequest:
    """
    What a valid form asks for.

    builder_names: the builders to build on, all of them the scheduler's.
    builderid: the one of them; None: all.
    properties: values by name, ``reason`` and ``owner`` among them; their source is SOURCE.
    sourcestamps: ``{codebase, branch, project, repository, revision}``, one for each codebase.
    """

    builder_names: tuple[str, ...]
    builderid: int | None
    owner: str
    reason: str
    priority: int
    properties: dict[str, Any]
    sourcestamps: list[dict[str, str]]

    @property
    def buildset_reason(self) -> str:
        """The reason of the build set, which also says who asked."""
        return f"A build was forced by '{self.owner}': {self.reason}"


def validate(
    scheduler: ForceScheduler, params: Mapping[str, Any], *, owner: str = ANONYMOUS
) -> ForceRequest:
    """
    Return what the posted ``params``, by full name, ask ``scheduler`` for.

    owner: who is logged in; the field ``username`` counts only if nobody is.  A posted ``owner``
    and parameters that are no fields do not count: clients send along what other schedulers have.
    Raises FieldErrors on every field that is wrong.
    """
    form = _Form(params)
    if owner == ANONYMOUS:
        owner = form.username(replace(scheduler.username, name="username"))
    names, builderid = form.builders(scheduler)
    request = ForceRequest(
        builder_names=names,
        builderid=builderid,
        owner=owner,
        reason=form.read(replace(scheduler.reason, name="reason")),
        priority=form.priority(replace(scheduler.priority, name="priority")),
        properties=form.properties(scheduler.fields),
        sourcestamps=[form.sourcestamp(codebase) for codebase in scheduler.codebases],
    )
    room = _LONGEST_REASON - len(replace(request, reason="").buildset_reason)
    form.limit("reason", request.reason, room)
    if form.wrong:
        raise FieldErrors(form.wrong)
    request.properties.update(reason=request.reason, owner=owner)
    return request


class _Form:
    """The posted values, and a sentence on each that is wrong, by full name."""

    def __init__(self, posted: Mapping[str, Any]) -> None:
        self.posted = posted
        self.wrong: dict[str, str] = {}

    def read(self, field: Leaf, group: str = "") -> Any:
        """Return a field's value, or None if it is wrong."""
        name = full_name(field, group)
        try:
            return field.read(self.posted.get(name))
        except ValueError as error:
            self.wrong[name] = str(error)
            return None

    def properties(self, fields: Iterable[Leaf | Nested], group: str = "") -> dict[str, Any]:
        """Return the values of fields by name; a group is one value, if it has a name."""
        found: dict[str, Any] = {}
        for field in fields:
            if not isinstance(field, Nested):
                found[field.name] = self.read(field, group)
            elif field.name:
                found[field.name] = self.properties(field.fields, full_name(field, group))
            else:
                found |= self.properties(field.fields, group)
        return found

    def sourcestamp(self, codebase: Codebase) -> dict[str, str]:
        """Return the source stamp that a codebase's fields make."""
        group = codebase.group
        found = self.properties(group.fields, group.name)
        for field in group.fields:
            self.limit(full_name(field, group.name), found[field.name], _LONGEST[field.name])
        return {"codebase": codebase.codebase, **found}

    def username(self, field: Leaf) -> str:
        """Return who asks."""
        found: str = self.read(field)
        self.limit("username", found, _LONGEST_USERNAME)
        return found

    def builders(self, scheduler: ForceScheduler) -> tuple[tuple[str, ...], int | None]:
        """Return the names of the builders that are wanted, and the id of the one, if posted."""
        offered, named = scheduler.builder_names, self.posted.get("builderNames")
        if named is not None:  # then an id does not count
            wanted = tuple(name for name in offered if isinstance(named, list) and name in named)
            if not wanted:
                self.wrong["builderNames"] = "This should be a list of builders that the form has."
            return wanted, None
        text = None if self.posted.get("builderid") is None else self.read(_BUILDER)
        if text is None:
            return offered, None
        try:
            return offered, Int().parse(text)
        except ValueError:
            if text not in offered:
                self.wrong["builderid"] = f"{scheduler.name} cannot force builder {shown(text)}."
            return (text,), None

    def priority(self, field: Int) -> int:
        """Return how urgent the requests are."""
        found: int = self.read(field) or 0
        if abs(found) > _HIGHEST_PRIORITY:
            self.wrong["priority"] = f"{found} is beyond 32 bits."
        return found

    def limit(self, name: str, text: str | None, longest: int) -> None:
        """Refuse a text that its column cannot hold."""
        if text is not None and len(text) > longest:
            self.wrong[name] = f"This may have {longest} characters, not {len(text)}."
