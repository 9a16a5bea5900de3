"""The RAML document is a valid one, as the parser of the RAML project says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from buildapi.data.api import ROUTER
from buildapi.data.values import ValueType
from buildapi.docs import raml, yaml
from buildapi.docs.endpoints import endpoints
from buildapi.testing import WebClient, in_memory_api

PARSER = "raml-1-parser@1.1.67"


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what a parser makes of the document."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("raml")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PARSER]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
    document = folder / "buildapi.raml"
    document.write_text(raml.text(), encoding="utf-8")
    return parse(folder, document)


def parse(folder: Path, document: Path) -> Any:
    """Run the parser that is installed in a folder."""
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("parse.js")), str(document)],
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
        check=True,
        capture_output=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_it_is_a_valid_document(parsed: Any) -> None:
    """Of RAML 1.0, without a warning."""
    assert parsed["errors"] == []
    assert parsed["version"] == "RAML10"


def test_every_path_is_a_resource_with_its_methods(parsed: Any) -> None:
    """No other is one."""
    found = {one["path"]: one for one in parsed["resources"] if one["methods"]}
    wanted = {"/api/v2" + endpoint.path: endpoint for endpoint in endpoints(ROUTER.routes)}

    assert set(found) == set(wanted)
    for path, endpoint in wanted.items():
        assert found[path]["methods"] == (["get", "post"] if endpoint.actions else ["get"])


def test_an_open_element_is_declared_where_it_stands(parsed: Any) -> None:
    """Whether something is found there or only below it."""
    assert len(parsed["resources"]) > 107
    for one in parsed["resources"]:
        assert one["parameters"] == re.findall(r"{(\w+)}", one["path"].rpartition("/")[2])


@pytest.mark.parametrize(
    ("of", "name"),
    [
        (ValueType("integer", nullable=True), "integer | nil"),
        (ValueType("list", of=ValueType("string", nullable=True)), "(string | nil)[]"),
        (ValueType("list", nullable=True, of=ValueType("integer")), "integer[] | nil"),
        (ValueType("object", nullable=True), "any"),
        (ValueType("binary", nullable=True), "nil"),
    ],
)
def test_a_type_is_an_expression(of: ValueType, name: str) -> None:
    """Null stands where it can be."""
    assert raml.type_name(of) == name


def test_a_key_that_yaml_takes_for_something_else_is_quoted() -> None:
    """As is what begins a mapping; lists and texts are those of JSON."""
    value = {"on": 1, "200": {"a{b}": ["x"]}, "/{id}": "it's", "": {}}

    assert list(yaml.lines(value)) == [
        '"on": 1',
        '"200":',
        '  a{b}: ["x"]',
        '/{id}: "it\'s"',
        '"": {}',
    ]


def test_it_is_served() -> None:
    """As RAML's own type."""
    answer = WebClient(in_memory_api()).get("/docs/buildapi.raml")

    assert answer.headers["content-type"] == "application/raml+yaml"
    assert answer.body.decode() == raml.text()
