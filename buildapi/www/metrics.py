"""
``GET /metrics``: what an operator watches, as Prometheus reads it.

The figures are counted where things happen, by objects of one service, and collected only when
somebody asks: there is no registry of the whole process in which two services would mix.
``docs.metrics`` declares each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import Deferred

from buildapi.data.api import DataAPI
from buildapi.data.gate import ANONYMOUS, Action, Scope
from buildapi.db import eventlog
from buildapi.db.connect import Reader
from buildapi.docs.metrics import METRICS
from buildapi.errors import BuildAPIError, Forbidden
from buildapi.histogram import Histogram
from buildapi.mq.bus import Bus
from buildapi.settings import Events
from buildapi.www.connection import Sockets
from buildapi.www.eventstream import EventStreams
from buildapi.www.replies import refused_with
from buildapi.www.tally import Tally

Value = float | Histogram
Samples = Mapping[tuple[str, ...], Value]
Figures = dict[str, Samples]

_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


class Watched(NamedTuple):
    """The objects of one service that count."""

    data: DataAPI
    bus: Bus
    events: Events
    sockets: Sockets
    streams: EventStreams
    requests: Tally


class Metrics:
    """Answers with the figures.  is_own: says whether no page of another site asks."""

    def __init__(self, watched: Watched, is_own: Callable[[Any], bool]) -> None:
        self._watched = watched
        self._is_own = is_own

    def render(self, request: Any) -> Deferred[bytes]:
        """Answer a GET or HEAD."""
        answering = Deferred.fromCoroutine(self._answer(request))
        return answering.addErrback(refused_with, request)

    async def _answer(self, request: Any) -> bytes:
        refused = self._watched.data.gate.refusal(ANONYMOUS, Action.METRICS, Scope("metrics"))
        if refused is not None:
            raise Forbidden(refused)
        if not self._is_own(request):
            raise Forbidden("invalid origin")
        figures = {**counted(self._watched), **await stored(self._watched)}
        request.setHeader(b"content-type", CONTENT_TYPE_LATEST.encode())
        return exposed(figures)


def counted(watched: Watched) -> Figures:
    """Return what the objects have counted."""
    data, bus, events, sockets, streams, requests = watched
    figures: Figures = {
        "buildapi_info": {(version("buildapi"),): 1},
        "buildapi_event_log_keep_events": _one(events.keep_count),
        "buildapi_event_log_keep_seconds": _one(events.keep_days * 86_400),
        "buildapi_events_published_total": _one(bus.published),
        "buildapi_events_delivered_total": _one(bus.delivered),
        "buildapi_events_failed_total": _one(bus.failed),
        "buildapi_listeners": _one(bus.listeners),
        "buildapi_subscriptions": _one(len(bus.streams)),
        "buildapi_subscription_waiting_events": _one(sum(one.depth for one in bus.streams)),
        "buildapi_subscription_waiting_bytes": _one(sum(one.waiting_bytes for one in bus.streams)),
        "buildapi_subscription_lag_events": _one(
            max((bus.last_seq - one.bookmark for one in bus.streams), default=0)
        ),
        "buildapi_subscription_dropped_events_total": _one(bus.dropped),
        "buildapi_subscription_gaps_total": _one(bus.gaps),
        "buildapi_reads_waiting": {(k,): n for k, n in data.database.waiting_reads.items()},
        "buildapi_http_requests_total": requests.answered(),
        "buildapi_http_request_duration_seconds": requests.durations(),
        "buildapi_connections_open": {
            ("websocket",): len(sockets.open),
            ("eventstream",): len(streams.open),
        },
        "buildapi_connections_refused_total": _one(sockets.admission.refused),
        "buildapi_connections_too_slow_total": {
            ("websocket",): sockets.cut,
            ("eventstream",): streams.cut,
        },
        "buildapi_streams_open": {(k,): n for k, n in _flowing(sockets).items()},
    }
    writer = data.database.writer
    if writer is not None:
        figures |= {
            "buildapi_event_log_forgotten_events_total": _one(data.database.retention.forgotten),
            "buildapi_writes_waiting": _one(writer.waiting),
            "buildapi_commit_writes": _one(writer.sizes),
            "buildapi_commit_duration_seconds": _one(writer.durations),
        }
    return figures


async def stored(watched: Watched) -> Figures:
    """Return what the database says of itself."""
    data = watched.data
    logged = data.database.identity is not None

    def read(reader: Reader) -> tuple[Mapping[str, int], int, int]:
        # The newest first: what is trimmed meanwhile must not make the log's length negative.
        newest, oldest = (eventlog.newest(reader), eventlog.oldest(reader)) if logged else (0, 1)
        return reader.connector.sizes(reader.connection), newest, oldest

    try:
        sizes, newest, oldest = await data.database.read(read)
    except BuildAPIError:
        return {"buildapi_database_up": _one(0)}
    figures: Figures = {
        "buildapi_database_up": _one(1),
        "buildapi_database_bytes": {(part,): size for part, size in sizes.items()},
    }
    if logged:
        figures |= {
            "buildapi_event_log_newest_seq": _one(newest),
            "buildapi_event_log_oldest_seq": _one(oldest),
            "buildapi_event_log_events": _one(max(0, newest + 1 - oldest)),
        }
    return figures


def exposed(figures: Figures) -> bytes:
    """Return the figures as text, with those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(figures))
    return generate_latest(registry)


class _Collector:
    """What the library asks for its families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Promise nothing: the registry lives for one answer."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give each metric that there are figures of."""
        for one in METRICS:
            if one.name not in self._figures:
                continue
            if one.kind == "histogram":
                histogram = HistogramMetricFamily(one.name, one.doc, labels=one.labels)
                for labels, value in self._figures[one.name].items():
                    assert isinstance(value, Histogram)  # noqa: S101  the declaration says so
                    histogram.add_metric(labels, _buckets(value), value.total)
                yield histogram
            else:
                family = _FAMILIES[one.kind](one.name, one.doc, labels=one.labels)
                for labels, value in self._figures[one.name].items():
                    family.add_metric(labels, value)
                yield family


def _one(value: Value) -> Samples:
    return {(): value}


def _buckets(histogram: Histogram) -> list[tuple[str, int]]:
    return [
        ("+Inf" if bound == float("inf") else str(float(bound)), count)
        for bound, count in histogram.cumulative()
    ]


def _flowing(sockets: Sockets) -> Counter[str]:
    kinds = Counter({"consumer": 0})
    for socket in sockets.open:
        if socket.client is not None:
            kinds.update(socket.client.flowing)
    return kinds
