"""What is served besides the data, and by which door one comes in."""

from __future__ import annotations

from dataclasses import replace
from email.utils import parsedate_to_datetime
from time import time

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import version

from buildapi.db.connect import compiled
from buildapi.errors import CannotOpen
from buildapi.service import BuildAPI
from buildapi.settings import Server, Settings
from buildapi.testing import Answer, WebClient, Wire, a_build, answered, in_memory_api, result_of


def test_api_tells_the_versions(web: WebClient) -> None:
    """With the address that the client asked."""
    answer = web.get("/api", {"Host": "ci.example.org:8010"})

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"api_versions": {"v2": "http://ci.example.org:8010/api/v2"}}


def test_the_known_address_is_told_if_it_is_set() -> None:
    """A proxy may ask us by another name."""
    api = in_memory_api(Settings(server=Server(base_url="https://ci.example.org/b/")))

    answer = WebClient(api).get("/api", {"Host": "10.0.0.1:8010"})

    assert answer.json() == {"api_versions": {"v2": "https://ci.example.org/b/api/v2"}}


@pytest.mark.parametrize("path", ["/api", "/api/v2", "/api/v2/", "/api/v2/nosuch", "/nosuch"])
def test_every_answer_says_who_gave_it_and_when(web: WebClient, path: str) -> None:
    """By whatever door it came."""
    # Whole seconds, by a clock of the system's that may be a little behind.
    before = time() - 2
    headers = [web.get(path).headers for _ in range(2)]

    assert {each["server"] for each in headers} == {version.decode()}
    for each in headers:
        assert before <= parsedate_to_datetime(each["date"]).timestamp() <= time()


@pytest.mark.parametrize("path", ["/api/", "/api/v1", "/api/v3", "/api/v1/builds", "/", "/nosuch"])
def test_other_pages_are_missing(web: WebClient, path: str) -> None:
    """An HTML page says so, not a sentence in JSON."""
    answer = web.get(path)

    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/%ff", "/api/%ff", "/ws%ff"])
def test_a_page_whose_name_is_no_text_is_missing(web: WebClient, path: str) -> None:
    """And nobody writes a traceback into the log about it."""
    assert web.get(path).status == 404
    assert web.get("/api", {"Host": "\udcff"}).status == 404


@pytest.mark.parametrize("host", ["a" * 999, "a..b", ".", "☃" * 80])
def test_a_host_that_is_no_name_is_refused(web: WebClient, host: str) -> None:
    """Once it was an error of the server."""
    assert web.get("/api", {"Host": host}).status == 400
    assert web.get("/api/v2", {"Host": host}).status in (200, 400)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_healthz_says_that_the_process_answers(web: WebClient, method: str) -> None:
    """Whatever the database does."""
    answer = web.request(method, "/healthz")

    assert answer.status == 200
    assert answer.body == (b"ok\n" if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_readyz_says_that_requests_are_served(web: WebClient, method: str) -> None:
    """200 is all that a load balancer looks at."""
    answer = web.request(method, "/readyz")

    assert answer.status == 200
    assert answer.body == (b"ready\n" if method == "GET" else b"")


@pytest.mark.systems("sqlite")
def test_readyz_costs_no_memory(web: WebClient) -> None:
    """However often a load balancer asks, what is asked of the database is the same."""
    web.get("/readyz")
    known = compiled.cache_info().misses

    web.get("/readyz")

    assert compiled.cache_info().misses == known


@pytest.mark.systems("sqlite")
def test_readyz_is_503_while_the_service_opens(api: BuildAPI, web: WebClient) -> None:
    """It says why."""
    api._outcome = None

    answer = web.get("/readyz")

    assert answer.status == 503
    assert answer.body == b"not ready: the database is being opened\n"


@pytest.mark.systems("sqlite")
def test_readyz_is_503_after_a_failure(api: BuildAPI, web: WebClient) -> None:
    """The sentence is that of the error."""
    api._outcome = None
    api._started(Failure(CannotOpen("the disk is full")))

    answer = web.get("/readyz")

    assert answer.status == 503
    assert answer.body == b"not ready: the disk is full\n"


@pytest.mark.systems("sqlite")
def test_readyz_is_503_without_a_database(api: BuildAPI, web: WebClient) -> None:
    """A load balancer would send requests here that no server without one can answer."""
    result_of(api.database.close())

    answer = web.get("/readyz")

    assert answer.status == 503
    assert answer.body.startswith(b"not ready: the database is not open")


@pytest.mark.systems("sqlite")
def test_readyz_is_503_after_the_stop(api: BuildAPI) -> None:
    """For a connection that was open before, as long as it is."""
    wire = Wire(api)
    api.running = False

    wire.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answered(wire.take()).status == 503


ORIGINS = ("http://good.example.org", "*.wild.example.org")


@pytest.fixture
def friendly() -> WebClient:
    """Return a client of a server that lets pages of other origins in."""
    server = replace(Server(), allowed_origins=ORIGINS)
    return WebClient(in_memory_api(Settings(server=server)))


def granted(answer: Answer) -> str | None:
    """Return the origin that a browser may show the answer to."""
    origin: str | None = answer.headers["access-control-allow-origin"]
    return origin


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8010", "HTTP://Good.Example.Org", "https://a.wild.example.org"]
)
@pytest.mark.parametrize("path", ["builders", "builders/1", "nosuch"])
def test_a_page_of_an_allowed_origin_reads(friendly: WebClient, origin: str, path: str) -> None:
    """Answers and errors; the origin comes back in lower case."""
    answer = friendly.get(f"/api/v2/{path}", {"Origin": origin})

    assert granted(answer) == origin.lower()
    assert answer.status == friendly.get(f"/api/v2/{path}").status


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_a_page_of_another_origin_is_refused(friendly: WebClient, method: str) -> None:
    """Whatever it wants."""
    answer = friendly.request(method, "/api/v2/builders", {"Origin": "http://evil.example.org"})

    assert answer.status == 400
    assert granted(answer) is None
    assert answer.body == (b"" if method == "HEAD" else b'{"error":"invalid origin"}')
    assert ("content-length" in answer.headers) == (method != "HEAD"), "as of every error"


def test_a_call_of_another_origin_is_refused(friendly: WebClient) -> None:
    """In the form of a JSON-RPC error, before anything is looked at."""
    answer = friendly.request("POST", "/api/v2/builders/1", {"Origin": "http://x"}, b"{")

    assert answer.status == 400
    assert answer.json() == {"error": {"message": "invalid origin"}}


def test_a_good_preflight_is_answered(friendly: WebClient) -> None:
    """Empty, as HTML, with what the page may send."""
    answer = friendly.request(
        "OPTIONS",
        "/api/v2/builders/1",
        {
            "Origin": "http://good.example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, authorization",
        },
    )

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == "text/html"
    assert granted(answer) == "http://good.example.org"
    assert answer.headers["access-control-allow-headers"] == "Content-Type, Authorization"
    assert answer.headers["access-control-max-age"] == "3600"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "", None])
def test_a_preflight_for_another_method_is_refused(friendly: WebClient, method: str | None) -> None:
    """There is nothing that a page could do by it."""
    headers = {"Origin": "http://good.example.org"}
    if method is not None:
        headers["Access-Control-Request-Method"] = method

    answer = friendly.request("OPTIONS", "/api/v2/builders", headers)

    assert answer.status == 400
    assert answer.json() == {"error": "invalid method"}


def test_options_without_an_origin_is_no_preflight(web: WebClient) -> None:
    """So it is a method that we do not have."""
    answer = web.request("OPTIONS", "/api/v2/builders")

    assert answer.status == 400
    assert answer.json() == {"error": "invalid HTTP method"}


def test_a_page_of_the_known_address_is_ours() -> None:
    """Whose path is no part of its origin; what a proxy calls us doesn't matter."""
    api = in_memory_api(Settings(server=Server(base_url="https://ci.example.org/buildapi/")))
    web = WebClient(api)

    assert web.get("/api/v2/builders", {"Origin": "https://ci.example.org"}).status == 200
    assert web.get("/api/v2/builders", {"Origin": "http://ci.example.org"}).status == 400


@pytest.mark.parametrize("path", ["/api/%762/builds", "/api/v%32/builds"])
def test_an_escaped_address_comes_by_the_other_door(
    api: BuildAPI, web: WebClient, path: str
) -> None:
    """And gets the same."""
    result_of(a_build(api))

    assert web.get(path).body == web.get("/api/v2/builds").body


def test_both_doors_wait_for_an_answer_that_comes_later(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Klein would end a request whose route says that it is not done yet."""
    for path in (b"/api/v2/builds", b"/api/%762/builds"):
        later: Deferred[object] = Deferred()
        monkeypatch.setattr(api.data, "fetch", lambda *_, later=later: later)
        wire = Wire(api)

        wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)

        assert wire.take() == b""
        later.errback(CannotOpen("later"))
        assert answered(wire.take()).json() == {"error": "later"}
