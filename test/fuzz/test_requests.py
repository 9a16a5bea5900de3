"""
Requests that nobody means well with, on a database in which much is wrong.

Every one gets an answer: of the contract's form, no 5xx but for what no master obeys, nothing of
the server's inside, and no word in its log.
"""

# ruff: noqa: SIM905  words that are split take a tenth of the lines

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import brotli  # type: ignore[import-untyped]  # it has no types
import hypothesis
import pytest
import zstandard
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from buildapi.data.api import ROUTER
from buildapi.data.router import Route
from buildapi.data.values import OPERATORS

if TYPE_CHECKING:
    from test.fuzz.conftest import Answer, Target

Test = Callable[..., None]

# The decorators need them before there are fixtures.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))

# Whatever is shorter than the line that a server reads, and long.
LONG = 9_000

INTEGERS = (
    *("1", "2", "3", "7", "0", "-1", "+1", "01", "1_0", " 1 ", "1.5", "1e3", "0x10", "", "٣", "²"),
    *(str(2**31), str(2**63 - 1), str(2**63), str(-(2**63) - 1), str(2**64), "9" * 40),
    *("9" * 4_000, "9" * 5_000, "NaN", "inf", "-0", "1\x00", "\uff11"),
)
TEXTS = (
    *("a", "", "stdio", "compile", "variety", "orphan builder", "*", "%", "_", "'", '"', "\\"),
    *("\x00", "a\x00b", "\n", "\r\nSet-Cookie: a=b", "\x7f", "\ufffe", "☃", "💩", "\u2028", "İ"),
    *("true", "false", "on", "null", "None", "[]", "{}", "../..", "/", "a/b", "a" * LONG),
    *("' OR 1=1 --", "; DROP TABLE builds", "{{7*7}}", "${7*7}", "<script>", "a b", "é", "e\u0301"),
)
# As they stand in a URL: what no encoding of a text gives.
RAW = tuple(
    "%FF %ED%A0%80 %ed%b0%80 % %2 %zz %2F %2f%2e%2e %00 %25 %u0041 + ; a;b %26 %3D %23 ? a=b=c .. "
    ". %C3%28 %F0%9F%92%A9 // %0d%0aX:y %FE%FF %C0%80 %F4%90%80%80".split()
)
METHODS = (*["GET"] * 12, "HEAD", "HEAD", "POST", "OPTIONS", "PUT", "DELETE")
STRANGE_METHODS = ("CONNECT", "get", "G", "PROPFIND", "X" * 300, "GET/", "-", "G,T", "TRACE")
PLACES = tuple(
    "/api/v2 /api/v2/ /api/latest /api /api/ / /ws /docs /healthz /readyz /docs/openapi.json "
    "/docs/buildapi.raml //api/v2/builds * /%2e%2e http://127.0.0.1/api/v2/builds /auth/login "
    "/api/v2/builds#x /api/v2;x/builds".split()
)

HEADERS: dict[str, tuple[str, ...]] = {
    "Accept": ("application/json", "*/*", "", "a" * LONG, "application/json;q=0", "text/html, ,;"),
    "Accept-Encoding": ("gzip", "br", "zstd", "*", "identity;q=0", "gzip;q=x", ",;=", "x" * LONG),
    "Range": (
        "bytes=0-1",
        "bytes=-1",
        "bytes=5-2",
        "bytes=0-,0-,0-",
        "lines=1-2",
        "bytes=" + "9" * 99,
    ),
    "If-None-Match": ("*", '"x"', 'W/"1"', '"', ",", '"' + "a" * LONG + '"'),
    "If-Modified-Since": ("Sat, 21 Nov 2026 12:00:00 GMT", "yesterday", "9" * 99),
    "Origin": ("http://127.0.0.1:8010", "null", "http://good.example.org", "http://[", "\xff", ""),
    "Access-Control-Request-Method": ("GET", "POST", "", "PUT", "\xff"),
    "Access-Control-Request-Headers": ("Authorization", "X" * 999, ",,"),
    "Idempotency-Key": (
        "a",
        "",
        "\xff\xfe",
        "k" * 255,
        "k" * LONG,
        "a b",
        '"',
        "☃".encode().decode("latin-1"),
    ),
    "Authorization": ("Basic", "Basic !!!!", "Basic " + "QQ" * 99, "Bearer x", "\xff"),
    "Cookie": ("a=b", "=", ";;;", "a" * 999, "\xff=\xff", "a=b; a=c"),
    "Host": ("", "x", "[::1]", "[", "a:b", "a:99999", "\xff", "a" * 999, "evil.example.org:80"),
    "Last-Event-ID": ("1", "-1", "x", "9" * 99),
    "Expect": ("100-continue", "200-ok"),
    "Upgrade": ("websocket", "h2c"),
    "X-Forwarded-For": ("1.1.1.1", "\xff"),
    "X-HTTP-Method-Override": ("DELETE",),
    "Content-Encoding": ("gzip", "x"),
    "User-Agent": ("", "\x01", "a" * LONG),
    "TE": ("trailers", "gzip;q=x"),
}
CONTENT_TYPES = (
    *["application/json"] * 20,
    *("application/json; charset=utf-16", "Application/JSON", "text/plain", "", "\xff", ";"),
    *(
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ),
)
BODIES = (
    *(b"", b"{", b"null", b"[]", b"1", b'""', b"\xff", b"\xef\xbb\xbf{}", b"[" * 50_000, b"\x00"),
    *(b'{"a":' * 20_000, b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b'"\\ud800"', b"[[],[]]"),
    *("{}".encode("utf-16"), b"{}{}", b'{"jsonrpc": "2.0", "jsonrpc": 1}', b" " * 60_000),
    *(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', b"a=b&c=d"),
)
ACTIONS = (
    *"stop rebuild cancel set_priority force enable pause unpause kill STOP nosuch".split(),
    *("", "__init__", "stop\x00", "a" * 999),
)
PARAMETERS = (
    *"reason priority enabled builderid owner username branch s1 i1 b1 c1 t1 m1 nest fx".split(),
    *("app_branch", "lib_revision", "_project", "", "\x00", "__class__"),
)
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 1.5, 1e308, -0.0, "", "a", "1"),
    *([], {}, [[]], [None], {"a": None}, "\x00", "\ud800", "☃", "a" * 5_000, ["k", "l", "k"]),
)


@dataclass(frozen=True)
class Request:
    """A request: its bytes, and what is needed to judge the answer."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    chunked: bool

    def rendered(self, *, last: bool) -> bytes:
        """Return the bytes; the connection ends with the ``last``."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name == "Host" for name, _ in self.headers):
            lines.append("Host: 127.0.0.1:8010")
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        if last:
            lines.append("Connection: close")
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        return head + (_chunks(self.body) if self.chunked else self.body)

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]


def _chunks(body: bytes) -> bytes:
    parts = [body[at : at + 7_000] for at in range(0, len(body), 7_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def escaped(text: str) -> str:
    """Return a text as a URL has it."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


# What is there, so that what is below it is reached.
THERE = {
    "buildername": ("variety", "runtests", "stoppable", "retrying", "orphan%20builder"),
    "step_name": ("work", "verdict", "cleanup", "worker_preparation"),
    "log_slug": ("stdio", "stdio", "text_log", "report_html", "piecemeal"),
    "name": ("local1", "local2", "utf8", "empty", "cov", "bin-blob"),
    "schedulername": ("force", "force-cb"),
    "projectname": ("proj-a",),
    "codebasename": ("app", "lib"),
    "revision": ("a", "b"),
}
RESERVED = ("include", "cursor", "until", "wait", "follow", "since", "lines", "grep", "context")
ENDS = ("",) * 12 + ("/", "/x", "?", "%00", "//")


class Chooser(random.Random):
    """Chooses a whole request by one number: the same request by the same number."""

    def request(self) -> Request:
        """Choose a request."""
        route = self.choice(ROUTER.routes)
        target = self._place() if self.random() < 0.05 else self._target(route)
        controlled = route.resource.actions and route.kind == "one"
        method = self.choice(("POST",) if controlled else METHODS)
        if self.random() < 0.02:
            method = self.choice(STRANGE_METHODS)
        names = self.sample(tuple(HEADERS), self.choice((0, 1, 1, 2, 3)))
        headers = [(name, self.choice(HEADERS[name])) for name in names]
        if method in ("GET", "HEAD") and self.random() < 0.95:
            return Request(method, target, tuple(headers), b"", chunked=False)
        headers.append(("Content-Type", self.choice(CONTENT_TYPES)))
        return Request(method, target, tuple(headers), self._body(), chunked=self.random() < 0.2)

    def _place(self) -> str:
        return self.choice(PLACES) + self.choice(("", "?x", "?&&=&"))

    def _target(self, route: Route) -> str:
        parts = [self._element(part) for part in route.pattern.strip("/").split("/") if part]
        path = "/".join(("/api/v2", *parts)) + self.choice(ENDS)
        joint = self.choice(("&", "&", "&", "&&", ";"))
        query = joint.join(self._argument(route) for _ in range(self.choice((0, 0, 1, 1, 2, 3))))
        if not query:
            return path
        # The same again, as often as a request line can have it.
        times = self.choice((1, 1, 1, 1, 1, 2, 1_000))
        return f"{path}?{joint.join([query] * min(times, 1 + LONG // (len(query) + 1)))}"

    def _element(self, part: str) -> str:
        kind, colon, name = part.partition(":")
        if not colon:
            return part
        if self.random() < 0.1:
            return self._anything()
        near = str(self.randint(0, self.choice((4, 9, 99))))
        return near if kind in ("n", "") else self.choice(THERE[name])

    def _argument(self, route: Route) -> str:
        fields = tuple(route.resource.fields) or ("name",)
        match self.randrange(8):
            case 0:
                name, value = self.choice(("field", "order")), self.choice((*fields, "-", "x"))
            case 1:
                name, value = "order", f"-{self.choice(fields)}"
            case 2:
                name, value = self.choice(("limit", "offset")), escaped(self.choice(INTEGERS))
            case 3:
                name, value = "property", self.choice(("*", self._anything()))
            case 4:
                name, value = self.choice((*RESERVED, self._anything())), self._anything()
            case _:
                operator = self.choice(
                    ("", *(f"__{one}" for one in OPERATORS), "__", "__x", "__eq__ne")
                )
                name, value = self.choice(fields) + operator, self._anything()
        return f"{name}={value}"

    def _anything(self) -> str:
        """Choose something that stands in a URL."""
        match self.randrange(4):
            case 0:
                return escaped(self.choice(INTEGERS))
            case 1:
                return escaped(self.choice(TEXTS))
            case 2:
                return self.choice(RAW)
            case _:
                return escaped("".join(chr(self.randrange(0x11_0000)) for _ in range(3)))

    def _body(self) -> bytes:
        if self.random() < 0.2:
            return self.choice((*BODIES, self.randbytes(20)))
        params = {self.choice(PARAMETERS): self._json() for _ in range(self.randrange(4))}
        call = {
            "jsonrpc": self.choice((*["2.0"] * 12, "1.0", 2.0, None)),
            "method": self.choice((*ACTIONS, self._json())),
            "id": self.choice((1, "a", None, self._json())),
            "params": params if self.random() < 0.95 else self._json(),
        }
        return json.dumps(call).encode()

    def _json(self) -> Any:
        return self.choice(JSON_VALUES)


# What an answer may be.

_INSIDE = re.compile(
    rb"Traceback|object at 0x|sqlite3\.|sqlalchemy|File \"/|\.py\"|buildapi/|<class '|b'\\\\x"
)


def judge(request: Request, answer: Answer) -> None:
    """Fail unless this can be the answer to that."""
    refused = answer.status >= 500 and not (
        request.method == "POST" and answer.status in (501, 503)
    )
    assert not refused, (answer.status, answer.body[:500])
    # A download whose next piece is damaged ends so; half a log must not look like a whole one.
    assert not answer.cut or "/raw" in request.path
    if answer.status != 200:
        assert not _INSIDE.search(answer.body), answer.body[:2_000]
    if request.method == "HEAD":
        assert answer.body == b""
    elif request.path.startswith(("/api/v2", "/api/latest")) and not answer.cut:
        _judge_api(request, answer)


def _judge_api(request: Request, answer: Answer) -> None:
    kind = answer.headers.get("content-type")
    if kind is None or kind.startswith("text/html"):
        # Twisted's own: the bytes were no HTTP.  A preflight's is empty; logs may be HTML.
        assert answer.status in (400, 404) or request.method == "OPTIONS" or "/raw" in request.path
        return
    if answer.status == 200 and ("/raw" in request.path or request.path.endswith("/value")):
        return
    found = json.loads(decoded(answer), parse_constant=pytest.fail)
    if answer.status == 200:
        assert "jsonrpc" in found if request.method == "POST" else "meta" in found
    elif kind == "application/json":
        assert set(found["error"]) == {"code", "message"}
    else:
        assert isinstance(found["error"], str | dict)


def decoded(answer: Answer) -> bytes:
    """Return the body without its encoding."""
    decode: dict[str | None, Any] = {
        None: bytes,
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }
    body: bytes = decode[answer.headers.get("content-encoding")](answer.body)
    return body


def last_words(answer: Answer) -> bool:
    """Say whether a server that answered so reads nothing more."""
    # A 400 of Twisted's: what came was no HTTP.  The others are those of /ws, and of long lines.
    no_http = answer.status == 400 and not answer.headers.get("content-type", "").startswith(
        "text/plain"
    )
    return answer.cut or no_http or answer.status in (405, 414, 426)


def thoroughly(examples: int) -> Callable[[Test], Test]:
    """Run a test with so many lists of numbers, each of which chooses a request."""

    def decorate(test: Test) -> Test:
        wrapped = given(numbers=st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=6))(test)
        tried = settings(
            max_examples=examples,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            print_blob=True,
        )
        return hypothesis.seed(SEED)(tried(wrapped))

    return decorate


@thoroughly(EXAMPLES)
def test_every_request_is_answered(spoiled: Target, numbers: list[int]) -> None:
    """One after the other on one connection, without waiting for the answers."""
    tried(spoiled, numbers)


@thoroughly(EXAMPLES // 4)
def test_every_request_is_answered_from_a_server(
    spoiled_server: Target, numbers: list[int]
) -> None:
    """PostgreSQL and MariaDB are asked by other threads, and fail in other words."""
    tried(spoiled_server, numbers)


def tried(target: Target, numbers: list[int]) -> None:
    """Send the requests that the numbers choose, and judge the answers."""
    sent = [Chooser(number).request() for number in numbers]
    last = len(sent) - 1
    data = [(one.method, one.rendered(last=at == last)) for at, one in enumerate(sent)]

    answers = target.ask(data)

    note(f"sent: {sent}")
    assert answers, "it closed the connection without a word"
    assert len(answers) == len(sent) or last_words(answers[-1])
    for request, answer in zip(sent, answers, strict=False):
        judge(request, answer)
    assert not re.search("#(critical|error)|Traceback", complaint := target.complaint()), complaint
