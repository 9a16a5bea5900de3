"""``/metrics``: what an operator is shown, and who is."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from buildapi.data.gate import Gate
from buildapi.docs.metrics import METRICS
from buildapi.service import BuildAPI
from buildapi.settings import Limits, Settings
from buildapi.testing import (
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    in_memory_api,
    result_of,
)
from buildapi.testing.wire import head

Shown = dict[tuple[str, ...], float]


def shown(web: WebClient) -> Shown:
    """Return every sample by its name and the values of its labels, as Prometheus reads them."""
    answer = web.get("/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def families(web: WebClient) -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of every metric of ours that is shown."""
    found = {}
    for family in text_string_to_metric_families(web.get("/metrics").body.decode()):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels}
        if name.startswith("buildapi_"):
            found[name] = (family.type, labels - {"le"})
    return found


def test_what_is_declared_is_shown_and_nothing_else(api: BuildAPI, web: WebClient) -> None:
    """So the page about them is right: each with its type and labels."""
    WebSocketClient(Wire(api))
    web.get("/metrics")

    # There are no threads here, and so no reads that wait for one.
    declared = {
        one.name: (one.kind, set(one.labels) if one.name != "buildapi_reads_waiting" else set())
        for one in METRICS
    }
    assert families(web) == declared


def test_the_event_log_is_measured(api: BuildAPI, web: WebClient) -> None:
    """Where it begins and ends, how much it has, and how much of it may be."""
    result_of(a_build(api))
    seq = api.mq.last_seq

    figures = shown(web)

    assert figures["buildapi_event_log_newest_seq",] == seq
    assert figures["buildapi_event_log_oldest_seq",] == 1
    assert figures["buildapi_event_log_events",] == seq
    assert figures["buildapi_event_log_keep_seconds",] == 7 * 86_400
    assert figures["buildapi_events_published_total",] == seq
    assert figures["buildapi_database_up",] == 1


def test_a_database_has_a_size(api: BuildAPI, web: WebClient, system: str) -> None:
    """On a server every table has one."""
    result_of(a_build(api))
    part = "memory" if system == "sqlite" else "buildapi_events"

    assert shown(web)["buildapi_database_bytes", part] >= 4096


def test_commits_are_measured(api: BuildAPI, web: WebClient) -> None:
    """Their number, their size and their duration."""
    before = shown(web)
    result_of(a_build(api))
    after = shown(web)

    def more(name: str, *labels: str) -> float:
        return after[name, *labels] - before[name, *labels]

    assert more("buildapi_commit_duration_seconds_count") > 0
    assert more("buildapi_commit_duration_seconds_sum") > 0
    assert more("buildapi_commit_writes_bucket", "1.0") == more("buildapi_commit_writes_count")
    assert after["buildapi_writes_waiting",] == 0


@pytest.mark.systems("sqlite")
def test_requests_are_counted_by_route_and_status(api: BuildAPI, web: WebClient) -> None:
    """A route is the pattern of a path, never what a client makes up."""
    result_of(a_build(api))
    for path in ("builds/1", "builds/1", "builds/99", "builds?nosuch=1", "nosuch"):
        web.get(f"/api/v2/{path}")
    web.get("/wp-login.php")
    web.get("/healthz")
    web.call("/api/v2/builds/1", "nosuch")

    figures = shown(web)

    assert {
        tuple(labels): number
        for (name, *labels), number in figures.items()
        if name == "buildapi_http_requests_total"
    } == {
        ("builds/n:buildid", "200"): 2,
        ("builds/n:buildid", "404"): 1,
        ("/api", "400"): 1,
        ("/api", "404"): 1,
        ("other", "404"): 1,
        ("/healthz", "200"): 1,
        ("control", "501"): 1,
    }
    assert figures["buildapi_http_request_duration_seconds_count", "builds/n:buildid"] == 3


@pytest.mark.systems("sqlite")
def test_open_connections_and_what_flows_on_them_are_counted(api: BuildAPI, web: WebClient) -> None:
    """By road and by kind."""
    logid = result_of(a_log(api))
    ws = WebSocketClient(Wire(api))
    ws.ask("startConsuming", path="builds/*/new")
    ws.ask("followLog", logid=logid)
    Wire(api).send(head("GET /sse/builds/*/new HTTP/1.1", {"Host": "127.0.0.1"}))

    figures = shown(web)

    assert figures["buildapi_connections_open", "websocket"] == 1
    assert figures["buildapi_connections_open", "eventstream"] == 1
    assert figures["buildapi_streams_open", "consumer"] == 1
    assert figures["buildapi_streams_open", "follower"] == 1


def test_refused_connections_are_counted() -> None:
    """Whichever limit it was."""
    api = in_memory_api(Settings(limits=Limits(connections_per_client=1)))
    web = WebClient(api)
    WebSocketClient(Wire(api))
    WebSocketClient(Wire(api))

    assert shown(web)["buildapi_connections_refused_total",] == 1


def test_two_services_in_one_process_do_not_mix() -> None:
    """Each counts for itself."""
    one, other = in_memory_api(), in_memory_api()
    WebClient(one).get("/healthz")

    assert shown(WebClient(one))["buildapi_http_requests_total", "/healthz", "200"] == 1
    assert ("buildapi_http_requests_total", "/healthz", "200") not in shown(WebClient(other))


def test_who_may_not_read_the_audit_may_not_read_them(api: BuildAPI, web: WebClient) -> None:
    """The gate says so, and an origin that is not ours is refused as well."""
    assert web.get("/metrics", {"Origin": "https://evil.example.com"}).status == 403
    assert web.get("/metrics", {"Host": "evil.example.com"}).status == 403
    api.data.gate = Gate(loopback_only=False)

    refused = web.get("/metrics")

    assert refused.status == 403
    assert "reading metrics is refused" in refused.body.decode()


def test_without_the_database_the_rest_is_shown(api: BuildAPI, web: WebClient) -> None:
    """And that it does not answer."""
    api.data.database._is_open = False

    figures = shown(web)

    assert figures["buildapi_database_up",] == 0
    assert ("buildapi_event_log_newest_seq",) not in figures
    assert ("buildapi_listeners",) in figures
