"""
Follow a log in a terminal, line by line as it grows: a small WebSocket client.

    python contrib/followlog.py http://127.0.0.1:8010 builds/1/steps/0/logs/stdio

It says ``followLog``; then come frames with whole lines, each line exactly once, and at last one
that tells the end.  A log that isn't there yet is waited for.  When the connection is lost, it
connects again and goes on at the ``next`` line of the last frame.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure
from twisted.python.url import URL

# Before it connects again.
PAUSE_S = 1.0


class LogFollower(WebSocketClientProtocol):
    """
    Prints a log.

    path: of the log, as in a URL.  first: the first line wanted.  done: fires at the end of the
    log with None, or with the next line if the connection is lost; fails if there is no such log.
    """

    def __init__(self, path: str, first: int, done: Deferred[int | None]) -> None:
        super().__init__()
        self.path = path
        self.next = first
        self.done = done

    def onOpen(self) -> None:
        """Ask for all lines that have not been printed."""
        ask = {"cmd": "followLog", "path": self.path, "offset": self.next, "_id": 1}
        self.sendMessage(json.dumps(ask).encode())  # type: ignore[no-untyped-call]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002  autobahn's signature
        """Print lines; end with the log, or with what is wrong."""
        frame = json.loads(payload)
        if "content" in frame:
            sys.stdout.write(self._shown(frame["content"]))
            sys.stdout.flush()
            self.next = frame["next"]
        if "end" in frame:
            self._end(None)
        if "error" in frame:
            self._end(Failure(SystemExit(frame["error"])))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002
        """Tell where to go on, if the server went away before the log ended."""
        self._end(self.next)

    def _shown(self, content: str) -> str:
        # In a log of standard output and error each line begins with o, e or h.
        if self.path.endswith("/stdio"):
            return "".join(f"{line[1:]}\n" for line in content.split("\n")[:-1])
        return content

    def _end(self, result: int | Failure | None) -> None:
        if not self.done.called:
            self.done.callback(result)  # a Failure makes it an errback


async def follow(reactor: Any, base: str, path: str) -> None:
    """Print the log at ``path`` of the server at ``base`` until it ends."""
    line: int | None = 0
    connected = False
    while line is not None:
        done: Deferred[int | None] = Deferred()
        try:
            await _connected(reactor, URL.fromText(base), LogFollower(path, line, done))
        except ConnectError as error:
            if not connected:
                raise SystemExit(f"cannot reach {base}: {error}") from None
        else:
            connected = True
            line = await done
        if line is not None:
            await deferLater(reactor, PAUSE_S)


async def _connected(reactor: Any, server: URL, follower: LogFollower) -> None:
    host, port = server.host, server.port or 80
    factory = WebSocketClientFactory(f"ws://{host}:{port}/ws", reactor=reactor)
    factory.protocol = lambda: follower  # type: ignore[assignment]  # a class is meant
    await HostnameEndpoint(reactor, host, port).connect(factory)


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004
        sys.exit(__doc__)
    react(follow, sys.argv[1:])
