"""
The fields of a form: what each looks like, and what may be posted in it.

    Text  TextArea  Int  Bool  Choice  UserName     take what is posted
    Fixed                                           takes nothing
    Nested                                          groups others

A posted value is a JSON scalar, or a list of one; a scalar counts as its text, so ``3`` and ``"3"``
are the same to every field.  null, ``[]`` and blanks alone count as not posted.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator

from buildapi.data import values

_EMAIL = re.compile(r"[^@]+@[^@.]+(\.[^@.]+)+")
_BESIDE_EMAIL = re.compile(r"[\s<>]+")


@dataclass(frozen=True, kw_only=True)
class _Field:
    """What every field has.  label: the name, if not given; tablabel: the label."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = ""
    label: str | None = None
    tablabel: str | None = None
    tooltip: str = ""
    hide: bool = False
    autopopulate: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """What people read beside the field."""
        return self.name if self.label is None else self.label


@dataclass(frozen=True, kw_only=True)
class _Input(_Field):
    """
    A field that takes a value.

    required: something must be posted, whatever the default.  multiple: the value is a list.
    maxsize: most characters of a value.  regex: what a value must match, from its beginning;
    the default, being the configuration's own word, need not.
    """

    default: Any = ""
    required: bool = False
    multiple: bool = False
    maxsize: int | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        """Refuse a regex that is none."""
        try:
            re.compile(self.regex or "")
        except re.error as error:
            raise ValueError(f"{self.regex} is no regular expression: {error}") from None

    def read(self, posted: object) -> Any:
        """Return the value that ``posted`` means, or raise ValueError: a sentence."""
        given = _texts(posted)
        if not given:
            return self._absent()
        found = [self._one(text) for text in given]
        if self.multiple:
            return found
        if len(found) > 1:
            raise ValueError(f"{self.title!r} takes one value, not {len(found)}.")
        return found[0]

    def parse(self, text: str) -> Any:
        """Return the value of a text, or raise ValueError: a sentence."""
        return text

    def _absent(self) -> Any:
        if self.required:
            raise ValueError(f"{self.title!r} must be filled in.")
        return _plain(self.default)

    def _one(self, text: str) -> Any:
        if self.maxsize is not None and len(text) > self.maxsize:
            raise ValueError(f"{self.title!r} may have {self.maxsize} characters, not {len(text)}.")
        if self.regex is not None and not re.match(self.regex, text):
            raise ValueError(f"{shown(text)} does not match {self.regex}.")
        return self.parse(text)


@dataclass(frozen=True, kw_only=True)
class Text(_Input):
    """A line of text.  size: width of its box, in characters."""

    type: Literal["text"] = "text"
    default: str = ""
    size: int = 10


@dataclass(frozen=True, kw_only=True)
class TextArea(_Input):
    """Lines of text."""

    type: Literal["textarea"] = "textarea"
    default: str = ""
    size: int = 10
    cols: int = 80
    rows: int = 20


@dataclass(frozen=True, kw_only=True)
class Int(_Input):
    """An integer of at most 64 bits.  A default of None says that nothing was posted."""

    type: Literal["int"] = "int"
    default: int | None = 0
    size: int = 10

    def parse(self, text: str) -> int:
        """Return the integer of a decimal text."""
        try:
            number = values.integer(text)
        except ValueError:
            raise ValueError(f"{shown(text)} is not an integer.") from None
        if not values.SMALLEST <= number <= values.LARGEST:
            raise ValueError(f"{shown(text)} is beyond 64 bits.")
        return number


@dataclass(frozen=True, kw_only=True)
class Bool(_Input):
    """A box to tick."""

    type: Literal["bool"] = "bool"
    default: bool = False

    def parse(self, text: str) -> bool:
        """Return what on/true/yes/1 or off/false/no/0 means."""
        try:
            return values.boolean(text)
        except ValueError:
            raise ValueError(f"{shown(text)} is neither true nor false.") from None


@dataclass(frozen=True, kw_only=True)
class Choice(_Input):
    """One of several texts, or some of them (``multiple``).  strict: no other text will do."""

    type: Literal["list"] = "list"
    default: str | tuple[str, ...] = ""
    choices: tuple[str, ...]
    strict: bool = True

    def parse(self, text: str) -> str:
        """Return the text, if it is one of the choices or need not be."""
        if self.strict and text not in self.choices:
            raise ValueError(f"{shown(text)} is none of: {', '.join(self.choices)}.")
        return text

    def _absent(self) -> Any:
        default = super()._absent()
        if self.multiple:
            return [default] if default and isinstance(default, str) else default or []
        # A strict choice promises one of its choices, and not every one has a default.
        return self.parse(default)


@dataclass(frozen=True, kw_only=True)
class UserName(_Input):
    """Who asks for the build.  need_email: it must hold an e-mail address, if it holds anything."""

    type: Literal["username"] = "username"
    default: str = ""
    size: int = 30
    need_email: bool = True

    def parse(self, text: str) -> str:
        """Return the name, if it is as complete as it needs to be."""
        # Word by word: a search for the whole pattern takes quadratic time on a long text.
        words = _BESIDE_EMAIL.split(text)
        if self.need_email and not any(map(_EMAIL.fullmatch, words)):
            raise ValueError(f"{shown(text)} has no e-mail address, as in Jo <jo@example.org>.")
        return text


@dataclass(frozen=True, kw_only=True)
class Fixed(_Field):
    """A value that nobody can change; what is posted does not count."""

    type: Literal["fixed"] = "fixed"
    default: str | int | bool | tuple[str, ...] = ""
    hide: bool = True

    def read(self, posted: object) -> Any:  # noqa: ARG002  the one field that does not look
        """Return the default."""
        return _plain(self.default)


@dataclass(frozen=True, kw_only=True)
class Nested(_Field):
    """
    A group of fields, whose full names begin with its own.

    Its value is one property, ``{name: value}``; without a name it only groups.
    columns: 2 from four fields on, if not given.
    """

    type: Literal["nested"] = "nested"
    layout: str = "vertical"
    columns: int | None = None
    fields: tuple[Field, ...] = ()


Leaf = Text | TextArea | Int | Bool | Choice | UserName | Fixed
Field = Annotated[Leaf | Nested, Discriminator("type")]
Line = Annotated[Text | TextArea | Choice | UserName | Fixed, Discriminator("type")]


def full_name(field: Leaf | Nested, group: str = "") -> str:
    """Return the name under which a field is posted: its group's, then its own."""
    return "_".join(filter(None, (group, field.name)))


def leaves(fields: Sequence[Leaf | Nested], group: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield every field that takes a value, in order, with its full name."""
    for field in fields:
        name = full_name(field, group)
        if isinstance(field, Nested):
            yield from leaves(field.fields, name)
        else:
            yield name, field


# A group and a fixed field have these in their REST objects too, though they mean nothing there.
# The regex of a field is never shown.
_BLANK = {"default": "", "maxsize": None, "multiple": False, "regex": None, "required": False}


def field_row(field: Leaf | Nested, group: str = "") -> dict[str, Any]:
    """Return a field as it stands in the REST object, ``all_fields``."""
    name = full_name(field, group)
    row = _BLANK | {f.name: _plain(getattr(field, f.name)) for f in dataclasses.fields(field)}
    row |= {
        "fullName": name or None,
        "label": field.title,
        "tablabel": field.title if field.tablabel is None else field.tablabel,
        "regex": None,
    }
    if isinstance(field, Nested):
        row["fields"] = [field_row(inner, name) for inner in field.fields]
        row["columns"] = field.columns or (2 if len(field.fields) > 3 else 1)  # noqa: PLR2004
    return row


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _texts(posted: object) -> list[str]:
    """Return the texts that were posted, without those that are blank."""
    several = posted if isinstance(posted, (list, tuple)) else [posted]
    return [text for text in map(_text, several) if text.strip()]


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise ValueError("This must be text, a number, true or false.")  # noqa: TRY004
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        text.encode()
    except ValueError:
        raise ValueError("This has characters or digits that nothing could store.") from None
    if "\0" in text:
        raise ValueError("This has a zero character, which not every database can store.")
    return text


def shown(text: str) -> str:
    """Return what was posted, for a sentence about it: not all of it, if it is long."""
    longest = 60
    return repr(text if len(text) <= longest else f"{text[:longest]}…")
