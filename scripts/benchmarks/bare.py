"""
What the stack can do at best: bare twisted.web or bare Klein, answering with constants.

``python -m benchmarks.bare klein|twisted PORT``. The constants are as long as the answers of the
real servers are with the generated data, and no access log is written.
"""

from __future__ import annotations

import sys

from klein import Klein
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTCP
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

ROW = b'{"builds": ["%s"]}' % (b"x" * 246)
LIST = b'{"builds": ["%s"]}' % (b"x" * 12_300)


def _constant(request: IRequest, body: bytes) -> bytes:
    request.setHeader(b"Content-Type", b"application/json; charset=utf-8")
    request.setHeader(b"Content-Length", b"%d" % len(body))  # else Klein's are chunked
    return body


class Constant(Resource):
    """A list if the request has a query, else a row."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Answer with the constant."""
        return _constant(request, LIST if b"?" in request.uri else ROW)


app = Klein()


@app.route("/api/v2/builds/<int:buildid>")
def row(request: IRequest, buildid: int) -> bytes:  # noqa: ARG001  Klein passes it on
    """Answer with one row."""
    return _constant(request, ROW)


@app.route("/api/v2/builds")
def rows(request: IRequest) -> bytes:
    """Answer with many rows."""
    return _constant(request, LIST)


class QuietSite(Site):
    """A site without an access log, and without the line that Site makes for nobody."""

    def log(self, request: Request) -> None:
        """Log nothing."""


def main(kind: str, port: int) -> None:
    """Serve until SIGTERM."""
    resource = app.resource() if kind == "klein" else Constant()
    assert IReactorTCP.providedBy(reactor)
    reactor.listenTCP(port, QuietSite(resource), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
