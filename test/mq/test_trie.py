"""The index of patterns."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.mq.topic import Pattern, Wild, matches, parse_pattern
from buildapi.mq.trie import Trie

# Few different words, so that patterns and names really meet; some look like wild ones.
words = st.sampled_from(["build", "10", "step", "*", "#"])
names = st.lists(words, max_size=7)
wild = st.sampled_from([Wild.ONE, Wild.ANY])
patterns = st.lists(words | wild, max_size=6).map(tuple)


def filled(entries: list[Pattern]) -> Trie[int]:
    """Build a trie with the position of each pattern as its value."""
    trie = Trie[int]()
    for number, pattern in enumerate(entries):
        trie.add(pattern, number)
    return trie


@given(st.lists(patterns, max_size=20), names)
def test_the_trie_finds_what_matching_one_by_one_finds(
    entries: list[Pattern], name: list[str]
) -> None:
    """It is a quicker way to ask every pattern, with `#` at either end, in the middle or twice."""
    found = filled(entries).find(name)

    assert found == {number for number, pattern in enumerate(entries) if matches(pattern, name)}


@given(st.lists(st.tuples(patterns, st.booleans()), max_size=20), names)
def test_removing_leaves_the_others(entries: list[tuple[Pattern, bool]], name: list[str]) -> None:
    """After removing some, the trie finds the rest, whatever they shared with the removed ones."""
    trie = filled([pattern for pattern, _ in entries])
    for number, (pattern, removed) in enumerate(entries):
        if removed:
            trie.remove(pattern, number)

    assert trie.find(name) == {
        number
        for number, (pattern, removed) in enumerate(entries)
        if not removed and matches(pattern, name)
    }


@given(st.lists(patterns, max_size=20))
def test_an_emptied_trie_holds_no_memory(entries: list[Pattern]) -> None:
    """Clients come and go for months: nothing of a removed pattern stays."""
    trie = filled(entries)
    for number, pattern in enumerate(entries):
        trie.remove(pattern, number)

    assert trie.pairs == 0
    assert not trie._root.next


def test_adding_a_value_twice_changes_nothing() -> None:
    """A pair is there or not; it isn't counted."""
    trie = Trie[str]()
    trie.add(parse_pattern("build.#"), "once")
    trie.add(parse_pattern("build.#"), "once")
    assert trie.pairs == 1

    trie.remove(parse_pattern("build.#"), "once")

    assert trie.find(["build"]) == set()


@pytest.mark.parametrize("pattern", ["build.10.new", "build.10", "build", "step", "build.*"])
def test_removing_what_is_not_there_is_an_error(pattern: str) -> None:
    """It would hide that somebody lost count."""
    trie = Trie[str]()
    trie.add(parse_pattern("build.10.new"), "mine")

    with pytest.raises(KeyError):
        trie.remove(parse_pattern(pattern), "yours")


class CountedWord(str):
    """A word that counts how often it is looked up: once for every node that is walked."""

    __slots__ = ()
    look_ups: ClassVar[list[int]] = []

    def __hash__(self) -> int:
        """Count."""
        self.look_ups.append(1)
        return super().__hash__()


def test_many_wild_patterns_do_not_make_a_look_up_explode() -> None:
    """
    Each node is walked at most once per word.

    Sixteen times `#` and a hundred equal words have more ways to meet than there are atoms;
    it is nodes that are walked, not ways.
    """
    trie = Trie[int]()
    trie.add((Wild.ANY, "a") * 16 + ("b",), 1)
    trie.add((Wild.ANY, "a", Wild.ONE) * 16 + (Wild.ANY,), 2)
    nodes, length = 1 + 33 + 49, 100

    found = trie.find([CountedWord("a")] * length)

    assert found == {2}
    assert len(CountedWord.look_ups) <= nodes * length
