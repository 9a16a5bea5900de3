"""
The types of fields: from the text of a URL to a value, and what may be asked of them.

A field is annotated with one of these: ``int``, ``str``, ``bool``, ``Time``, ``Identifier``,
``Json``, ``Binary``, ``SourcedProperties``, what ``nested`` gives, ``list[...]`` of them, another
resource type, and ``| None`` for those that may be null.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "contains", "in", "notin"]
OPERATORS: tuple[Operator, ...] = typing.get_args(Operator)
ORDERING = ("lt", "le", "gt", "ge")

IDENTIFIER = re.compile(r"[a-zA-Z_-][a-zA-Z0-9._-]*")

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)

LARGEST = 2**63 - 1
SMALLEST = -(2**63)

_TRUE = frozenset(("on", "true", "yes", "1"))
_FALSE = frozenset(("off", "false", "no", "0"))

Kind = Literal[
    "integer", "datetime", "string", "identifier", "boolean", "binary", "object", "sourced", "list"
]


@dataclass(frozen=True)
class Nested:
    """What an object inside an object is made of.  name: as the contract calls it."""

    name: str
    parts: tuple[tuple[str, ValueType], ...]


@dataclass(frozen=True)
class ValueType:
    """
    The type of a field.

    kind: its name in the contract.  of: what a list is a list of.  resource: the resource type
    whose whole object this is.  shape: that of an object of fixed parts that is no resource.
    """

    kind: Kind
    nullable: bool = False
    of: ValueType | None = None
    resource: Any = None
    shape: Nested | None = None

    @property
    def json_text(self) -> bool:
        """Whether the database gives it as JSON text."""
        return self.kind in ("list", "object", "sourced")

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.kind in ("string", "identifier")

    @property
    def orderable(self) -> bool:
        """Whether lists can be ordered by it, and values compared."""
        return not self.json_text

    def allows(self, operator: Operator) -> bool:
        """Say whether ``operator`` means something on this type."""
        if operator == "contains":
            if self.kind == "list":
                return self.of is not None and self.of.orderable
            return self.kind in ("string", "identifier", "binary")
        return self.orderable

    def parse(self, text: str) -> int | str | bool:
        """Return the value that ``text`` stands for; for a list, that of one element."""
        if self.of is not None:
            return self.of.parse(text)
        if self.kind in ("integer", "datetime"):
            return integer(text)
        if self.kind == "boolean":
            return boolean(text)
        return text


def integer(text: str) -> int:
    """
    Parse a decimal integer (blanks around it, a sign and ``1_0`` are accepted) or raise ValueError.
    """
    return int(text.encode("ascii"))


def seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more, such as 25 or 0.5, or raise ValueError."""
    if not _SECONDS.fullmatch(text):
        raise ValueError(text)
    return float(text)


def boolean(text: str) -> bool:
    """Parse on/true/yes/1 or off/false/no/0, whatever the case, or raise ValueError."""
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(text)


def is_text(value: str) -> bool:
    """Say whether a database can have this text: one of UTF-8, which has no lone surrogates."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


Time = Annotated[int, ValueType("datetime")]
Identifier = Annotated[str, ValueType("identifier")]
Json = Annotated[Any, ValueType("object")]
Binary = Annotated[None, ValueType("binary")]
SourcedProperties = Annotated[Mapping[str, Any], ValueType("sourced")]


def nested(called: str, /, **parts: Any) -> ValueType:
    """
    Return the type of an object of fixed parts, with which to annotate.

    called: as the contract calls it.  parts: the annotation of each.

        Url = Annotated[Any, nested("Url", name=str, url=str)]
    """
    shape = Nested(called, tuple((name, value_type(of)) for name, of in parts.items()))
    return ValueType("object", shape=shape)


_PLAIN: dict[Any, Kind] = {int: "integer", str: "string", bool: "boolean"}


def value_type(annotation: Any) -> ValueType:
    """Return the type that a field's annotation means."""
    for marker in getattr(annotation, "__metadata__", ()):
        if isinstance(marker, ValueType):
            return marker
    if annotation in _PLAIN:
        return ValueType(_PLAIN[annotation])
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        found = value_type(inner)
        return replace(found, nullable=True)
    if origin is list:
        return ValueType("list", of=value_type(arguments[0]))
    if isinstance(annotation, type):
        return ValueType("object", resource=annotation)
    raise TypeError(f"a field cannot be of type {annotation!r}")
