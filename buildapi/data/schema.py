"""
The language in which resource types are declared.

Everything about a resource type stands in one class body: its fields with their SQL, its paths, the
names of its events. REST, filters and order in SQL, topics and reference pages are derived from it.

    class Step(Resource):
        plural, table, parent = "steps", steps, Build
        parent_on = steps.c.buildid == builds.c.id
        keys = {"stepid": steps.c.id, "step_number": steps.c.number, "buildid": steps.c.buildid}
        one = ("steps/n:stepid", "builds/n:buildid/steps/n:step_number")
        many = ("builds/n:buildid/steps",)
        topic = "build.{buildid}.step.{number}"
        slash_keys = ("builds/{buildid}/steps/{stepid}", "steps/{stepid}")
        events = {"new": happens("The step exists; it has not started.")}

        stepid: int = field(steps.c.id, "Unique id of this step.")

A path key that is not the resource's own is its parent's, and so on up: the joins follow from that.
"""

from __future__ import annotations

import string
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import sqlalchemy as sa

from buildapi.data.values import ValueType, value_type
from buildapi.db import spelling


@dataclass(frozen=True)
class Narrowing:
    """
    What of a request changes the SQL of a field.

    pattern: that of the path.  properties: how many properties are asked for by name, or -1 for
    all of them.  filtered: the fields that are filtered by.
    """

    pattern: str = ""
    properties: int = 0
    filtered: frozenset[str] = frozenset()

    @property
    def keys(self) -> frozenset[str]:
        """Return the names of the keys that the path binds."""
        return key_names(self.pattern)


def key_names(pattern: str) -> frozenset[str]:
    """Return the names of the keys of a path pattern."""
    return frozenset(e.partition(":")[2] for e in pattern.split("/") if ":" in e)


Column = sa.ColumnElement[Any]
Condition = sa.ColumnElement[bool]
Key = Column | Callable[[Column], Condition]


@dataclass(frozen=True)
class Listed:
    """
    A list field: ``element`` of every row of ``source`` that belongs to the object.

    order: of the elements, where the rows have one.
    """

    element: Column
    source: sa.FromClause
    where: Condition
    order: Column | None = None

    def has(self, value: Column) -> Condition:
        """Return the condition that ``value`` is one of the elements."""
        return value.in_(sa.select(self.element).select_from(self.source).where(self.where))

    @property
    def array(self) -> Column:
        """Return the elements as one JSON array."""
        if self.order is None:
            return json_array(self.element, self.source, self.where)
        return spelling.json_in_order(self.element, self.source, self.where, self.order)


Expression = Column | Listed | Callable[[Narrowing], Column | Listed]


@dataclass(frozen=True)
class Field:
    """
    One field of a resource type.

    has: for lists that are not rows, the condition that a value is one of the elements.
    declared: the type that the contract names, where it is not the true one.
    """

    name: str
    type: ValueType
    doc: str
    expression: Expression
    has: Callable[[Column], Condition] | None = None
    declared: ValueType | None = None

    def sql(self, narrowing: Narrowing) -> Column:
        """Return the SQL expression of the field for this kind of request."""
        if isinstance(self.expression, sa.ColumnElement):
            return self.expression
        found = self._expressed(narrowing)
        return found.array if isinstance(found, Listed) else found

    def contains(self, value: Column, narrowing: Narrowing) -> Condition:
        """Return the condition that a list has this element, or a text this part."""
        if self.has is not None:
            return self.has(value)
        found = self._expressed(narrowing)
        return (
            found.has(value) if isinstance(found, Listed) else spelling.position(found, value) > 0
        )

    def _expressed(self, narrowing: Narrowing) -> Column | Listed:
        if isinstance(self.expression, sa.ColumnElement | Listed):
            return self.expression
        return self.expression(narrowing)


def field(
    expression: Expression,
    doc: str,
    has: Callable[[Column], Condition] | None = None,
    *,
    name: str = "",
    declared: Any = None,
) -> Any:
    """
    Declare a field: the SQL expression that gives it, and what it is.

    name: if it is not that of the attribute.  declared: the annotation that the contract has.
    """
    said = None if declared is None else value_type(declared)
    return Field(name, _UNKNOWN, doc, expression, has, said)


_UNKNOWN = ValueType("object")


@dataclass(frozen=True)
class Happening:
    """
    One kind of event.

    slash: the last word of its slash keys; None where Buildbot sends nothing.
    keys: the slash keys' beginnings, if they are not all of the resource's.
    """

    doc: str
    slash: str | None
    keys: tuple[str, ...] | None = None


def happens(doc: str, slash: str | None = "", keys: tuple[str, ...] | None = None) -> Happening:
    """
    Declare an event; ``slash`` defaults to the same word as in the topic, None means no slash key.
    """
    return Happening(doc, slash, keys)


class Resource:
    """
    A resource type; see the module's text.

    singular: what the contract calls one object; by default the name of the class in lower case.
    ident: the field with the integer id by which ties are broken and events are read back.
    source: the FROM clause, if it is more than ``table``.  keys: what the names in paths mean.
    special: whole paths whose keys mean something else; there a key is ``bindparam(name)``.
    """

    plural: ClassVar[str]
    singular: ClassVar[str]
    table: ClassVar[sa.Table]
    source: ClassVar[sa.FromClause]
    parent: ClassVar[type[Resource] | None] = None
    parent_on: ClassVar[Condition]
    ident: ClassVar[str]
    keys: ClassVar[Mapping[str, Key]] = {}
    special: ClassVar[Mapping[str, Condition]] = {}
    one: ClassVar[tuple[str, ...]] = ()
    many: ClassVar[tuple[str, ...]] = ()
    raw: ClassVar[tuple[str, ...]] = ()
    raw_inline: ClassVar[tuple[str, ...]] = ()
    topic: ClassVar[str] = ""
    slash_keys: ClassVar[tuple[str, ...]] = ()
    events: ClassVar[Mapping[str, Happening]] = {}
    actions: ClassVar[Mapping[str, str]] = {}
    fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        """Collect the declared fields, in order."""
        declared = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        hints = typing.get_type_hints(cls, include_extras=True) if declared else {}
        cls.fields = {
            found.name or name: replace(
                found, name=found.name or name, type=value_type(hints[name])
            )
            for name, found in declared.items()
        }
        for name in declared:
            # A field may be called like something of ours: ``source`` is one of build data.
            delattr(cls, name)
        if "singular" not in vars(cls):
            cls.singular = cls.__name__.lower()
        if "source" not in vars(cls) and "table" in vars(cls):
            cls.source = cls.table
        if cls.fields and "ident" not in vars(cls):
            cls.ident = next(iter(cls.fields))

    @classmethod
    def lineage(cls) -> Iterator[type[Resource]]:
        """Yield this type, its parent, its parent's parent, and so on."""
        current: type[Resource] | None = cls
        while current is not None:
            yield current
            current = current.parent

    @classmethod
    def located(cls, pattern: str) -> tuple[sa.FromClause, list[Condition]]:
        """
        Return what to select from, and which rows a path of this pattern means.

        The value of each key is a bound parameter of the key's name.
        """
        if pattern in cls.special:
            return cls.source, [cls.special[pattern]]
        source, found, left = cls.source, [], set(key_names(pattern))
        for level in cls.lineage():
            for name in sorted(left & level.keys.keys()):
                found.append(_matches(level.keys[name], sa.bindparam(name)))
                left.discard(name)
            if not left:
                return source, found
            if level.parent is not None:
                source = source.join(level.parent.table, level.parent_on)
        raise TypeError(f"{cls.__name__} has no path key {sorted(left)}")

    @classmethod
    def up(cls, name: str) -> tuple[sa.FromClause, Column]:
        """
        Return the field ``name`` of this type or of the nearest ancestor, and the joins to it.
        """
        source = cls.source
        for level in cls.lineage():
            if name in level.fields:
                return source, level.fields[name].sql(Narrowing())
            if level.parent is not None:
                source = source.join(level.parent.table, level.parent_on)
        raise TypeError(f"{cls.__name__} has no field {name}, nor has what it is part of")

    @classmethod
    def builder(cls) -> Column | None:
        """
        Return the SQL of the builder that an object belongs to: null if that is not there any more.

        None: objects of this type belong to no builder.
        """
        if "builderid" in cls.fields:
            return cls.fields["builderid"].sql(Narrowing())
        if cls.parent is None:
            return None
        source: sa.FromClause = cls.parent.table
        for level in cls.parent.lineage():
            if "builderid" in level.fields:
                found = sa.select(level.fields["builderid"].sql(Narrowing())).select_from(source)
                return found.where(cls.parent_on).correlate(cls.table).scalar_subquery()
            if level.parent is not None:
                source = source.join(level.parent.table, level.parent_on)
        return None

    @classmethod
    def visible(cls, hidden: list[Column]) -> Condition | None:
        """
        Return the condition that an object belongs to none of the ``hidden`` builders.

        What has lost its builder is not visible either: nobody knows whose it was.
        """
        owner = cls.builder()
        return None if owner is None else owner.not_in(hidden)

    @classmethod
    def row_key(cls) -> Column:
        """Return what one row is found by: the integer id, save where objects don't show it."""
        return cls.id_column()

    @classmethod
    def id_column(cls) -> Column:
        """Return the SQL of the integer id."""
        return cls.fields[cls.ident].sql(Narrowing())


def bound_text(name: str) -> Column:
    """Return a bound parameter that is a text, where nothing beside it says so."""
    return sa.bindparam(name, type_=sa.Text())


def _matches(key: Key, value: Column) -> Condition:
    return key == value if isinstance(key, sa.ColumnElement) else key(value)


def placeholders(template: str) -> list[str]:
    """Return the names that stand in braces in a topic or slash key."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


# What needs no database: a field's SQL may be one of these, and is not selected then.
NOTHING: Column = sa.null()
EMPTY_OBJECT: Column = sa.literal_column("'{}'")

# JSON made by the database.


def json_array(element: Column, source: sa.FromClause, where: Condition) -> Column:
    """Return a sub-select that gives ``element`` of all matching rows as a JSON array."""
    return sa.select(spelling.json_all(element)).select_from(source).where(where).scalar_subquery()


def json_object(resource: type[Resource]) -> Column:
    """
    Return the whole object of ``resource`` as a JSON object, from a row that is selected from.
    """
    parts: list[Any] = []
    for name, declared in resource.fields.items():
        parts += [sa.literal_column(f"'{name}'"), as_json(declared)]
    return spelling.json_object(*parts)


def as_json(declared: Field) -> Column:
    """Return a field's SQL such that a JSON function takes it for what it is."""
    value = declared.sql(Narrowing())
    if declared.type.json_text:
        return spelling.json_value(value)
    if declared.type.kind == "boolean":
        words = [(truth(value), "true")] + ([(value.is_(None), "null")] * declared.type.nullable)
        return spelling.json_value(sa.case(*words, else_="false"))
    return value


def truth(value: Column) -> Condition:
    """Return a condition from a boolean field's SQL, be it a condition or a 0/1 column."""
    if isinstance(value.type, sa.Boolean):
        return value
    return value == sa.literal_column("1")


def embedded(
    resource: type[Resource], where: Condition, source: sa.FromClause | None = None
) -> Column:
    """Return the one object of ``resource`` for which ``where`` holds, as JSON, or null."""
    taken = resource.source if source is None else source
    return sa.select(json_object(resource)).select_from(taken).where(where).scalar_subquery()


def embedded_list(resource: type[Resource], source: sa.FromClause, where: Condition) -> Column:
    """Return all objects of ``resource`` for which ``where`` holds, as a JSON array."""
    return json_array(spelling.json_value(json_object(resource)), source, where)


def json_map(
    name: Column,
    texts: Sequence[Column],
    source: sa.FromClause,
    where: Condition,
    *,
    opening: str = "",
    closing: str = "",
) -> Column:
    """
    Return stored JSON texts as one JSON object: ``{name: text, …}``.

    texts: JSON, one behind the other, between ``opening`` and ``closing``.  They are joined, not
    parsed: one stored NaN would make a JSON function fail the whole query.
    """
    # Each text that is joined to another is a copy: what is the same for all stands between them.
    # The first of them is bound: on MariaDB that says how texts of different columns are joined.
    pair = spelling.json_string(name).concat(f":{opening}")
    for text in texts:
        pair = pair.concat(text)
    joined = spelling.joined(pair, f"{closing},")
    whole = sa.literal_column("'{'").concat(joined).concat(sa.literal_column(f"'{closing}}}'"))
    found = sa.func.coalesce(whole, EMPTY_OBJECT)
    return sa.select(found).select_from(source).where(where).scalar_subquery()
