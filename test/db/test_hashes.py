from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.db.hashes import (
    free_slug,
    free_step_name,
    identifier,
    name_hash,
    shortened,
    ss_hash,
)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("variety", "21e7a8ba505b82ec69fd96d2ed14a5cf25981466"),
        ("child 2/ünï", "74d72f896792a38f8ce6e0363b3bf2482a4249e6"),
        ("orphan builder", "52b3b467af23af915dc4807635f00cc94c4101ba"),
        ("ci.example.org:/srv/ci/master", "59e88a98e33fb0ca924be192b38f55f50a77dffd"),
    ],
)
def test_a_name_hashes_to_what_a_buildbot_database_holds(name: str, stored: str) -> None:
    """A row that a master made is found again by its name, spaces and umlauts included."""
    assert name_hash(name) == stored


def test_a_source_stamp_hashes_to_what_a_buildbot_database_holds() -> None:
    """Null, the empty text and a patch's number go into the hash as they did for Buildbot."""
    nothing = ss_hash(
        branch=None, revision=None, repository="", project="", codebase="", patchid=None
    )
    patched = ss_hash(
        branch="dev",
        revision="0000000000000000000000000000000000000005",
        repository="git://app",
        project="proj-a",
        codebase="app",
        patchid=1,
    )

    assert nothing == "835fccf6db3694afb48c380997024542c0bc162d"
    assert patched == "bc6a64f5c416dd566525434c33709ead45e4f7aa"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("stdio", "stdio"),
        ("one-newline", "one-newline"),
        ("report.html", "report_html"),
        ("123numeric", "_23numeric"),
        ("weird name/ü!", "weird_name___"),
        ("größe", "gr__e"),
        ("name\n", "name_"),
        ("", "_"),
        ("x" * 51, "x" * 50),
    ],
)
def test_a_log_name_becomes_a_slug(name: str, slug: str) -> None:
    """What an identifier can't hold becomes an underscore, one for each character."""
    assert identifier(name) == slug


@given(st.text())
def test_every_slug_can_stand_in_a_url(name: str) -> None:
    """Whatever a log is called, a path with its slug matches, and the slug stays what it is."""
    slug = identifier(name)

    assert re.fullmatch(r"[a-zA-Z_-][a-zA-Z0-9_-]{0,49}", slug)
    assert identifier(slug) == slug


def test_a_taken_slug_counts_from_two() -> None:
    """The second log of a name is number two."""
    assert free_slug("weird name/ü?", {"weird_name___"}) == "weird_name____2"
    assert free_slug("stdio", {"stdio", "stdio_2"}) == "stdio_3"
    assert free_slug("stdio", {"stdout"}) == "stdio"


def test_a_taken_step_name_counts_from_one() -> None:
    """The second step of a name is its first repetition; spaces stay."""
    assert free_step_name("run tests", {"run tests"}) == "run tests_1"
    assert free_step_name("compile", {"compile", "compile_1"}) == "compile_2"
    assert free_step_name("compile", set()) == "compile"


def test_a_suffix_takes_the_place_of_the_last_characters() -> None:
    """A name of full length keeps its length when it gets a number, and so does one beyond it."""
    taken = {"ä" * 50} | {"ä" * 48 + f"_{number}" for number in range(1, 10)}

    assert free_step_name("ä" * 60, taken) == "ä" * 47 + "_10"


@given(st.lists(st.text(alphabet="a_12", min_size=1, max_size=60), max_size=30))
def test_names_never_clash(names: list[str]) -> None:
    """However steps and logs are called, within a build or a step each has a name of its own."""
    steps: set[str] = set()
    logs: set[str] = set()
    for name in names:
        steps.add(free_step_name(name, steps))
        logs.add(free_slug(name, logs))

    assert len(steps) == len(logs) == len(names)
    assert all(len(name) <= 50 for name in steps | logs)


def test_a_text_that_is_too_long_keeps_half_and_its_hash() -> None:
    """Long texts are cut to the column's length, and stay different if only their ends differ."""
    first, second = shortened("n" * 200 + "1", 60), shortened("n" * 200 + "2", 60)

    assert first == "n" * 30 + name_hash("n" * 200 + "1")[:30]
    assert first != second
    assert shortened("n" * 60, 60) == "n" * 60
