"""
Paths: from ``builds/10/steps/compile`` to what it means, and back.

Pure. ``n:`` takes plain ASCII digits, ``i:`` identifiers, ``s:`` and a bare ``:x`` any text;
numbers win over names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from buildapi.data.query import shown
from buildapi.data.schema import Resource
from buildapi.data.values import IDENTIFIER, LARGEST
from buildapi.errors import NoSuchPath

Kind = Literal["one", "many", "raw", "raw_inline"]
KINDS: tuple[Kind, ...] = ("one", "many", "raw", "raw_inline")
# What a key is bound to; None where a number was wanted and something else came.
Key = int | str | None

# Longer paths are not remembered: what is repeated is short.
LONGEST_REMEMBERED = 500

# In this order an element is tried; the bare form is the last because it takes anything.
_TAKES: dict[str, Callable[[str], bool]] = {
    "n": lambda text: text.isascii() and text.isdigit(),
    "i": lambda text: IDENTIFIER.fullmatch(text) is not None,
    "s": lambda _: True,
    "": lambda _: True,
}


@dataclass(frozen=True, eq=False)
class Route:
    """One pattern: and what it gives."""

    resource: type[Resource]
    kind: Kind
    pattern: str


class Match(NamedTuple):
    """A path that a route takes, with the values of its keys."""

    route: Route
    bound: dict[str, Key]


@dataclass
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    open: dict[str, tuple[str, _Node]] = field(default_factory=dict)
    route: Route | None = None


class Router:
    """All paths of the given resource types."""

    def __init__(self, resources: Iterable[type[Resource]]) -> None:
        self.routes = tuple(
            Route(resource, kind, pattern)
            for resource in resources
            for kind in KINDS
            for pattern in getattr(resource, kind)
        )
        self._root = _Node()
        for route in self.routes:
            self._add(route)
        self._remembered = lru_cache(maxsize=4096)(self._match)

    def _add(self, route: Route) -> None:
        node = self._root
        for element in route.pattern.split("/"):
            kind, colon, name = element.partition(":")
            if colon:
                step = f"{kind}:{name}"
                node = node.open.setdefault(step, (kind, _Node()))[1]
            else:
                node = node.literal.setdefault(element, _Node())
        node.route = route

    def match(self, path: str) -> Match:
        """
        Return what ``path`` (below /api/v2, still percent-encoded) means, or raise NoSuchPath.
        """
        return self._remembered(path) if len(path) <= LONGEST_REMEMBERED else self._match(path)

    def _match(self, path: str) -> Match:
        try:
            path.encode()
            elements = [unquote(e, errors="strict") if "%" in e else e for e in path.split("/")]
        except UnicodeError:
            raise NoSuchPath(f"Invalid path: {shown(path)} is no UTF-8") from None
        found = _walk(self._root, elements, 0)
        if found is None:
            raise NoSuchPath(f"Invalid path: {shown('/'.join(elements))}")
        return Match(*found)

    def find(self, path: str | Sequence[Key]) -> Match:
        """Return what a path, given as text or as a sequence of elements, means."""
        if not isinstance(path, str):
            if not isinstance(path, Sequence) or isinstance(path, bytes):
                raise NoSuchPath(
                    f"a path is a text or a sequence of elements, not {shown(repr(path))}"
                )
            # A lone surrogate becomes an escape that is no UTF-8, and is refused as such.
            elements = (quote(str(e), safe="", errors="surrogatepass") for e in path)
            path = "/".join(elements)
        return self.match(path)


def _walk(node: _Node, elements: list[str], at: int) -> tuple[Route, dict[str, Key]] | None:
    if at == len(elements):
        return (node.route, {}) if node.route is not None else None
    element = elements[at]
    literal = node.literal.get(element)
    if literal is not None:
        found = _walk(literal, elements, at + 1)
        if found is not None:
            return found
    for kind in ("n", "i", "s", ""):
        if not _TAKES[kind](element):
            continue
        for step, (its_kind, child) in node.open.items():
            if its_kind == kind:
                found = _walk(child, elements, at + 1)
                if found is not None:
                    found[1][step.partition(":")[2]] = _value(kind, element)
                    return found
    return None


def _value(kind: str, element: str) -> Key:
    """Return what a database can compare a column with: a number for ``n:`` and a bare ``:x``."""
    if kind in ("i", "s"):
        return element
    if not _TAKES["n"](element):
        return None
    # No row has a number beyond 64 bits, and the database could not even compare with it.
    digits = element.lstrip("0") or "0"
    return min(int(digits), LARGEST) if len(digits) < 20 else LARGEST  # noqa: PLR2004
