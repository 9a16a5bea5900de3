"""Long answers: they wait in a file, are sent as they are read, and can always be given up."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # it has no stubs
import pytest
import zstandard
from twisted.internet.defer import Deferred, fail

from buildapi.data import logtext
from buildapi.data.logchunks import PART_BYTES
from buildapi.data.spool import Spool
from buildapi.errors import Stopping
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import WebClient, Wire, a_log, answered, in_memory_api, result_of
from buildapi.www import rest
from buildapi.www.envelope import COMPACT, INDENTED

JSON = {"Accept": "application/json"}
NUMBER = 450
UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
GET = b"GET /api/v2/builders HTTP/1.1\r\nHost: x\r\n%b\r\n"


def with_builders(**limits: int) -> BuildAPI:
    """A service with more builders than one portion."""
    api = in_memory_api(Settings(limits=Limits(**limits)))

    def fill(tx: Any) -> None:
        for number in range(NUMBER):
            api.data.updates.findBuilderId.within(tx, f"builder-{number:04}")

    result_of(api.data.transaction(fill))
    return api


@pytest.fixture
def api() -> BuildAPI:
    """A service whose lists are long beyond a kilobyte."""
    return with_builders(answer_memory_bytes=1000)


@pytest.fixture(scope="module")
def short() -> WebClient:
    """What has the same, and finds nothing long."""
    return WebClient(with_builders())


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """No file stays open, whatever happens."""
    before = open_files()
    yield
    assert open_files() == before


def open_files() -> int:
    """How many files without a name this process has."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum("(deleted)" in link for link in links)


@pytest.mark.parametrize("headers", [{}, JSON])
@pytest.mark.parametrize("path", ["builders", "builders?limit=300", "application.spec?offset=1"])
def test_a_long_answer_is_the_same(
    web: WebClient, short: WebClient, path: str, headers: dict[str, str]
) -> None:
    """With the same headers, for HEAD too."""
    expected = short.get(f"/api/v2/{path}", headers)

    answer, head = (web.request(method, f"/api/v2/{path}", headers) for method in ("GET", "HEAD"))

    assert len(answer.body) > 1000
    assert answer.body == expected.body
    for name in ("content-type", "content-length", "link", "x-seq", "vary"):
        assert answer.headers[name] == expected.headers[name] == head.headers[name]
    assert (answer.headers["etag"] is None) == (expected.headers["etag"] is None)


@pytest.mark.parametrize("longest", [100, 8 * 2**20])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_long_answer_is_compressed(
    web: WebClient, short: WebClient, coding: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is sent, if it is too long to have a length."""
    monkeypatch.setattr(rest, "LARGEST_WITH_LENGTH", longest)
    headers = {"Accept-Encoding": coding}

    answer, head = (web.request(m, "/api/v2/builders", headers) for m in ("GET", "HEAD"))

    assert UNPACKED[coding](answer.body) == short.get("/api/v2/builders").body
    assert answer.headers["content-encoding"] == head.headers["content-encoding"] == coding
    assert answer.headers["content-length"] == head.headers["content-length"]
    assert (answer.headers["content-length"] is None) == (longest == 100)


def test_beyond_eight_megabytes_an_answer_has_no_length(
    web: WebClient, short: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent in chunks; up to that it has one."""
    whole = short.get("/api/v2/builders").body
    monkeypatch.setattr(rest, "LARGEST_WITH_LENGTH", len(whole) - 1)

    answer = web.get("/api/v2/builders")

    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["content-length"] is None
    assert answer.body == whole
    monkeypatch.setattr(rest, "LARGEST_WITH_LENGTH", len(whole))
    assert web.get("/api/v2/builders").headers["content-length"] == str(len(whole))


@pytest.mark.parametrize("headers", [{}, JSON])
@pytest.mark.parametrize("query", ["", "?offset=1", "?field=firstline&field=logid", "?limit=0"])
def test_the_contents_of_a_long_log_are_made_bit_by_bit(
    api: BuildAPI, web: WebClient, query: str, headers: dict[str, str]
) -> None:
    """They are what they would be if they were made at once, as is how they are indented."""
    text = "".join(f'{number} "ünit" {"." * 300}\n' for number in range(2000))
    assert len(text) > PART_BYTES
    logid = result_of(a_log(api, text))
    path = f"logs/{logid}/contents{query}"
    form = COMPACT if headers else INDENTED
    ask = api.data.understood(f"logs/{logid}/contents", "")
    expected = form.whole(ask, [form.rows(ask)([result_of(api.data.get(path))])], None, None)

    answer = web.get(f"/api/v2/{path}", headers)

    assert answer.body == expected
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["x-seq"] == str(api.seq())


def test_an_answer_that_is_too_large_is_refused(short: WebClient) -> None:
    """With what to do; a page of it is not."""
    web = WebClient(with_builders(answer_bytes=50_000))
    assert len(short.get("/api/v2/builders").body) > 50_000

    answer = web.get("/api/v2/builders", {"Accept-Encoding": "gzip"})

    assert answer.status == 400
    assert "50000 bytes; ask for less at a time by limit and offset" in answer.json()["error"]
    assert answer.headers["content-encoding"] is None
    assert web.get("/api/v2/builders?limit=210").status == 200


@pytest.mark.parametrize(
    ("short", "long", "written"),
    [(100, 100, 80_000), (80, 400, 80_000), (400, 80, 80_000), (8, 400, 400_000)],
)
def test_contents_that_are_too_large_are_not_written_first(
    short: int, long: int, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are is found out when they seem to be; lines may get longer, or shorter."""
    monkeypatch.setattr(logtext, "PART_BYTES", 10_000)
    api = in_memory_api(Settings(limits=Limits(answer_memory_bytes=20_000, answer_bytes=400_000)))
    lines = [*("x" * short + "\n" for _ in range(2500)), *("x" * long + "\n" for _ in range(2500))]
    logid = result_of(a_log(api, "".join(lines)))
    taken: list[int] = []
    write = Spool._write

    def watched(self: Spool, *parts: bytes) -> None:
        taken.append(sum(map(len, parts)))
        write(self, *parts)

    monkeypatch.setattr(Spool, "_write", watched)
    path = f"/api/v2/logs/{logid}/contents"

    answer = WebClient(api).get(path)

    assert answer.status == 400
    assert "400000 bytes; ask for less at a time by limit and offset" in answer.json()["error"]
    assert sum(taken) <= written
    page = WebClient(api).get(f"{path}?offset=2000&limit=600")
    assert page.json()["logchunks"][0]["content"] == "".join(lines[2000:2600])


@pytest.mark.parametrize("coding", [b"", b"Accept-Encoding: zstd\r\n"])
def test_no_more_is_read_than_the_client_takes(
    api: BuildAPI, short: WebClient, coding: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transport says when it wants more."""
    monkeypatch.setattr("buildapi.data.spool.PIECE", 1000)
    monkeypatch.setattr(rest, "LARGEST_WITH_LENGTH", 10)
    monkeypatch.setattr(Wire, "FULL", 2000)
    wire = Wire(api)
    wire.slow = True

    wire.send(GET % coding)

    received = b""
    while taken := wire.sip():
        assert len(taken) < 8000
        received += taken
    body = answered(received).body
    whole = UNPACKED["zstd"](body) if coding else body
    assert whole == short.get("/api/v2/builders").body
    wire.slow = False
    wire.send(GET % coding)
    assert answered(wire.take()).status == 200


@pytest.mark.parametrize("coding", [b"", b"Accept-Encoding: gzip\r\n"])
def test_a_client_may_go_in_the_middle(
    api: BuildAPI, coding: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is read, and the file is gone."""
    monkeypatch.setattr("buildapi.data.spool.PIECE", 1000)
    monkeypatch.setattr(rest, "LARGEST_WITH_LENGTH", 10)
    monkeypatch.setattr(Wire, "FULL", 10)
    before = open_files()
    wire = Wire(api)
    wire.slow = True
    wire.send(GET % coding)
    assert open_files() == before + 1

    wire.hang_up()

    assert open_files() == before


def test_a_client_may_go_while_it_is_read(api: BuildAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool brings later is for nobody."""
    fetch = api.data.fetch
    later: Deferred[Any] = Deferred(lambda _: None)
    read: list[Any] = []

    def slowly(*arguments: Any) -> Deferred[Any]:
        reading = fetch(*arguments)
        assert isinstance(reading, Deferred)
        reading.addCallback(read.append)
        later.addErrback(lambda _: read[0].parts.close())
        return later

    monkeypatch.setattr(api.data, "fetch", slowly)
    wire = Wire(api)
    wire.send(GET % b"")

    wire.hang_up()

    assert read[0].parts.in_file
    assert wire.take() == b""


def test_a_client_may_go_while_it_is_compressed(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is for nobody, then; its file is closed."""
    aside = api.data.aside
    held: list[Callable[[], Any]] = []
    first: Deferred[Any] = Deferred(lambda _: None)

    def slowly(work: Callable[[], Any]) -> Deferred[Any]:
        if held:
            return aside(work)
        held.append(work)
        return first

    monkeypatch.setattr(api.data, "aside", slowly)
    before = open_files()
    wire = Wire(api)
    wire.send(GET % b"Accept-Encoding: gzip\r\n")
    assert open_files() == before + 1

    wire.hang_up()

    assert open_files() == before
    assert wire.take() == b""


def test_half_an_answer_does_not_look_like_a_whole_one(
    api: BuildAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't be sent to its end the connection is broken, and the file closed."""
    monkeypatch.setattr("buildapi.data.spool.PIECE", 1000)
    monkeypatch.setattr(Wire, "FULL", 2000)
    wire = Wire(api)
    wire.slow = True
    wire.send(GET % b"")

    monkeypatch.setattr(api.database, "read", lambda *_: fail(Stopping("it is being stopped")))
    sent = wire.sip()
    wire.take()

    assert sent
    assert wire.cut
