"""
Follow a log in a terminal, line by line as it grows: a small WebSocket client.

    python contrib/followlog.py http://127.0.0.1:8010 builds/1/steps/0/logs/stdio

It says ``followLog`` once; then come frames with whole lines, each line exactly once, and at last
one that tells the end.  A log that isn't there yet is waited for.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.python.url import URL


class LogFollower(WebSocketClientProtocol):
    """
    Prints a log.

    path: of the log, as in a URL.  done: fires at the end of the log, fails if there is none.
    """

    def __init__(self, path: str, done: Deferred[None]) -> None:
        super().__init__()
        self.path = path
        self.done = done

    def onOpen(self) -> None:
        """Ask for all lines from the first on."""
        ask = {"cmd": "followLog", "path": self.path, "offset": 0, "_id": 1}
        self.sendMessage(json.dumps(ask).encode())  # type: ignore[no-untyped-call]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002  autobahn's signature
        """Print lines; end with the log, or with what is wrong."""
        frame = json.loads(payload)
        if "content" in frame:
            sys.stdout.write(self._shown(frame["content"]))
            sys.stdout.flush()
        if "end" in frame:
            self._end(None)
        if "error" in frame:
            self._end(SystemExit(frame["error"]))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002
        """Say why, if the server went away before the log ended."""
        self._end(SystemExit(f"the connection was closed: {reason or code}"))

    def _shown(self, content: str) -> str:
        # In a log of standard output and error each line begins with o, e or h.
        if self.path.endswith("/stdio"):
            return "".join(f"{line[1:]}\n" for line in content.split("\n")[:-1])
        return content

    def _end(self, error: BaseException | None) -> None:
        if not self.done.called:
            self.done.callback(None if error is None else Failure(error))


async def follow(reactor: Any, base: str, path: str) -> None:
    """Print the log at ``path`` of the server at ``base`` until it ends."""
    server = URL.fromText(base)
    host, port = server.host, server.port or 80
    done: Deferred[None] = Deferred()
    factory = WebSocketClientFactory(f"ws://{host}:{port}/ws", reactor=reactor)
    factory.protocol = lambda: LogFollower(path, done)  # type: ignore[assignment]  # a class is meant
    try:
        await HostnameEndpoint(reactor, host, port).connect(factory)
    except ConnectError as error:
        raise SystemExit(f"cannot reach {base}: {error}") from None
    await done


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004
        sys.exit(__doc__)
    react(follow, sys.argv[1:])
