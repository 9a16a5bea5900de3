"""
The names of events, and the patterns that match them.

    topic            build.10.step.2.finished        words between dots
    its pattern      build.*.step.#                  `*` one word, `#` any number, also none
    slash key        builds/10/steps/55/finished     elements between slashes: Buildbot's name
    its pattern      builds/*/steps/*/finished       `*` one element; `#` and `**` mean themselves
    routing key      ("builds", None, "new")         a slash pattern as masters' code writes it

Parsing turns a pattern of any of these spellings into one tuple, a ``Pattern``; ``matches`` says
what that tuple means. Everything compares case-sensitively. Pure: no I/O, no state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from buildapi.errors import BadArgument, BadQuery

MAX_LENGTH = 256
"""Characters of the longest topic pattern accepted; real topics have about fifty."""

MAX_ANY = 4
"""Most ``#`` in one topic pattern: with few, matching stays cheap whatever a client sends."""

MAX_ELEMENTS = 32
"""Elements of the longest slash key that an event may have; real keys have seven at most."""


class Wild(Enum):
    """What stands in a pattern for words that are not named."""

    ONE = "*"
    ANY = "#"


Pattern = tuple[str | Wild, ...]
"""A parsed pattern: words to be met exactly, and wild ones."""

# No topic has such a character, so a pattern with one is a slip that would silently match nothing.
_NEVER_IN_A_WORD = re.compile(r"[\s/*#]")


def split_topic(topic: str) -> list[str]:
    """
    The words of a topic.

    >>> split_topic("build.10.new")
    ['build', '10', 'new']
    """
    return topic.split(".")


def split_key(key: str) -> list[str]:
    """
    The elements of a slash key.

    >>> split_key("builds/10/new")
    ['builds', '10', 'new']
    """
    return key.split("/")


def is_dotted(path: str) -> bool:
    """
    Whether a path that may be either is a topic pattern: it has a dot and no slash.

    Source: events.md section 3, ``startConsuming``.
    """
    return "." in path and "/" not in path


def parse_pattern(text: str) -> Pattern:
    """
    Parse a topic pattern.

    ``#`` after ``#`` adds nothing and is dropped. Text from a client may be passed as it came.
    Raises BadQuery for what is no text, too long, has an empty word, a ``*`` or ``#`` that is
    only part of a word, blanks, slashes, or more than ``MAX_ANY`` times ``#``.

    >>> parse_pattern("build.*.#")
    ('build', <Wild.ONE: '*'>, <Wild.ANY: '#'>)
    """
    if not isinstance(text, str):
        raise BadQuery("a topic pattern must be a string, such as 'build.*.finished'")
    if len(text) > MAX_LENGTH:
        raise BadQuery(
            f"a topic pattern of {len(text)} characters is too long: at most {MAX_LENGTH}"
        )
    if "/" in text:
        raise BadQuery(
            f"'{text}' is no topic pattern: words are separated by dots, as in 'build.10.new'"
        )
    pattern: list[str | Wild] = []
    for word in split_topic(text):
        step = _parse_word(word, text)
        if not (step is Wild.ANY and pattern[-1:] == [Wild.ANY]):
            pattern.append(step)
    if pattern.count(Wild.ANY) > MAX_ANY:
        raise BadQuery(f"topic pattern '{text}' has too many '#': at most {MAX_ANY}")
    return tuple(pattern)


def _parse_word(word: str, text: str) -> str | Wild:
    match word:
        case "*":
            return Wild.ONE
        case "#":
            return Wild.ANY
        case "":
            raise BadQuery(f"topic pattern '{text}' has an empty word; '*' stands for any one word")
    if found := _NEVER_IN_A_WORD.search(word):
        if found[0].isspace():
            raise BadQuery(f"topic pattern '{text}' has a blank; topics have none")
        raise BadQuery(
            f"topic pattern '{text}': '{found[0]}' must be a whole word, not part of '{word}'"
        )
    return word


def parse_key_pattern(text: str) -> Pattern:
    """
    Parse a slash pattern. Any text is one, even the empty one; many can never match.

    >>> parse_key_pattern("builds/*/new")
    ('builds', <Wild.ONE: '*'>, 'new')
    """
    return tuple(Wild.ONE if element == "*" else element for element in split_key(text))


def parse_routing_key(routing_key: Sequence[str | None]) -> Pattern:
    """
    Parse a tuple of strings in which None stands for any one element.

    Raises BadArgument if it is something else: ``10`` instead of ``"10"`` would never match.

    >>> parse_routing_key(("builds", None, "new"))
    ('builds', <Wild.ONE: '*'>, 'new')
    """
    if not isinstance(routing_key, tuple | list) or not all(
        element is None or isinstance(element, str) for element in routing_key
    ):
        raise BadArgument(
            "a routing key must be a tuple of strings and None, such as ('builds', None, 'new')"
        )
    return tuple(Wild.ONE if element is None else element for element in routing_key)


def matches(pattern: Pattern, words: Sequence[str]) -> bool:
    """
    Whether a pattern matches a name, given as its words or elements.

    This is the definition, and the way for a single pattern; for many at once see ``trie``.

    >>> matches(parse_pattern("build.10.#"), split_topic("build.10.step.2.new"))
    True
    """
    if not pattern:
        return not words
    step, rest = pattern[0], pattern[1:]
    if step is Wild.ANY:
        return any(matches(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and step in (Wild.ONE, words[0]) and matches(rest, words[1:])
