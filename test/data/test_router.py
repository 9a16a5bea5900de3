"""What paths mean: every one of the contract, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.api import RESOURCES, ROUTER
from buildapi.data.router import LONGEST_REMEMBERED, Key, Match, Router
from buildapi.data.values import LARGEST
from buildapi.errors import NoSuchPath

# The paths of the contract, of the resource types that there are: kind, plural, pattern.
PATHS = (Path(__file__).parent / "paths.txt").read_text(encoding="utf-8").splitlines()


def meant(path: str) -> tuple[str, dict[str, Key]]:
    """Return the pattern of a path, and the values of its keys."""
    route, bound = ROUTER.match(path)
    return route.pattern, bound


def unknown(path: str) -> str:
    """Return the sentence with which a path is refused."""
    with pytest.raises(NoSuchPath) as caught:
        ROUTER.match(path)
    return str(caught.value)


def test_the_paths_are_those_of_the_contract() -> None:
    """One list is derived from the declarations, the other is checked in: they are the same."""
    declared = [f"{r.kind} {r.resource.plural} {r.pattern}" for r in ROUTER.routes]

    assert sorted(declared) == PATHS


@pytest.mark.parametrize("line", PATHS)
def test_every_path_is_found(line: str) -> None:
    """Filled with values, a pattern is found again, with those values."""
    kind, plural, pattern = line.split()
    sample: dict[str, Key] = {"n": 7, "i": "a-name", "s": "straße 1/2", "": 8}
    elements: list[Key] = []
    wanted = {}
    for element in pattern.split("/"):
        form, colon, name = element.partition(":")
        elements.append(sample[form] if colon else element)
        if colon:
            wanted[name] = sample[form]

    route, bound = ROUTER.find(elements)

    assert (route.kind, route.resource.plural, route.pattern) == (kind, plural, pattern)
    assert bound == wanted


def test_numbers_win_over_names() -> None:
    """A builder that is called 9 is found by its id only."""
    assert meant("builders/9") == ("builders/n:builderid", {"builderid": 9})
    assert meant("builders/nine") == ("builders/s:buildername", {"buildername": "nine"})
    assert meant("builders/9a")[1] == {"buildername": "9a"}
    assert meant("workers/9")[1] == {"workerid": 9}


def test_names_are_case_sensitive_text() -> None:
    """They come as they are."""
    assert meant("builders/RunTests")[1] == {"buildername": "RunTests"}
    assert meant("builders/%E2%98%83%20b%2Fc%3F")[1] == {"buildername": "☃ b/c?"}
    assert meant("builders/☃")[1] == {"buildername": "☃"}
    assert meant("builders/100%")[1] == {"buildername": "100%"}
    assert meant("builders/a+b")[1] == {"buildername": "a+b"}


def test_an_escaped_slash_stays_inside_its_element() -> None:
    """It separates nothing."""
    assert meant("builders/linux%2Farm/builds/3") == (
        "builders/s:buildername/builds/n:build_number",
        {"buildername": "linux/arm", "build_number": 3},
    )
    assert "Invalid path" in unknown("builds%2F3")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("000", 0),
        ("01", 1),
        ("%31%30", 10),
        (f"{LARGEST - 1}", LARGEST - 1),
        (f"{LARGEST + 1}", LARGEST),
        ("9" * 100, LARGEST),
        ("0" * 5000 + "5", 5),
    ],
)
def test_numbers_are_decimal_digits(text: str, number: int) -> None:
    """Zeros before them don't count, and what no database can hold is its largest number."""
    assert meant(f"builds/{text}")[1] == {"buildid": number}


@pytest.mark.parametrize("text", ["+1", "-1", " 1", "1%20", "1_0", "1.0", "1e3", "١", "²", "", "x"])  # noqa: RUF001
def test_other_digits_are_no_number(text: str) -> None:
    """The reference takes whatever its language does."""
    assert "Invalid path: builds/" in unknown(f"builds/{text}")


@pytest.mark.parametrize("name", ["compile", "-x", "_1", "a.b-c_d9"])
def test_identifiers(name: str) -> None:
    """They begin with a letter, a minus or an underscore."""
    assert meant(f"builds/1/steps/{name}")[1] == {"buildid": 1, "step_name": name}


@pytest.mark.parametrize("name", ["two%20words", ".x", "9a", "é", "a%2Fb", "a%0A", ""])
def test_what_is_no_identifier_names_no_step(name: str) -> None:
    """Such a step has its number."""
    assert "Invalid path" in unknown(f"builds/1/steps/{name}")


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("007", 7), ("x", None), ("", None), ("7.0", None), ("+7", None)]
)
def test_a_bare_element_takes_any_text(text: str, value: int | None) -> None:
    """But only a number can be what it stands for."""
    assert meant(f"builders/{text}/forceschedulers")[1] == {"builderid": value}
    assert meant(f"buildsets/{text}/sourcestamps")[1] == {"buildsetid": value}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/builds",
        "builds/",
        "builds//steps",
        "nosuch",
        "builds/1/nosuch",
        "Builds",
        "steps",
    ],
)
def test_other_paths_are_unknown(path: str) -> None:
    """A slash at the end makes an empty element."""
    assert unknown(path) == f"Invalid path: {path}"


@pytest.mark.parametrize("path", ["builders/%FF", "builders/%ED%A0%80", "builders/\udcff", "%C3"])
def test_a_path_is_utf_8(path: str) -> None:
    """The reference fails; here nothing is found, and the sentence can be sent."""
    assert unknown(path).encode().endswith(b"is no UTF-8")


def test_a_sentence_does_not_repeat_a_whole_path() -> None:
    """It goes into logs."""
    assert len(unknown("x" * 10_000)) < 300


def test_a_path_in_python_is_a_sequence_of_elements() -> None:
    """Numbers and texts, each one element whatever it contains."""
    assert ROUTER.find(("builders", "a/b", "builds", 5)) == ROUTER.match("builders/a%2Fb/builds/5")
    assert ROUTER.find("builds/10/steps") == ROUTER.match("builds/10/steps")
    for path in (("builders", "\udcff"), ("builds", -1), ("builds", 1.5), ("builds", True), ()):
        with pytest.raises(NoSuchPath):
            ROUTER.find(path)  # type: ignore[arg-type]  # that's what is tested


def test_only_short_paths_are_remembered() -> None:
    """Nobody fills the memory with paths that are never asked again."""
    router = Router(RESOURCES)
    for number in range(10):
        assert isinstance(router.match(f"builders/{number}{'x' * LONGEST_REMEMBERED}"), Match)
    assert isinstance(router.match("builds/1"), Match)

    assert router._remembered.cache_info().currsize == 1
    assert router._remembered.cache_info().maxsize is not None


@given(st.lists(st.one_of(st.sampled_from(["builds", "builders", "steps", "1"]), st.text())))
def test_a_path_is_found_or_unknown(elements: list[str]) -> None:
    """Nothing else is ever raised."""
    try:
        match = ROUTER.find(elements)
    except NoSuchPath as error:
        str(error).encode()
    else:
        assert len(match.route.pattern.split("/")) == len(elements)
