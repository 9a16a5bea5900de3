"""
An index of patterns: which of many match a name, without asking each.

Patterns share their beginnings: ``build.10.#`` and ``build.10.finished`` are one path that forks
after ``10``. Looking up a name walks all paths at once, word by word, and stops at the first
word that nobody wants, so patterns that do not match cost nothing. `#` is a node that stays
in the walk whatever the next word is; as it is in the walk only once, no set of patterns can make
a look-up explode.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from buildapi.mq.topic import Pattern, Wild

T = TypeVar("T")


class Place(Generic[T]):
    """Where all patterns that begin with the same steps have got to, and the values of those."""

    # The two wild steps stand in attributes too: `find` looks at them for every word published, and
    # members of an Enum are slow to find in a dictionary (measured: a third fewer events a second).
    __slots__ = ("any_number", "any_word", "has_wild", "next", "stays", "values")

    def __init__(self, *, stays: bool = False) -> None:
        self.next: dict[str | Wild, Place[T]] = {}
        self.any_word: Place[T] | None = None
        self.any_number: Place[T] | None = None
        self.has_wild = False
        self.stays = stays
        self.values: set[T] = set()

    def grow(self, step: str | Wild) -> Place[T]:
        """Return the node that follows after ``step``, a new one if need be."""
        if step not in self.next:
            self.next[step] = Place(stays=step is Wild.ANY)
            self._find_wild()
        return self.next[step]

    def prune(self, step: str | Wild) -> None:
        """Cut the node that follows after ``step``."""
        del self.next[step]
        self._find_wild()

    def _find_wild(self) -> None:
        self.any_word = self.next.get(Wild.ONE)
        self.any_number = self.next.get(Wild.ANY)
        self.has_wild = self.any_word is not None or self.any_number is not None


class Trie(Generic[T]):
    """
    Values under patterns, found by names.

    pairs: how many there are of a pattern and a value. Values are told apart by equality.
    """

    def __init__(self) -> None:
        self._root: Place[T] = Place()
        self.pairs = 0

    def add(self, pattern: Pattern, value: T) -> None:
        """Put a value under a pattern; a second time changes nothing."""
        node = self._root
        for step in pattern:
            node = node.grow(step)
        self.pairs += value not in node.values
        node.values.add(value)

    def remove(self, pattern: Pattern, value: T) -> None:
        """
        Take a value from under a pattern, and give back the memory.

        Raises KeyError if it is not there.
        """
        path = [self._root]
        for step in pattern:
            path.append(path[-1].next[step])
        path[-1].values.remove(value)
        self.pairs -= 1
        for step in reversed(pattern):
            node = path.pop()
            if node.values or node.next:
                break
            path[-1].prune(step)

    def find(self, words: Sequence[str]) -> AbstractSet[T]:
        """Find the values of all patterns that match a name, given as its words."""
        return frozenset().union(*[place.values for place in self.places(words)])

    def places(self, words: Sequence[str]) -> tuple[Place[T], ...]:
        """
        Find where the values of all patterns that match a name stand; none of the places is empty.

        They are the same objects until a value is added or removed.
        """
        # Most names leave before anything wild has come, and until then there is but one path.
        place = self._root
        at = 0
        for word in words:
            if place.has_wild:
                return _reached(place, words[at:])
            following = place.next.get(word)
            if following is None:
                return ()
            place = following
            at += 1  # noqa: SIM113  to enumerate takes longer
        return _reached(place, ())


def _reached(start: Place[T], words: Sequence[str]) -> tuple[Place[T], ...]:
    """Walk all paths from a place at once."""
    places: list[Place[T]] = []
    _enter(start, places)
    for word in words:
        reached: list[Place[T]] = []
        for place in places:
            # It may have been entered anew: by a place before it, for parents come first.
            if place.stays and place not in reached:
                reached.append(place)
            if (following := place.next.get(word)) is not None:
                _enter(following, reached)
            if (following := place.any_word) is not None:
                _enter(following, reached)
        if not reached:
            return ()
        places = reached
    return tuple([place for place in places if place.values])


def _enter(place: Place[T], reached: list[Place[T]]) -> None:
    """Step on a place, and on a `#` behind it, which needs no word."""
    reached.append(place)
    while (following := place.any_number) is not None:
        reached.append(following)
        place = following
