"""The audit: every control call is in it, and who may control may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import sqlalchemy as sa
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from buildapi.data.audit import MINUTE_S, Entry
from buildapi.data.gate import ANONYMOUS, MASTER, Gate, Identity
from buildapi.db.retention import DAY_S, EVERY_S
from buildapi.db.tables import REVISION, alembic_version, metadata, schedulers
from buildapi.errors import BadArgument, BadQuery, CannotOpen, Forbidden, NoSuchAction, NoSuchPath
from buildapi.service import BuildAPI
from buildapi.settings import Control, Database, Server, Settings
from buildapi.testing import NOON, Answer, WebClient, a_build, in_memory_api, result_of


def entries(api: BuildAPI, **window: Any) -> list[dict[str, Any]]:
    """Return what the audit has, the newest first."""
    found: list[dict[str, Any]] = result_of(api.control.audit(**window))
    return found


def calls(answer: Answer) -> list[dict[str, Any]]:
    """Return the calls that a page shows."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    found: list[dict[str, Any]] = answer.json()["calls"]
    return found


def an_api_with(control: Control, clock: Clock | None = None) -> BuildAPI:
    """Return a service with these settings, and a build."""
    api = in_memory_api(Settings(control=control), clock=clock)
    result_of(a_build(api))
    return api


def test_a_call_is_recorded_whole(api: BuildAPI, web: WebClient) -> None:
    """Who, when, what, and what came of it."""
    result_of(a_build(api))
    web.call("/api/v2/builds/1", "rebuild", why=["☃"])

    assert calls(web.get("/api/audit")) == [
        {
            "id": 1,
            "at": NOON,
            "who": "anonymous",
            "path": "builds/1",
            "action": "rebuild",
            "params": {"why": ["☃"]},
            "status": 200,
            "result": [2, {"1": 2}],
            "error": None,
            "repeated": False,
        }
    ]


@pytest.mark.parametrize(
    ("path", "method", "params", "status", "word"),
    [
        ("nosuch", "stop", {}, 404, "Invalid path"),
        ("builds/99", "stop", {}, 404, "not found"),
        ("builds/1", "nosuch", {}, 501, "nosuch"),
        ("builds/1", "stop", {"reason": 5}, 400, "reason"),
        ("builds/1", "stop", {}, 503, "no build master"),
    ],
)
def test_a_refused_call_is_recorded_with_its_reason(
    api: BuildAPI,
    web: WebClient,
    path: str,
    method: str,
    params: dict[str, Any],
    status: int,
    word: str,
) -> None:
    """Whatever it was refused for."""
    result_of(a_build(api))
    web.call(f"/api/v2/{path}", method, **params)

    (entry,) = entries(api)
    assert (entry["path"], entry["action"], entry["params"]) == (path, method, params)
    assert (entry["status"], entry["result"]) == (status, None)
    assert word in entry["error"]


def test_what_is_no_call_is_not_recorded(api: BuildAPI, web: WebClient) -> None:
    """It names neither an action nor parameters."""
    web.request("POST", "/api/v2/builds/1", {"Content-Type": "application/json"}, b"{")

    assert entries(api) == []


def test_who_is_turned_away_by_the_gate_is_recorded(api: BuildAPI, web: WebClient) -> None:
    """That is what an audit is for; the master can read it."""
    api.data.gate = Gate(loopback_only=False)
    web.call("/api/v2/builds/1", "stop")

    assert [(entry["who"], entry["status"]) for entry in entries(api)] == [("anonymous", 403)]


def test_a_fault_of_ours_is_recorded_without_its_words(
    api: BuildAPI, web: WebClient, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    """They were not written for people."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(api.control._deeds, "check", fail)
    web.call("/api/v2/builds/1", "stop")

    (entry,) = entries(api)
    assert (entry["status"], "secret" in entry["error"]) == (500, False)
    logged.clear()


def test_a_repeated_call_is_recorded_as_such(api: BuildAPI) -> None:
    """It was asked for again, and not done again."""
    result_of(a_build(api))
    for _ in range(2):
        result_of(api.control.call("builds/1", "rebuild", {}, Identity("alice"), "key"))

    assert [(entry["who"], entry["result"], entry["repeated"]) for entry in entries(api)] == [
        ("alice", [2, {"1": 2}], True),
        ("alice", [2, {"1": 2}], False),
    ]


def test_pages_follow_each_other(api: BuildAPI, web: WebClient) -> None:
    """The newest first; behind the last there is no other."""
    for number in range(5):
        web.call("/api/v2/builds/99", "stop", reason=str(number))
    seen, path = [], "/api/audit?limit=2"
    while path:
        page = web.get(path)
        seen.append([entry["params"]["reason"] for entry in calls(page)])
        path = page.json()["meta"]["next"]

    assert seen == [["4", "3"], ["2", "1"], ["0"]]
    assert [entry["id"] for entry in entries(api, limit=2, before=3)] == [2, 1]
    assert calls(web.get(f"/api/audit?before={10**18 - 1}&limit=1"))[0]["id"] == 5


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "1 to 3"),
        ("limit=4", "1 to 3"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("before=%B2", "before"),
        ("before=" + "9" * 19, "before"),
        ("nosuch=1", "nosuch"),
        ("%FF=1", "no argument"),
    ],
)
def test_a_wrong_argument_is_named(query: str, word: str) -> None:
    """400, with what would be right; a page has a size, which is a setting."""
    answer = WebClient(an_api_with(Control(audit_page=3))).get(f"/api/audit?{query}")

    assert answer.status == 400
    assert word in answer.json()["error"]


def test_a_page_in_process_has_the_same_limit() -> None:
    """Whoever asks."""
    api = an_api_with(Control(audit_page=3))
    with pytest.raises(BadQuery, match="1 to 3"):
        entries(api, limit=4)
    for limit in (0, "1", 1.5, None):
        with pytest.raises(BadQuery, match="1 to 3"):
            entries(api, limit=limit)
    with pytest.raises(BadQuery, match="before"):
        entries(api, limit=1, before="1")


@pytest.mark.parametrize(
    ("parameter", "wrong"),
    [("path", ("builds", 1)), ("action", 5), ("params", ["reason"]), ("key", 5)],
)
def test_what_is_no_call_at_all_is_not_in_it(api: BuildAPI, parameter: str, wrong: Any) -> None:
    """A mistake of the embedder's, which it is told of."""
    call = {"path": "builds/1", "action": "stop", "params": {}, "identity": MASTER}

    with pytest.raises(BadArgument, match=f"^{parameter}: "):
        result_of(api.control.call(**{**call, parameter: wrong}))
    assert entries(api) == []


def test_who_may_not_control_may_not_read_it(api: BuildAPI, web: WebClient) -> None:
    """Over the web it is the same right as in process."""
    api.data.gate = Gate(loopback_only=False)

    answer = web.get("/api/audit")
    assert (answer.status, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert "127.0.0.1" in answer.json()["error"]
    with pytest.raises(Forbidden):
        entries(api, identity=ANONYMOUS)
    assert entries(api, identity=MASTER) == []


@pytest.mark.parametrize(
    "headers",
    [
        # A name in somebody's hands that leads to this machine: its pages send no Origin here.
        {"Host": "evil.example.org:8010"},
        {"Host": "evil.example.org:8010", "Origin": "http://evil.example.org:8010"},
        {"Origin": "http://evil.example.org"},
        {"Origin": "null"},
    ],
)
def test_pages_of_others_may_not_read_it(web: WebClient, headers: dict[str, str]) -> None:
    """A browser on this machine would give it to them."""
    assert web.get("/api/audit", headers).status == 403
    assert web.get("/api/audit", {"Origin": "http://127.0.0.1:8010"}).status == 200


def test_a_site_that_is_trusted_may_read_it() -> None:
    """It may control, too."""
    origins = Server(allowed_origins=("https://ok.example.org",))
    web = WebClient(in_memory_api(Settings(server=origins)))

    assert web.get("/api/audit", {"Origin": "https://ok.example.org"}).status == 200


def test_it_is_read_only_and_no_part_of_the_contract(web: WebClient) -> None:
    """Nothing of it is below /api/v2, and it can't be changed over the web."""
    assert web.request("HEAD", "/api/audit").body == b""
    assert web.request("POST", "/api/audit").status == 405
    assert web.get("/api/v2/audit").status == 404
    assert b"audit" not in web.get("/api/v2").body
    assert b"audit" not in web.get("/api/v2/application.spec").body


def test_long_texts_are_cut() -> None:
    """They may not fill the disk; that they were cut can be seen."""
    api = an_api_with(Control(audit_characters=20))
    web = WebClient(api)
    web.call("/api/v2/builds/1", "rebuild", why="x" * 100)
    web.call("/api/v2/" + "x" * 1000, "y" * 1000, a=1)

    refused, done = entries(api)
    assert done["params"] == '{"why": "xxxxxxxxxx…'
    assert done["result"] == [2, {"1": 2}]
    assert (len(refused["path"]), len(refused["action"])) == (255, 255)
    assert refused["params"] == {"a": 1}
    assert refused["error"] == "Invalid path: xxxxx…"


def test_any_text_can_be_recorded(api: BuildAPI, web: WebClient) -> None:
    """No database server takes a NUL, and none half a character."""
    web.call("/api/v2/builds/1", "a\0b", c="\0")
    for params in ({"a": {1}}, {"a": "\ud800"}, {1: 2, "a": None}):
        with pytest.raises(NoSuchPath):
            result_of(api.control.call("\ud800", "x", params, ANONYMOUS))  # type: ignore[arg-type]

    found = [(entry["path"], entry["action"], entry["params"]) for entry in entries(api)]
    assert found[3] == ("builds/1", "a\ufffdb", {"c": "\0"})
    assert [path for path, _, _ in found[:3]] == ["?", "?", "?"]
    assert found[2][2] == {"a": "{1}"}


def test_deep_parameters_are_refused_like_others(api: BuildAPI) -> None:
    """What can't be written as JSON is no reason to lose the entry."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(NoSuchPath):
        result_of(api.control.call("nosuch", "x", deep, ANONYMOUS))

    assert [entry["params"] for entry in entries(api)] == ["…"]


def test_a_refusal_that_cannot_be_recorded_is_still_the_answer(api: BuildAPI) -> None:
    """The caller hears what was wrong with the call, not what is wrong with the database."""
    result_of(api.stopService())

    with pytest.raises(NoSuchPath):
        result_of(api.control.call("nosuch", "stop", {}, ANONYMOUS))


def test_refused_calls_cannot_flood_it(logged: list[LogEvent]) -> None:
    """Of many within a minute some are recorded; the log says so once; what is done always is."""
    clock = Clock()
    clock.advance(NOON)
    api = an_api_with(Control(audit_refused_per_minute=2), clock)
    web = WebClient(api)

    def refuse(times: int) -> None:
        for _ in range(times):
            assert web.call("/api/v2/builds/99", "stop").status == 404

    refuse(5)
    web.call("/api/v2/builds/1", "rebuild")
    assert [entry["status"] for entry in entries(api)] == [200, 404, 404]
    clock.advance(MINUTE_S)
    refuse(2)
    assert [entry["status"] for entry in entries(api)] == [404, 404, 200, 404, 404]
    assert [one["most"] for one in logged if "takes no more" in str(one.get("log_format"))] == [2]


def test_an_audit_that_fails_is_logged_and_hides_no_refusal(
    api: BuildAPI, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is ours, and for the log."""

    def fail(*_: object) -> None:
        raise RuntimeError("no such column")

    monkeypatch.setattr(Entry, "refused", fail)
    with pytest.raises(NoSuchPath):
        result_of(api.control.call("nosuch", "stop", {}, ANONYMOUS))

    assert "no such column" in str(logged[-1]["log_failure"])
    logged.clear()


@pytest_twisted.ensureDeferred
async def test_a_database_that_we_never_wrote_has_no_audit(tmp_path: Path) -> None:
    """Read-only, Buildbot's stays as it is: the answer says so, and calls are refused."""
    path = tmp_path / "state.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(alembic_version).values(version_num=REVISION))
        connection.execute(sa.insert(schedulers).values(name="x", name_hash="x", enabled=1))
    engine.dispose()
    database = Database(url=f"sqlite:///{path}", read_only=True)
    async with BuildAPI(Settings(server=Server(listen=None), database=database)) as api:
        answer = await WebClient(api).fetch("GET", "/api/audit")
        with pytest.raises(CannotOpen):
            await api.control.call("schedulers/1", "enable", {"enabled": True}, ANONYMOUS, "key")

    assert answer.status == 409
    assert "no audit" in answer.json()["error"]


def test_the_audit_forgets() -> None:
    """After days, or when there are too many calls; never the newest."""
    clock = Clock()
    clock.advance(NOON)
    api = an_api_with(Control(keep_audit_days=2, keep_audit_count=3), clock)
    for _ in range(5):
        WebClient(api).call("/api/v2/builds/99", "stop")
    clock.advance(EVERY_S)
    assert [entry["id"] for entry in entries(api)] == [5, 4, 3]

    clock.advance(DAY_S)
    WebClient(api).call("/api/v2/builds/99", "stop")
    clock.advance(1.5 * DAY_S)
    assert [entry["id"] for entry in entries(api)] == [6]
    clock.advance(9 * DAY_S)
    assert [entry["id"] for entry in entries(api)] == [6]


@pytest_twisted.ensureDeferred
async def test_every_database_keeps_it(fresh_url: str) -> None:
    """Whatever the texts; it is there after a restart, and forgets a slice at a time."""
    control = Control(keep_audit_count=2, keep_keys_count=1, audit_characters=100)
    settings = Settings(
        server=Server(listen=None), database=Database(url=fresh_url), control=control
    )
    async with BuildAPI(settings, master="test:/master") as api:
        await a_build(api)
        await api.control.call("builds/1", "rebuild", {"why": "☃\0\U0001f600"}, ANONYMOUS, "Key")
        await api.control.call("builds/1", "rebuild", {}, Identity("ü" * 300), "key")
        for action in ("\0\U0001f600", "x" * 300):
            with pytest.raises(NoSuchAction):
                await api.control.call("builds/1", action, {}, ANONYMOUS)
    async with BuildAPI(settings, master="test:/master") as api:
        long, odd, second, first = await api.control.audit()
        assert first["params"] == {"why": "☃\0\U0001f600"}
        assert [len(second["who"]), len(long["action"])] == [255, 255]
        assert (odd["action"], odd["status"]) == ("\ufffd\U0001f600", 501)
        assert [await api.data.transaction(trimmed) for trimmed in api.control.trims] == [1, 2]
        assert await api.control.audit() == [long, odd]
        assert await api.control.audit(before=odd["id"]) == []
