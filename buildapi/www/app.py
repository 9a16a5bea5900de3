"""
The web: a Klein app, and the quick door beside it.

The REST route and the quick door call one function: one way to answer, two doors to it. The door
takes what is below ``/api/v2`` before Klein's own routing, which halves what a request costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
from klein import Klein
from klein.resource import KleinResource
from twisted.web.pages import errorPage, notFound
from twisted.web.resource import IResource, Resource
from werkzeug.exceptions import BadHost

from buildapi.data.api import DataAPI
from buildapi.data.control import Control
from buildapi.data.outcomes import Outcomes
from buildapi.data.watches import Watches
from buildapi.docs.files import FILES
from buildapi.errors import Unavailable
from buildapi.mq.bus import Bus
from buildapi.settings import Settings
from buildapi.www import audit, events, subscriptions
from buildapi.www.actions import Actions
from buildapi.www.audit import Audit
from buildapi.www.channel import Site
from buildapi.www.connection import Sockets
from buildapi.www.cors import Answered, Cors, own_origin
from buildapi.www.events import Events
from buildapi.www.eventstream import EventStreams
from buildapi.www.followedlogs import FollowedLogs, asks_to_follow
from buildapi.www.hub import Hubs
from buildapi.www.metrics import Metrics, Watched
from buildapi.www.rest import Rest
from buildapi.www.sse import Listen
from buildapi.www.subscriptions import Subscriptions

_BELOW = (b"/api/v2/", b"/api/latest/")
_READING = (b"GET", b"HEAD")
_TEXT = b"text/plain; charset=utf-8"


class Web:
    """
    Everything that is served over HTTP, and on what it works.

    seq: gives the newest published position.  not_ready: gives why requests are not served now.
    ``site``: what a port serves.  ``sockets``: the WebSockets.  ``streams``: the event streams.
    ``events``: the answers that wait for events.
    ``hubs``: those of followed logs.
    """

    app = Klein()

    def __init__(
        self,
        settings: Settings,
        data: DataAPI,
        control: Control,
        bus: Bus,
        watches: Watches,
        outcomes: Outcomes,
        seq: Callable[[], int | None],
        not_ready: Callable[[], str | None],
        reactor: Any,
    ) -> None:
        server = settings.server
        local = server.base_url is None and data.gate.loopback_only
        self._cors = Cors(server.allowed_origins, local_only=local)
        self._rest = Rest(data, outcomes, settings.limits, seq, self._base)
        self._actions = Actions(control, self._rest.position, settings.limits.request_bytes)
        self._not_ready = not_ready
        self._database = data.database
        self._base_url = settings.server.base_url
        self._audit = Audit(control, self._is_own)
        self.hubs = Hubs(data, bus, reactor, settings.limits)
        self.sockets = Sockets(settings, data, bus, self.hubs, watches, self._cors, reactor)
        self.streams = EventStreams(settings.limits, self.sockets.admission, reactor)
        self._logs = FollowedLogs(self.hubs, self.streams, self._rest.position, self._rest.render)
        self.events = Events(data, bus, self.streams, settings.limits, self._rest.position, reactor)
        self.sse = Listen(data, bus, self.streams, settings.limits)
        self.site = Site(
            Door(self),
            reactor,
            most_body_bytes=settings.limits.request_bytes,
            log_requests=settings.server.access_log,
            direct=_BELOW,
        )
        watched = Watched(data, bus, settings.events, self.sockets, self.streams, self.site.tally)
        self._metrics = Metrics(watched, self._is_own)
        self._subscriptions = Subscriptions(data, bus, self.sockets, self.sse, self._is_own)

    @app.route("/api")
    def versions(self, request: Any) -> bytes:
        """Say where the API is."""
        request.setHeader(b"content-type", b"application/json")
        return orjson.dumps({"api_versions": {"v2": f"{self._base(request)}api/v2"}})

    @app.route(audit.PATH, methods=["GET", "HEAD"])
    def audit(self, request: Any) -> Any:
        """Say which control calls were made."""
        return self._audit.render(request)

    @app.route("/api/v2/", branch=True)
    @app.route("/api/latest/", branch=True)
    @app.route("/api/v2")
    @app.route("/api/latest")
    def v2(self, request: Any) -> IResource:  # noqa: ARG002  the resource takes it over
        """Answer whatever comes below /api/v2 and has not come by the door."""
        return API(self)

    @app.route("/ws/")
    @app.route("/ws", branch=True)
    def ws(self, request: Any) -> IResource:  # noqa: ARG002  the resource takes it over
        """Open a WebSocket."""
        return self.sockets.resource

    @app.route("/sse/", branch=True)
    @app.route("/sse")
    def listen(self, request: Any) -> Any:
        """Send events as Buildbot does, over HTTP."""
        refused = self._refused(request)
        return self.sse if refused is None else refused

    @app.route("/metrics", methods=["GET", "HEAD"])
    def metrics(self, request: Any) -> Any:
        """Show the figures of this server to Prometheus."""
        return self._metrics.render(request)

    @app.route("/healthz")
    def healthz(self, request: Any) -> bytes:
        """Say that the process answers."""
        request.setHeader(b"content-type", _TEXT)
        return b"ok\n"

    @app.route("/readyz")
    async def readyz(self, request: Any) -> bytes:
        """Say whether requests are served now, the database being asked, too."""
        request.setHeader(b"content-type", _TEXT)
        reason = self._not_ready()
        if reason is None:
            try:
                await self._database.answers()
            except Unavailable as error:
                reason = error.sentence
        if reason is None:
            return b"ready\n"
        request.setResponseCode(503)
        return f"not ready: {reason}\n".encode()

    @app.route("/docs/openapi.json")
    def openapi(self, request: Any) -> bytes:
        """Describe the API as an OpenAPI document."""
        request.setHeader(b"content-type", b"application/json")
        return _described("openapi.json")

    @app.route("/docs/buildapi.raml")
    def raml(self, request: Any) -> bytes:
        """Describe the API as a RAML document."""
        request.setHeader(b"content-type", b"application/raml+yaml")
        return _described("buildapi.raml")

    def api(self, request: Any) -> Any:
        """Answer any request for /api/v2 or what is below."""
        path, _, query = request.uri.partition(b"?")
        # /api/v2 itself is the root, /api/v2/ is a path with an empty element.
        path = b"".join(path.split(b"/", 3)[3:]) if path.count(b"/") > 2 else b"/"  # noqa: PLR2004
        if request.method in _READING and not request.requestHeaders.hasHeader(b"origin"):
            return self._read(request, path, query)
        return self._guarded(request, path, query)

    def _read(self, request: Any, path: bytes, query: bytes) -> Any:
        if path == events.PATH:
            return self.events.render(request, query)
        if path == subscriptions.PATH:
            return self._subscriptions.render(request)
        if asks_to_follow(path, query):
            return self._logs.render(request, path, query)
        return self._rest.render(request, path, query)

    def _guarded(self, request: Any, path: bytes, query: bytes) -> Any:
        """Answer a request of another method, or from a page of whatever origin."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.method in _READING:
            return self._read(request, path, query)
        if request.method == b"POST":
            request.route = "control"
            return self._actions.render(request, path)
        return self._rest.refuse_method(request)

    def _refused(self, request: Any) -> bytes | None:
        """
        Return what a page is answered that may not ask, or that only asks whether it may.

        None: go on; the answer has the headers then that the page needs.
        """
        own = self._own_origin(request)
        decision = self._cors.decide(request.method, request.getHeader, own)
        for name, value in decision.headers:
            request.responseHeaders.addRawHeader(name, value)
        if not isinstance(decision, Answered):
            return None
        request.setResponseCode(decision.status)
        # With a body to leave out, Twisted would announce its length.
        return b"" if request.method == b"HEAD" else decision.body

    def _is_own(self, request: Any) -> bool:
        """Say whether a page that may use this server asks, or a client that is no page."""
        own = self._own_origin(request)
        # A page from where we are asked sends no Origin, so what we are called must do.
        return self._cors.allows(request.getHeader(b"origin") or own.encode(), own)

    def _own_origin(self, request: Any) -> str:
        return own_origin(self._base_url, request.getHeader(b"host"), secure=request.isSecure())

    def _base(self, request: Any) -> str:
        if self._base_url is not None:
            return self._base_url
        return own_origin(None, request.getHeader(b"host"), secure=request.isSecure()) + "/"


@cache
def _described(name: str) -> bytes:
    """Return a description of the API: it is the same as long as the process runs."""
    return FILES[name]().encode()


class API(Resource):
    """
    Everything below /api/v2.

    A resource and not only a route: Klein ends a request whose route says that it is not done yet.
    """

    isLeaf = True

    def __init__(self, web: Web) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # only partly annotated
        self._web = web

    def render(self, request: Any) -> Any:
        """Answer."""
        return self._web.api(request)


class Door(KleinResource):
    """
    The quick door: what is below /api/v2 is answered before Klein routes anything.

    Klein would also send who writes two slashes, an empty element of the path, to another address.
    """

    def __init__(self, web: Web) -> None:
        super().__init__(web.app)
        self._web = web

    def render(self, request: Any) -> Any:
        """Answer at once what can be; leave the rest to Klein."""
        if request.uri.startswith(_BELOW):
            return self._web.api(request)
        try:
            b"/".join([request.getRequestHostname(), *request.postpath]).decode()
        except UnicodeDecodeError:
            # Klein would write a traceback into the log about every one.
            return notFound().render(request)
        try:
            return super().render(request)
        except BadHost:
            return errorPage(400, "Bad Request", "Host is no name of a server.").render(request)
