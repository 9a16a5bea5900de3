"""CORS: which pages of other origins may use the server."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.www.cors import Allowed, Answered, Cors

SAMPLE = tomllib.loads(
    (Path(__file__).parent.parent / "contract" / "sample.toml").read_text(encoding="utf-8")
)
CORS = Cors(tuple(SAMPLE["server"]["allowed_origins"]))
OWN = "http://ci.example.org:8010"


def decided(origin: bytes | None, method: bytes = b"GET", **more: bytes) -> Allowed | Answered:
    """What becomes of a request with these headers."""
    headers = {name.replace("_", "-").encode(): value for name, value in more.items()}
    if origin is not None:
        headers[b"origin"] = origin
    return CORS.decide(method, headers.get, OWN)


def preflight(method: bytes | None = b"GET", wanted: bytes = b"") -> Answered:
    """The answer to a preflight from an allowed origin."""
    asks = {"access_control_request_headers": wanted}
    if method is not None:
        asks["access_control_request_method"] = method
    found = decided(b"http://good.example.org", b"OPTIONS", **asks)
    assert isinstance(found, Answered)
    return found


def header(found: Allowed | Answered, name: bytes) -> bytes | None:
    """One header of a decision."""
    return dict(found.headers).get(name)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS", b"DELETE"])
@pytest.mark.parametrize("origin", [None, b""])
def test_a_request_without_origin_is_not_concerned(origin: bytes | None, method: bytes) -> None:
    """No browser sent it, or a page of our own did; it gets no headers either."""
    assert decided(origin, method) == Allowed()


@pytest.mark.parametrize(
    "origin",
    [
        b"http://good.example.org",
        b"HTTP://Good.Example.ORG",
        b"http://127.0.0.1:8010",
        b"https://a.wild.example.org",
        b"http://a.b.wild.example.org",
        b"http://ci.example.org:8010",
        b"http://CI.example.org:8010",
    ],
)
def test_an_allowed_origin_is_echoed(origin: bytes) -> None:
    """In lower case, as the reference server does; our own counts as allowed."""
    found = decided(origin)

    assert isinstance(found, Allowed)
    assert header(found, b"access-control-allow-origin") == origin.lower()
    assert header(found, b"access-control-allow-headers") == b"Content-Type"
    assert header(found, b"access-control-max-age") == b"3600"
    assert header(found, b"vary") == b"origin"
    assert header(found, b"access-control-expose-headers") == b"X-Seq, X-Event-Log, Link, ETag"


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"https://good.example.org",
        b"http://good.example.org:81",
        b"http://good.example.org.evil.org",
        b"http://evil.org/http://good.example.org",
        b"http://127.0.0.2:8010",
        b"http://wild.example.org",
        b"http://ci.example.org",
        b"http://good.example.org\n",
        b"\xff",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
def test_another_origin_is_refused(origin: bytes, method: bytes) -> None:
    """The whole origin counts: scheme, host and port."""
    found = decided(origin, method, access_control_request_method=b"GET")

    assert isinstance(found, Answered)
    assert found.status == 400
    assert found.headers == ((b"content-type", b"text/plain; charset=utf-8"),)
    assert json.loads(found.body) == {"error": "invalid origin"}


def test_the_refusal_of_a_call_has_an_object() -> None:
    """Clients of JSON-RPC look for a message there."""
    found = decided(b"null", b"POST")

    assert isinstance(found, Answered)
    assert json.loads(found.body) == {"error": {"message": "invalid origin"}}


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_a_preflight_is_answered(method: bytes) -> None:
    """Nothing else is looked at: the request itself will be, when it comes."""
    found = preflight(method)

    assert (found.status, found.body) == (200, b"")
    assert header(found, b"content-type") == b"text/html"
    assert header(found, b"access-control-allow-origin") == b"http://good.example.org"


@pytest.mark.parametrize("method", [None, b"", b"DELETE", b"OPTIONS", b"get"])
def test_a_preflight_for_another_method_is_refused(method: bytes | None) -> None:
    """We have no other methods; the refusal grants nothing."""
    found = preflight(method)

    assert found.status == 400
    assert found.headers == ((b"content-type", b"text/plain; charset=utf-8"),)
    assert json.loads(found.body) == {"error": "invalid method"}


@pytest.mark.parametrize(
    ("wanted", "granted"),
    [
        (b"", b"Content-Type"),
        (b"content-type", b"Content-Type"),
        (b"x-other", b"Content-Type"),
        (b"authorization", b"Content-Type, Authorization"),
        (b"idempotency-key,authorization", b"Content-Type, Authorization, Idempotency-Key"),
        (b"If-None-Match , LAST-EVENT-ID", b"Content-Type, If-None-Match, Last-Event-ID"),
    ],
)
def test_a_preflight_is_granted_the_headers_we_know(wanted: bytes, granted: bytes) -> None:
    """Those that it asks for, and no others."""
    assert header(preflight(wanted=wanted), b"access-control-allow-headers") == granted


def test_only_our_own_origin_is_allowed_by_default() -> None:
    """Whoever wants more says so in the settings."""
    assert Cors().allows(OWN.encode(), OWN)
    assert not Cors().allows(b"http://good.example.org", OWN)
    assert not Cors().allows(b"", OWN)


@pytest.mark.parametrize(
    ("glob", "origin", "allowed"),
    [
        ("*", b"null", True),
        ("http://[::1]:*", b"http://[::1]:8010", True),
        ("http://[::1]:*", b"http://::8010", False),
        ("http://HOST?", b"http://host1", True),
        ("http://host?", b"http://host10", False),
        ("http://host.example", b"http://hostxexample", False),
    ],
)
def test_a_glob_matches(glob: str, origin: bytes, *, allowed: bool) -> None:
    """Stars and question marks are wild, dots and brackets are not."""
    assert Cors((glob,)).allows(origin, OWN) is allowed


@given(st.binary(min_size=1))
def test_no_origin_makes_it_fail(origin: bytes) -> None:
    """Whatever a client calls an origin, it is one of ours or refused."""
    assert isinstance(decided(origin), Answered)


def test_a_name_that_anybody_can_give_is_not_ours_on_this_machine_only() -> None:
    """A page of evil.example whose name leads to 127.0.0.1 is no page of ours."""
    local = Cors(local_only=True)
    evil = "http://evil.example:8010"

    assert not local.allows(evil.encode(), evil)
    for ours in ("http://127.0.0.1:8010", "http://localhost:8010", "http://[::1]:8010"):
        assert local.allows(ours.encode(), ours)
