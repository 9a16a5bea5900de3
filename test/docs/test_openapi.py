"""The OpenAPI document is a valid one, and says what the API does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from buildapi.data.api import RESOURCES
from buildapi.data.values import ValueType
from buildapi.docs import jsonschema, openapi
from buildapi.testing import WebClient, in_memory_api


@pytest.fixture(scope="module")
def document() -> Any:
    """Return the document as a client reads it."""
    return json.loads(openapi.text())


def test_it_is_a_valid_document(document: Any) -> None:
    """As the validator of the OpenAPI project says."""
    validate(document)


def test_every_reference_leads_somewhere(document: Any) -> None:
    """And everything that could be referred to is."""
    text = json.dumps(document)
    components = document["components"]
    named = {f"#/components/{kind}/{name}" for kind in components for name in components[kind]}
    used = {piece.partition('"')[0] for piece in text.split('"$ref": "')[1:]}

    assert used == named


def test_every_pattern_has_its_path(document: Any) -> None:
    """The patterns stand beside the paths that they are."""
    paths = document["paths"].values()
    found = [pattern for path in paths for pattern in path.get("x-patterns", ())]

    assert len(found) == 138


def asked(document: Any, path: str) -> set[str]:
    """Return the arguments that a GET takes."""
    parameters = document["components"]["parameters"]
    references = document["paths"][f"/api/v2/{path}"]["get"]["parameters"]
    return {parameters[one["$ref"].rpartition("/")[2]]["name"] for one in references}


def test_what_waits_and_what_goes_on_has_its_arguments(document: Any) -> None:
    """Events, a log's lines, the outcome of what can be complete."""
    assert asked(document, "events") == {"topic", "since", "after", "log", "limit", "wait"}
    followed = {"follow", "wait", "grep", "context", "streams", "offset"}
    assert followed <= asked(document, "logs/{logid}/contents")
    assert followed - asked(document, "logs/{logid}/raw") == {"wait"}
    assert asked(document, "builds/{buildid}") >= {"until", "wait"}
    assert "until" not in asked(document, "builders/{builderid_or_buildername}")
    assert "until" not in asked(document, "builds")


def test_a_field_has_its_type_and_its_text(document: Any) -> None:
    """Null only where it can be."""
    fields = document["components"]["schemas"]["build"]["properties"]

    assert fields["number"] == {
        "type": "integer",
        "description": "Its number among its builder's, from 1.",
    }
    assert fields["results"]["type"] == ["integer", "null"]
    assert fields["complete_at"]["description"] == "When it ended."


def test_bytes_are_null_and_nothing_else() -> None:
    """Nullable or not."""
    assert jsonschema.schema(ValueType("binary", nullable=True))["type"] == "null"


def test_a_filter_is_offered_as_often_as_its_type_allows(document: Any) -> None:
    """A list knows only whether it has something."""
    filters = document["components"]["parameters"]["builders.filters"]["schema"]["properties"]

    assert filters["tags__contains"] == {"type": "string"}
    assert filters["name__ge"] == {"type": "string"}
    assert filters.keys().isdisjoint({"tags", "tags__eq", "builderid__contains"})


def test_every_resource_type_has_its_name(document: Any) -> None:
    """Those that answers are made of."""
    assert {resource.singular for resource in RESOURCES} <= set(document["components"]["schemas"])


def test_it_is_served(document: Any) -> None:
    """As JSON."""
    answer = WebClient(in_memory_api()).get("/docs/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == document
