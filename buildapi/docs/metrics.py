"""What ``/metrics`` shows: every metric, and the page about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """
    One metric, named as Prometheus has it: a unit at the end, and ``_total`` where it only grows.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    doc: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("buildapi_info", "gauge", "Always 1; the version of buildapi.", ("version",)),
    Metric("buildapi_database_up", "gauge", "1 if the database answers, else 0."),
    Metric(
        "buildapi_database_bytes",
        "gauge",
        "Size of the database: its file and its write-ahead log (wal) on SQLite, on a server each "
        "table with its indexes.",
        ("part",),
    ),
    Metric("buildapi_event_log_newest_seq", "gauge", "Position of the newest event delivered."),
    Metric("buildapi_event_log_oldest_seq", "gauge", "Position of the oldest event still kept."),
    Metric("buildapi_event_log_events", "gauge", "Events that the log has."),
    Metric("buildapi_event_log_keep_events", "gauge", "Events kept at most (events.keep_count)."),
    Metric("buildapi_event_log_keep_seconds", "gauge", "Age at most kept (events.keep_days)."),
    Metric(
        "buildapi_event_log_forgotten_events_total", "counter", "Events that retention removed."
    ),
    Metric("buildapi_events_published_total", "counter", "Events published on the bus."),
    Metric("buildapi_events_delivered_total", "counter", "Calls of listeners on the bus."),
    Metric("buildapi_events_failed_total", "counter", "Calls of listeners that raised."),
    Metric("buildapi_listeners", "gauge", "Listeners on the bus, those of clients included."),
    Metric("buildapi_subscriptions", "gauge", "Streams of events that are open, on every road."),
    Metric("buildapi_subscription_waiting_events", "gauge", "Events that wait in them all."),
    Metric("buildapi_subscription_waiting_bytes", "gauge", "Bytes of the events that wait."),
    Metric(
        "buildapi_subscription_lag_events",
        "gauge",
        "How far the slowest of them is behind the newest event.",
    ),
    Metric(
        "buildapi_subscription_dropped_events_total",
        "counter",
        "Events that did not fit into a buffer; most are read again from the log.",
    ),
    Metric(
        "buildapi_subscription_gaps_total",
        "counter",
        "Gaps that subscribers were told of: events that they will not get.",
    ),
    Metric("buildapi_writes_waiting", "gauge", "Writes accepted that are not committed yet."),
    Metric("buildapi_commit_writes", "histogram", "Writes that were committed together."),
    Metric(
        "buildapi_commit_duration_seconds",
        "histogram",
        "Duration of transactions that write, from BEGIN until they are durable.",
    ),
    Metric("buildapi_reads_waiting", "gauge", "Reads that wait for a thread.", ("lane",)),
    Metric(
        "buildapi_http_requests_total",
        "counter",
        "Requests answered, by the pattern of their path and the status of the answer. Control "
        "calls are counted as control, others by the beginning of their path.",
        ("route", "status"),
    ),
    Metric(
        "buildapi_http_request_duration_seconds",
        "histogram",
        "Duration of answers, from the whole request to the last byte handed over.",
        ("route",),
    ),
    Metric(
        "buildapi_connections_open",
        "gauge",
        "Connections that stay open, by road: websocket, eventstream.",
        ("road",),
    ),
    Metric(
        "buildapi_connections_refused_total",
        "counter",
        "Connections refused because the server or a client had enough.",
    ),
    Metric(
        "buildapi_connections_too_slow_total",
        "counter",
        "Connections ended because their buffer was full.",
        ("road",),
    ),
    Metric(
        "buildapi_streams_open",
        "gauge",
        "What flows on WebSockets, by kind: consumers of events, and each kind of stream.",
        ("kind",),
    ),
)


def text() -> str:
    """Return the page, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "Made by `scripts/docs` from the declarations in the code."
    yield ""
    yield (
        "`GET /metrics` shows them to Prometheus. Who may not read the audit may not read them "
        "either. Metrics of the process (`process_…`) come with them. What comes from the "
        "database is left out while it does not answer (`buildapi_database_up` is 0 then)."
    )
    yield ""
    yield "| metric | type | labels | what it is |"
    yield "| --- | --- | --- | --- |"
    for one in METRICS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        yield f"| `{one.name}` | {one.kind} | {labels} | {one.doc} |"
