"""Lists that are cut: what an answer says of the rest, and how a client gets it."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import pytest

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Server, Settings
from buildapi.testing import Answer, WebClient, a_build, in_memory_api, result_of

ROWS = 3
NAMES = [f"b{number}" for number in range(8)]
JSON = {"Accept": "application/json"}


@pytest.fixture
def api() -> BuildAPI:
    """A service that gives three rows at most, with eight builders."""
    return with_builders(Settings(limits=Limits(rows=ROWS)))


def with_builders(settings: Settings) -> BuildAPI:
    """A service with eight builders."""
    api = in_memory_api(settings)
    for name in NAMES:
        result_of(api.data.updates.findBuilderId(name))
    return api


def next_link(answer: Answer) -> str | None:
    """The URL that Link says is next."""
    link = answer.headers["link"]
    if link is None:
        return None
    found = re.fullmatch(r'<([^<>"\s]+)>; rel="next"', link)
    assert found
    return found[1]


def below_root(url: str) -> str:
    """The URL as a request line has it."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def followed(web: WebClient, path: str, headers: dict[str, str] | None = None) -> list[list[Any]]:
    """All pages from the first on, by Link."""
    pages = []
    url: str | None = path
    while url is not None:
        answer = web.get(url, headers)
        assert answer.status == 200
        (rows,) = (value for name, value in answer.json().items() if name != "meta")
        pages.append(rows)
        link = next_link(answer)
        assert answer.json()["meta"].get("next", link) == link
        url = link and below_root(link)
    return pages


@pytest.mark.parametrize("headers", [{}, JSON])
def test_a_list_that_nobody_limited_is_cut(web: WebClient, headers: dict[str, str]) -> None:
    """It says so, where the rest is, and how much there is in all."""
    answer = web.get("/api/v2/builders?field=name", headers)

    url = "http://127.0.0.1:8010/api/v2/builders?field=name&offset=3"
    assert answer.json() == {
        "builders": [{"name": name} for name in NAMES[:ROWS]],
        "meta": {"total": 8, "truncated": True, "next": url},
    }
    assert answer.headers["link"] == f'<{url}>; rel="next"'


def test_people_can_read_that_it_is_cut(web: WebClient) -> None:
    """It is indented like all the rest."""
    answer = web.get("/api/v2/builders?field=name")

    assert answer.body.decode() == json.dumps(answer.json(), indent=2, separators=(", ", ": "))


def test_who_gives_a_limit_gets_it(web: WebClient) -> None:
    """Above the cap too; meta is as ever, only the header leads on."""
    answer = web.get("/api/v2/builders?limit=5")

    assert len(answer.json()["builders"]) == 5
    assert answer.json()["meta"] == {"total": 8}
    assert next_link(answer) == "http://127.0.0.1:8010/api/v2/builders?limit=5&offset=5"


@pytest.mark.parametrize(
    "path",
    [
        *("builders?limit=8", "builders?limit=0", "builders?offset=5", "builders?offset=99"),
        *("builders?limit=1&offset=7", "builders?limit=99999999999999999999", "builders?name=b1"),
        *("builders/1", "builders/1?limit=1", "nosuch"),
    ],
)
def test_where_nothing_follows_nothing_leads_on(web: WebClient, path: str) -> None:
    """The last page, an empty one, a single object, an error."""
    answer = web.get(f"/api/v2/{path}")

    assert answer.headers["link"] is None
    assert set(answer.json().get("meta", {})) <= {"total"}


@pytest.mark.parametrize("headers", [{}, JSON])
@pytest.mark.parametrize(
    ("path", "sizes"),
    [
        ("builders", [3, 3, 2]),
        ("builders?limit=1", [1] * 8),
        ("builders?limit=5&order=-name", [5, 3]),
        ("builders?offset=6", [2]),
        ("builders?name__ne=b0&name__ne=b3", [3, 3]),
        ("application.spec?limit=50", [50, 50, 38]),
        ("builders?order=description", [3, 3, 2]),
    ],
)
def test_who_follows_meets_every_row_once(
    api: BuildAPI, web: WebClient, path: str, sizes: list[int], headers: dict[str, str]
) -> None:
    """In order: cut or asked for, rows of tables or not, equal in what they are ordered by."""
    pages = followed(web, f"/api/v2/{path}", headers)

    assert [len(page) for page in pages] == sizes
    without_limit = re.sub(r"limit=\d+", "", path)
    assert list(chain(*pages)) == result_of(api.data.get(without_limit))


def test_the_root_and_what_is_no_select_are_cut_too(web: WebClient) -> None:
    """``/api/v2`` itself has no slash."""
    answer = web.get("/api/v2")

    assert next_link(answer) == "http://127.0.0.1:8010/api/v2?offset=3"
    assert len(list(chain(*followed(web, "/api/v2")))) == answer.json()["meta"]["total"] == 14


def test_property_lists_are_cut_in_their_order(api: BuildAPI, web: WebClient) -> None:
    """They go as they were stored."""
    result_of(a_build(api))
    names = ["z", "a", "m", "b", "y"]
    for name in names:
        result_of(api.data.updates.setBuildProperty(1, name, 1, "test"))

    pages = followed(web, "/api/v2/builds/1/property_list")

    assert [row["name"] for row in list(chain(*pages))] == names


@pytest.mark.parametrize("path", ["builders", "builders?limit=2"])
def test_head_says_the_same(web: WebClient, path: str) -> None:
    """All headers of a GET."""
    got, head = (web.request(method, f"/api/v2/{path}") for method in ("GET", "HEAD"))

    assert head.headers["link"] == got.headers["link"] is not None
    assert head.headers["content-length"] == got.headers["content-length"]


def test_a_filter_comes_along_whatever_it_is(api: BuildAPI, web: WebClient) -> None:
    """Quoted, so that it can neither end the URL nor be taken for something else."""
    odd = 'a&b=c <d>"é☃%+;\n'
    updates = api.data.updates
    for builderid in (1, 2, 3):
        result_of(updates.updateBuilderInfo(builderid, odd, None, None, None, []))
    text = "".join(f"%{byte:02x}" for byte in odd.encode())

    pages = followed(web, f"/api/v2/builders?description={text}&limit=1")

    assert [row["builderid"] for row in list(chain(*pages))] == [1, 2, 3]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/api/latest/builders", "/api/v2/builders"),
        ("/api/v2/%62uilders", "/api/v2/%62uilders"),
        ("/api/v2/builders", "/api/v2/builders"),
    ],
)
def test_the_path_is_the_one_that_was_asked_for(web: WebClient, path: str, url: str) -> None:
    """As it was quoted."""
    link = next_link(web.get(path))

    assert link == f"http://127.0.0.1:8010{url}?offset=3"


def test_nothing_of_a_client_ends_the_link(api: BuildAPI, web: WebClient) -> None:
    """Signs that no URL has, in a path or in a server's name, come back quoted."""
    for _ in range(2):
        result_of(a_build(api, 'a>;"b'))

    link = next_link(web.get('/api/v2/builders/a>;"b/builds?limit=1'))
    assert link == "http://127.0.0.1:8010/api/v2/builders/a%3E;%22b/builds?limit=1&offset=1"
    link = next_link(web.get("/api/v2/builders", {"Host": 'x>; rel="x'}))
    assert link == "http://x%3E;%20rel=%22x/api/v2/builders?offset=3"


def test_the_server_is_called_as_people_know_it(web: WebClient) -> None:
    """By its base_url, where there is one; else as the client does."""
    settings = Settings(
        limits=Limits(rows=ROWS), server=Server(base_url="https://ci.example.org/sub/")
    )
    behind_proxy = WebClient(with_builders(settings))

    link = next_link(behind_proxy.get("/api/v2/builders"))

    assert link == "https://ci.example.org/sub/api/v2/builders?offset=3"
    link = next_link(web.get("/api/v2/builders", {"Host": "ci:80"}))
    assert link == "http://ci:80/api/v2/builders?offset=3"


def test_no_cap_is_a_choice() -> None:
    """Zero gives whole lists."""
    web = WebClient(with_builders(Settings(limits=Limits(rows=0))))

    answer = web.get("/api/v2/builders?offset=1")

    assert len(answer.json()["builders"]) == 7
    assert answer.json()["meta"] == {"total": 8}
    assert answer.headers["link"] is None


def test_ten_thousand_rows_are_the_default() -> None:
    """More is asked for by pages."""
    assert Settings().limits.rows == 10_000


def test_a_master_gets_whole_lists(api: BuildAPI) -> None:
    """In process nobody is a stranger: a list is cut where that is asked for."""
    assert len(result_of(api.data.get("builders"))) == 8
    assert len(result_of(api.data.get("builders", limit=5))) == 5
