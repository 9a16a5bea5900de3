"""From the API's patterns to paths as descriptions have them."""

from __future__ import annotations

import re
from pathlib import Path

from buildapi.data.api import ROUTER
from buildapi.docs.endpoints import Endpoint, endpoints

PATTERNS = (Path(__file__).parents[1] / "data" / "paths.txt").read_text().splitlines()


def at(path: str) -> Endpoint:
    """Return the endpoint with this path."""
    (found,) = [endpoint for endpoint in endpoints(ROUTER.routes) if endpoint.path == path]
    return found


def test_every_pattern_is_part_of_one_path() -> None:
    """None is lost when those of one shape become one path."""
    found = [pattern for endpoint in endpoints(ROUTER.routes) for pattern in endpoint.patterns]

    assert sorted(found) == sorted(route.pattern for route in ROUTER.routes)
    assert len(found) == len(PATTERNS) == 138


def test_no_two_paths_have_one_shape() -> None:
    """A client could not know which of them it asks."""
    shapes = [re.sub(r"\{\w+\}", "*", endpoint.path) for endpoint in endpoints(ROUTER.routes)]

    assert len(shapes) == len(set(shapes))


def test_an_element_of_either_kind_has_both_names() -> None:
    """The number first, because it is tried first."""
    steps = at("/builds/{buildid}/steps/{step_number_or_step_name}")

    assert [parameter.kinds for parameter in steps.parameters] == [("n",), ("n", "i")]
    assert steps.parameters[1].doc == "a number in plain digits or an identifier"


def test_methods_are_called_on_one_object_only() -> None:
    """A list has none."""
    assert set(at("/builds/{buildid}").actions) >= {"stop", "rebuild"}
    assert not at("/builds").actions
