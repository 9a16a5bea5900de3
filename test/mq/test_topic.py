"""Topics, slash keys and their patterns."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.errors import BadArgument, BadQuery
from buildapi.mq import topic
from buildapi.mq.topic import Wild


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("build.10.new", "build.10.new", True),
        ("build.10.new", "build.11.new", False),
        ("build.10.new", "build.10", False),
        ("build.10", "build.10.new", False),
        ("Build.10.new", "build.10.new", False),
        ("build.*.new", "build.10.new", True),
        ("build.*.new", "build.new", False),
        ("build.*", "build.10.new", False),
        ("*", "build", True),
        ("#", "build.10.new", True),
        ("build.10.#", "build.10", True),
        ("build.10.#", "build.10.step.2.log.60.append", True),
        ("build.10.#", "build.101.new", False),
        ("build.#.append", "build.10.step.2.log.60.append", True),
        ("build.#.append", "build.append", True),
        ("build.#.append", "build.10.step.2.log.60.complete", False),
        ("#.finished", "build.10.finished", True),
        ("#.step.#.new", "build.10.step.2.log.step.new", True),
        ("*.#", "build", True),
        ("#.*.*", "build", False),
    ],
)
def test_a_topic_pattern_matches_whole_words(pattern: str, name: str, expected: bool) -> None:
    """`*` is one word, `#` any number of them; nothing else is special."""
    assert topic.matches(topic.parse_pattern(pattern), topic.split_topic(name)) is expected


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("builds/10/new", "builds/10/new", True),
        ("builds/*/new", "builds/10/new", True),
        ("*/*/*", "builds/10/new", True),
        ("*/*", "builds/10/new", False),
        ("builds/*/NEW", "builds/10/new", False),
        ("builds/**", "builds/10/new", False),
        ("builds/#", "builds/10/new", False),
        ("builds/#/new", "builds/10/new", False),
        ("builds/1*/new", "builds/10/new", False),
        ("", "builds/10/new", False),
        ("", "", True),
    ],
)
def test_in_a_slash_pattern_only_a_star_is_special(pattern: str, key: str, expected: bool) -> None:
    """`*` is exactly one element, so the number of elements is equal; any text is a pattern."""
    assert topic.matches(topic.parse_key_pattern(pattern), topic.split_key(key)) is expected


@given(st.text())
def test_any_text_is_a_slash_pattern(text: str) -> None:
    """Buildbot refuses no text as a path, so neither do we; it matches at least itself."""
    pattern = topic.parse_key_pattern(text)

    assert topic.matches(pattern, topic.split_key(text))


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (5, "must be a string"),
        (None, "must be a string"),
        ("", "has an empty word"),
        ("build..new", "has an empty word"),
        (".build", "has an empty word"),
        ("build.", "has an empty word"),
        ("build.1*.new", r"'\*' must be a whole word, not part of '1\*'"),
        ("build.##", "'#' must be a whole word"),
        ("**", r"'\*' must be a whole word"),
        ("build.10 .new", "has a blank"),
        ("builds/*/new", "separated by dots"),
        ("x" * 257, "257 characters is too long: at most 256"),
        ("#.a.#.b.#.c.#.d.#", "too many '#': at most 4"),
    ],
)
def test_a_bad_topic_pattern_is_refused_with_a_reason(pattern: str, sentence: str) -> None:
    """A pattern that could never match is a slip of its writer, who is told what is wrong."""
    with pytest.raises(BadQuery, match=sentence):
        topic.parse_pattern(pattern)


def test_the_limits_are_the_last_values_accepted() -> None:
    """256 characters and four `#` are fine; repeated `#` are one."""
    assert topic.parse_pattern("x" * 256) == ("x" * 256,)
    assert topic.parse_pattern("#.a.#.b.#.c.#").count(Wild.ANY) == 4
    assert topic.parse_pattern("#.#.#.#.#.#") == (Wild.ANY,)


def test_none_in_a_routing_key_is_any_element() -> None:
    """A routing key means the slash pattern with `*` for None, and a `*` in it only itself."""
    assert topic.parse_routing_key(("builds", None, "new")) == ("builds", Wild.ONE, "new")
    assert topic.parse_routing_key(("builds", "*")) == ("builds", "*")


@pytest.mark.parametrize("routing_key", ["builds", ("builds", 10, "new"), None, {"builds": 1}])
def test_a_routing_key_that_could_never_match_is_refused(routing_key: tuple[str | None]) -> None:
    """An integer id in a routing key is a common slip; it is not accepted in silence."""
    with pytest.raises(BadArgument, match="tuple of strings and None"):
        topic.parse_routing_key(routing_key)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("build.10.new", True), ("builds/10/new", False), ("steps/1/a.b", False), ("build", False)],
)
def test_a_path_with_a_dot_and_no_slash_is_a_topic_pattern(path: str, expected: bool) -> None:
    """Where a client may give either, slashes win."""
    assert topic.is_dotted(path) is expected


def test_the_examples_in_the_docstrings_run() -> None:
    """They are the first thing that a reader copies."""
    results = doctest.testmod(topic)

    assert results.attempted > 0
    assert results.failed == 0
