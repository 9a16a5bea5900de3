"""
The web: a Klein app, and the quick door beside it.

The REST route and the quick door call one function: one way to answer, two doors to it. The door
takes GETs below ``/api/v2`` before Klein's own routing, which halves what a request costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from klein import Klein
from klein.resource import KleinResource
from twisted.web.http import Request
from twisted.web.resource import IResource
from twisted.web.server import Site
from twisted.web.static import Data

from buildapi.data.api import DataAPI
from buildapi.data.control import Control
from buildapi.mq.bus import Bus
from buildapi.settings import Settings
from buildapi.www.actions import Actions
from buildapi.www.connection import Sockets
from buildapi.www.cors import Answered, Cors
from buildapi.www.rest import Rest

_PREFIXES = (b"/api/v2/", b"/api/latest/")
_TEXT = b"text/plain; charset=utf-8"


class Web:
    """
    Everything that is served over HTTP, and on what it works.

    seq: gives the newest published position.  not_ready: gives why requests are not served now.
    """

    app = Klein()

    def __init__(
        self,
        settings: Settings,
        data: DataAPI,
        control: Control,
        bus: Bus,
        seq: Callable[[], int | None],
        not_ready: Callable[[], str | None],
    ) -> None:
        self._cors = Cors(settings.server.allowed_origins)
        self._rest = Rest(data, seq)
        self._actions = Actions(control, settings.limits.request_bytes)
        self._not_ready = not_ready
        self._base_url = settings.server.base_url
        self.sockets = Sockets(settings, data, bus, self._cors)

    def site(self, *, access_log: bool) -> Site:
        """Return what a port serves."""
        kind = Site if access_log else QuietSite
        return kind(Door(self))  # type: ignore[no-untyped-call]  # only partly annotated

    def close(self) -> None:
        """End what would stay open: the WebSockets."""
        self.sockets.close()

    @app.route("/api")
    def versions(self, request: Any) -> bytes:
        """Say where the API is."""
        request.setHeader(b"content-type", b"application/json")
        return orjson.dumps({"api_versions": {"v2": f"{self._base(request)}api/v2"}})

    @app.route("/api/v2/", branch=True)
    @app.route("/api/latest/", branch=True)
    @app.route("/api/v2")
    @app.route("/api/latest")
    def v2(self, request: Any) -> Any:
        """Answer whatever comes below /api/v2, by whichever door."""
        return self.api(request)

    @app.route("/ws", branch=True)
    def ws(self, request: Any) -> IResource:  # noqa: ARG002  the resource takes it over
        """Open a WebSocket."""
        return self.sockets.resource

    @app.route("/healthz")
    def healthz(self, request: Any) -> IResource:  # noqa: ARG002  Klein's signature
        """Say that the process answers."""
        return Data(b"ok\n", "text/plain; charset=utf-8")

    @app.route("/readyz")
    def readyz(self, request: Any) -> bytes:
        """Say whether requests are served now."""
        request.setHeader(b"content-type", _TEXT)
        reason = self._not_ready()
        if reason is None:
            return b"ready\n"
        request.setResponseCode(503)
        return f"not ready: {reason}\n".encode()

    def quick(self, request: Any) -> Any:
        """Answer a plain GET or HEAD below /api/v2/; None if it is something else."""
        path, _, query = request.uri.partition(b"?")
        for prefix in _PREFIXES:
            if path.startswith(prefix):
                return self._rest.render(request, path[len(prefix) :], query)
        return None

    def api(self, request: Any) -> Any:
        """Answer any request below /api/v2."""
        decision = self._cors.decide(request.method, request.getHeader, self._base(request)[:-1])
        for name, value in decision.headers:
            request.responseHeaders.addRawHeader(name, value)
        if isinstance(decision, Answered):
            request.setResponseCode(decision.status)
            return decision.body
        if request.method in (b"GET", b"HEAD"):
            answered = self.quick(request)
            return self._rest.render(request, b"", b"") if answered is None else answered
        if request.method == b"POST":
            path = request.uri.partition(b"?")[0].removeprefix(b"/api/")
            return self._actions.render(request, path.partition(b"/")[2])
        return self._rest.refuse_method(request)

    def _base(self, request: Any) -> str:
        if self._base_url is not None:
            return self._base_url
        host = request.getHeader(b"host") or b"localhost"
        scheme = "https" if request.isSecure() else "http"
        return f"{scheme}://{host.decode('latin-1')}/"


class Door(KleinResource):
    """
    The quick door: GETs of our own pages and of programs are answered before Klein routes anything.
    """

    def __init__(self, web: Web) -> None:
        super().__init__(web.app)
        self._web = web

    def render(self, request: Any) -> Any:
        """Answer at once what can be; leave the rest to Klein."""
        if request.method in (b"GET", b"HEAD") and not request.requestHeaders.hasHeader(b"origin"):
            answered = self._web.quick(request)
            if answered is not None:
                return answered
        return super().render(request)


class QuietSite(Site):
    """A site that formats an access-log line only if somebody wants it."""

    def log(self, request: Request) -> None:
        """Write nothing: a formatted line costs as much as half an answer."""
