"""Values that SQLite keeps though they are not what they should be: something is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from buildapi.db import tables
from buildapi.service import BuildAPI
from buildapi.testing import Answer, WebClient, a_log, in_memory_api, result_of


@pytest.fixture
def api() -> BuildAPI:
    """Return a service on SQLite: the others keep nothing in a column but what belongs there."""
    return in_memory_api()


@pytest.fixture
def logid(api: BuildAPI) -> int:
    """A finished log of two lines, of the first step of build 1, which has a property."""
    found: int = result_of(a_log(api, "one\ntwo\n", finished=True))
    result_of(api.data.updates.setBuildProperty(1, "p", "v", "test"))
    return found


def spoil(api: BuildAPI, column: str, value: str) -> None:
    """Put a value, as SQL, into a column of every row."""
    table, name = column.split(".")
    change = sa.update(tables.metadata.tables[table]).values({name: sa.literal_column(value)})
    result_of(api.data.transaction(lambda tx: tx.run(change)))


def both(web: WebClient, path: str) -> tuple[Any, Any]:
    """Return an answer's JSON, as programs and as people get it."""
    found = (
        web.get(f"/api/v2/{path}", {"Accept": "application/json"}),
        web.get(f"/api/v2/{path}"),
    )
    assert [answer.status for answer in found] == [200, 200]
    first, second = (json.loads(answer.body, parse_constant=pytest.fail) for answer in found)
    return first, second


@pytest.mark.usefixtures("logid")
@pytest.mark.parametrize(
    ("column", "value", "path", "field", "shown"),
    [
        ("builds.state_string", "x'61ff'", "builds", "state_string", "a\ufffd"),
        ("builds.state_string", "x'61ff'", "builds/1", "state_string", "a\ufffd"),
        ("builds.results", "9e999", "builds", "results", None),
        ("builds.results", "'text'", "builds", "results", "text"),
        ("steps.urls_json", "'[1, '", "steps/1", "urls", []),
        ("steps.urls_json", "'[NaN]'", "builds/1/steps", "urls", [None]),
        ("build_properties.value", "'{broken'", "builds/1?property=*", "properties", {}),
        ("build_properties.value", "'{broken'", "builds/1/properties", "p", [None, "test"]),
        ("build_properties.value", "'1e999'", "builds/1/properties", "p", [None, "test"]),
        (
            "build_properties.source",
            "x'ff'",
            "builds/1/property_list?order=source",
            "source",
            "\ufffd",
        ),
        ("build_properties.name", "x'ff'", "builds/1/properties", "\ufffd", ["v", "test"]),
        ("build_properties.value", "x'22ff22'", "builds/1/property_list", "value", '"\ufffd"'),
    ],
)
def test_a_strange_value_is_shown(  # the words of one case
    api: BuildAPI, web: WebClient, column: str, value: str, path: str, field: str, shown: Any
) -> None:
    """As text if it is bytes, as nothing if JSON has no such thing; the rest is there."""
    spoil(api, column, value)

    for answer in both(web, path):
        (found,) = answer[next(iter(answer))]
        assert found[field] == shown


def refused(answer: Answer) -> bool:
    """Say whether the answer is a 409 with a sentence."""
    return answer.status == 409 and bool(answer.json()["error"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("logs.num_lines", "'many'"),
        ("logchunks.compressed", "'gz'"),
        ("logchunks.last_line", "x'ff'"),
    ],
)
def test_a_log_whose_numbers_are_none_is_a_conflict(
    api: BuildAPI, web: WebClient, logid: int, column: str, value: str
) -> None:
    """Whoever asks for its lines is told."""
    spoil(api, column, value)

    assert refused(web.get(f"/api/v2/logs/{logid}/contents"))
    assert refused(web.get(f"/api/v2/logs/{logid}/raw"))


@pytest.mark.usefixtures("logid")
def test_build_data_that_are_a_text_are_sent(api: BuildAPI, web: WebClient) -> None:
    """A number is a conflict: there are no bytes of it."""
    result_of(api.data.updates.setBuildData(1, "report", b"", "a step"))

    spoil(api, "build_data.value", "'text'")
    assert web.get("/api/v2/builds/1/data/report/value").body == b"text"
    spoil(api, "build_data.value", "3000000000")
    assert refused(web.get("/api/v2/builds/1/data/report/value"))


def test_text_in_a_chunk_is_its_content(api: BuildAPI, web: WebClient, logid: int) -> None:
    """A script that mends a database may write one."""
    spoil(api, "logchunks.content", "'eins' || char(10) || 'zwei'")

    contents = web.get(f"/api/v2/logs/{logid}/contents").json()["logchunks"][0]["content"]
    assert contents == "eins\nzwei\n"


def test_a_log_of_less_than_no_lines_comes_to_its_end(
    api: BuildAPI, web: WebClient, logid: int
) -> None:
    """It is an empty one; once, its download went on for ever."""
    spoil(api, "logs.num_lines", "-1")

    assert web.get(f"/api/v2/logs/{logid}/raw").body == b""
    assert web.get(f"/api/v2/logs/{logid}/contents").json()["logchunks"][0]["content"] == ""


def test_what_the_database_can_make_no_json_of_is_a_conflict(api: BuildAPI, web: WebClient) -> None:
    """SQLite's own functions refuse bytes."""
    result_of(a_log(api))
    result_of(api.data.updates.findSchedulerId("nightly"))
    result_of(api.data.updates.trySetSchedulerMaster(1, 1))
    spoil(api, "masters.name", "x'ff'")

    assert refused(web.get("/api/v2/schedulers"))


@pytest.mark.usefixtures("logid")
def test_a_large_number_beside_infinity_is_shown(api: BuildAPI, web: WebClient) -> None:
    """Neither spoils the other."""
    result_of(api.data.updates.setBuildProperty(1, "large", 10**30, "test"))
    spoil(api, "builds.results", "9e999")

    for answer in both(web, "builds?property=large"):
        assert answer["builds"][0]["results"] is None
        assert answer["builds"][0]["properties"] == {"large": [10**30, "test"]}
