"""The reference pages, in Markdown: every resource type and update method, every setting."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterable, Iterator
from itertools import groupby
from types import NoneType, UnionType
from typing import Any

from buildapi.data.announce import names
from buildapi.data.api import RESOURCES, ROUTER, AllUpdates
from buildapi.data.formfields import Fixed, Leaf, Nested
from buildapi.data.router import Kind
from buildapi.data.schema import Resource, placeholders
from buildapi.data.updates import Update
from buildapi.data.values import ValueType
from buildapi.docs.conventions import as_markdown
from buildapi.docs.endpoints import described
from buildapi.settings import Declaration, declarations

_KINDS: dict[Kind, str] = {
    "one": "one object",
    "many": "list",
    "raw": "raw, to be saved",
    "raw_inline": "raw, to be looked at",
}


def resources() -> str:
    """Return the page of every resource type, its paths, events and control, and all updates."""
    kinds = sorted(RESOURCES, key=lambda resource: resource.plural)
    parts = [
        "# Resources, events and updates",
        _GENERATED,
        _PATTERNS,
        "## What holds for all paths",
        as_markdown(3),
        *(part for resource in kinds for part in _resource(resource)),
        "## Update methods",
        _METHODS,
        *(part for owner in _owners() for part in _updates(owner)),
    ]
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Return the page of every setting."""
    parts = [
        "# Settings",
        _GENERATED,
        _ORIGINS,
    ]
    for section, found in groupby(declarations().values(), key=lambda one: one.section):
        rows = [_setting(one) for one in found]
        parts += [f"## [{section}]", _table(("setting", "default", "what it is for"), rows)]
    parts += ["## [[forcescheduler]]", _FORMS, f"```toml\n{FORM}```", _FIELDS]
    parts.append(_table(("type", "what it takes", "settings and their defaults"), _field_types()))
    return "\n\n".join(parts) + "\n"


_GENERATED = "This page is made of the declarations in the code by `scripts/docs`."
_PATTERNS = (
    "Paths are below `/api/v2`: `n:` takes a number, `i:` an identifier, `s:` and a bare `:` any"
    " text. An event is published under its topic and, for Buildbot's clients, under its slash"
    " keys."
)
_METHODS = (
    "`api.data.updates.<method>(…)`: each is one transaction with its events; its Deferred fires"
    " once that is durable."
)
_ORIGINS = (
    "The later of these counts: the default, the TOML file (`--config`), the environment, an option"
    " of `buildapi serve`. `buildapi config` prints all of them and where each comes from."
)
FORM = """\
[[forcescheduler]]
name = "force"
label = "Force a build"
button_name = "Start"
builder_names = ["tests", "docs"]
fields = [
    {type = "text", name = "target", regex = "^[a-z]+$", required = true},
    {type = "list", name = "mode", choices = ["quick", "full"], default = "quick"},
    {type = "nested", name = "extra", fields = [{type = "int", name = "jobs", default = 2}]},
]
codebases = [{codebase = "app", branch = {type = "list", choices = ["main", "dev"]}}]
"""
"""A force scheduler as a settings file declares it."""
_FORMS = (
    "Forms that start builds; there may be several. A master gives its own in code, in place of"
    ' these: `api.control.offer([ForceScheduler(name="force", builder_names=("tests",))])`, with'
    " the fields of `buildapi.data.formfields`."
)
_FIELDS = (
    "`name` and `builder_names` must be given. Every form begins with `username`, `reason` and"
    " `priority`, then come `branch`, `project`, `repository` and `revision` of each codebase (one"
    " without a name, if `codebases` is not given); each can be declared like a field. `fields`"
    " become properties of the build, posted under their names, those of a group as"
    " `<group>_<name>`: `extra_jobs`. These are the types of fields, each also with `name`,"
    " `label`, `tablabel`, `tooltip`, `hide` and `autopopulate`:"
)


# Resource types.


def _resource(resource: type[Resource]) -> Iterator[str]:
    yield f"## {resource.plural}"
    yield described(resource)
    if resource.fields:
        rows = [(f"`{f.name}`", _type(f.type), f.doc) for f in resource.fields.values()]
        yield _table(("field", "type", "what it is"), rows)
    yield "\n".join(
        f"- `/{route.pattern.strip('/')}` ({_KINDS[route.kind]})"
        for route in ROUTER.routes
        if route.resource is resource
    )
    if resource.actions:
        methods = [(f"`{name}`", doc) for name, doc in resource.actions.items()]
        yield _table(("control method", "what it does"), methods)
    if resource.events:
        rows = [_event(resource, event) for event in resource.events]
        yield _table(("topic", "slash keys", "when"), rows)


def _type(of: ValueType) -> str:
    if of.nullable:
        inner = _plain(of)
        return inner if inner in ("JSON", "null") else f"{inner} or null"
    return _plain(of)


def _plain(of: ValueType) -> str:
    if of.of is not None:
        return f"list of {_type(of.of)}"
    if of.resource is not None:
        return str(of.resource.singular)
    if of.shape is not None:
        return f"{{{', '.join(name for name, _ in of.shape.parts)}}}"
    said = {"datetime": "seconds", "object": "JSON", "binary": "null"}
    said["sourced"] = "{name: [value, source]}"
    return said.get(of.kind, of.kind)


def _event(resource: type[Resource], event: str) -> tuple[str, str, str]:
    happening = resource.events[event]
    templates = (resource.topic, *resource.slash_keys, *(happening.keys or ()))
    words = {name: f"{{{name}}}" for one in templates for name in placeholders(one)}
    topic, keys = names(resource, words, event)
    return f"`{topic}`", ", ".join(f"`{key}`" for key in keys) or "none", happening.doc


# Updates.


def _owners() -> list[type]:
    """Return the classes that declare update methods, by name."""
    found = [owner for owner in AllUpdates.__mro__ if _own_updates(owner)]
    return sorted(found, key=lambda owner: owner.__name__)


def _own_updates(owner: type) -> dict[str, Update[..., object]]:
    return {name: it for name, it in vars(owner).items() if isinstance(it, Update)}


def _updates(owner: type) -> Iterator[str]:
    said = inspect.cleandoc(owner.__doc__ or "")
    yield f"### {said.partition(chr(10))[0].rstrip('.')}"
    for name, found in _own_updates(owner).items():
        if name != found.name:
            yield f"#### {name}\n\nAnother name of `{found.name}`."
            continue
        doc = inspect.cleandoc(found.__doc__ or "")
        yield f"#### {name}\n\n```python\n{_signature(found)}\n```\n\n{doc}"


def _signature(found: Update[..., object]) -> str:
    hints = typing.get_type_hints(found.function)
    shown: list[str] = []
    for one in found.signature.parameters.values():
        if one.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
        shown.append(f"{one.name}: {_annotation(hints[one.name])}{default}")
    end = f") -> {_annotation(hints['return'])}"
    line = f"{found.name}({', '.join(shown)}{end}"
    if len(line) <= 90:  # noqa: PLR2004  a page's width
        return line
    return "\n    ".join((f"{found.name}(", *(f"{part}," for part in shown))) + f"\n{end}"


def _annotation(hint: object) -> str:
    """Return a type as the code spells it."""
    if hint in (None, NoneType):
        return "None"
    arguments = typing.get_args(hint)
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(map(_annotation, arguments))
    name = getattr(hint, "__name__", str(hint).removeprefix("typing."))
    inner = ", ".join("..." if a is Ellipsis else _annotation(a) for a in arguments)
    return f"{name}[{inner}]" if inner else name


# Settings.


def _setting(one: Declaration) -> tuple[str, str, str]:
    option = f" or `{one.option}`" if one.option else ""
    return f"`{one.name}`", f"`{_toml(one.default)}`", f"{one.doc} `{one.variable}`{option}"


def _field_types() -> Iterator[tuple[str, str, str]]:
    """Yield a row for each type of a form's fields."""
    for kind in (*typing.get_args(Leaf), Nested):
        found = {one.name: one for one in dataclasses.fields(kind)}
        own = [one for name, one in found.items() if name not in _OF_EVERY_FIELD]
        shown = ", ".join(f"`{one.name}`{_default(one)}" for one in own)
        doc = " ".join((kind.__doc__ or "").split()).replace("``", "`")
        yield f"`{found['type'].default}`", doc, shown


_OF_EVERY_FIELD = {one.name for one in dataclasses.fields(Fixed)} - {"default"}


def _default(one: dataclasses.Field[Any]) -> str:
    if one.default is dataclasses.MISSING:
        return " (must be given)"
    return "" if one.default in (None, "", ()) else f" {_toml(one.default)}"


def _toml(value: object) -> str:
    return json.dumps("" if value is None else value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
