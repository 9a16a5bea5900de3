"""
Follow a log and measure how late each line comes.

``python -m benchmarks.follower buildapi|buildbot PORT LOGID``

buildapi streams the lines themselves (followLog). With Buildbot a client is told that there is more
and fetches it, as its web page does; one fetch at a time, all lines that are there.

Prints "following", and at the log's end one line of JSON. A line's delay runs from its stamp, the
moment of the append, to the moment in which the frame or the answer that holds it has come in.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from benchmarks.delays import Delays
from benchmarks.figures import percentile

# Twisted's readBody misses a method on the connections of Twisted's own pool.
warnings.filterwarnings("ignore", message="Using readBody with a transport")


class Follower(WebSocketClientProtocol):
    """What both kinds have in common."""

    def onOpen(self) -> None:
        """Ask for the log."""
        self.unanswered = set()
        for number, command in enumerate(self.factory.commands()):
            self.unanswered.add(number)
            self.sendMessage(json.dumps(command | {"_id": number}).encode())

    def replied(self, number: int) -> None:
        """Tell our parent when it can begin."""
        self.unanswered.remove(number)
        if not self.unanswered:
            print("following", flush=True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002
        """Take a reply or a frame."""
        now_ns = time.monotonic_ns()
        frame = json.loads(payload)
        if "error" in frame:
            self.factory.failed(ValueError(frame["error"]))
        elif "msg" in frame:
            self.replied(frame["_id"])
        else:
            self.take(frame, now_ns)

    def take(self, frame: dict[str, Any], now_ns: int) -> None:
        """Take a frame that is no reply."""
        try:
            self.factory.frame(frame, now_ns)
        except Exception as error:  # noqa: BLE001  autobahn would swallow it
            self.factory.failed(error)


class Following(WebSocketClientFactory):
    """One log of buildapi."""

    protocol = Follower

    def __init__(self, reactor: Any, port: int, logid: int) -> None:
        super().__init__(f"ws://127.0.0.1:{port}/ws")
        self.reactor = reactor
        self.port = port
        self.logid = logid
        self.delays = Delays()
        self.done: Deferred[None] = Deferred()

    def commands(self) -> list[dict[str, Any]]:
        """What to send first."""
        return [{"cmd": "followLog", "logid": self.logid}]

    def frame(self, frame: dict[str, Any], now_ns: int) -> None:
        """Take lines, or the end."""
        if "end" in frame:
            self.done.callback(None)
        else:
            self.delays.take(frame["content"], now_ns)

    def failed(self, error: BaseException) -> None:
        """End with an error."""
        if not self.done.called:
            self.done.errback(error)


class FollowingBuildbot(Following):
    """One log of Buildbot."""

    def __init__(self, reactor: Any, port: int, logid: int) -> None:
        super().__init__(reactor, port, logid)
        self._agent = Agent(reactor, pool=HTTPConnectionPool(reactor))
        self._fetching = False
        self._there = 0
        self._finished = False

    def commands(self) -> list[dict[str, Any]]:
        """What to send first."""
        keys = (f"logs/{self.logid}/append", f"logs/{self.logid}/finished")
        return [{"cmd": "startConsuming", "path": key} for key in keys]

    def frame(self, frame: dict[str, Any], now_ns: int) -> None:  # noqa: ARG002
        """Hear that there are more lines."""
        self._there = max(self._there, frame["m"]["num_lines"])
        self._finished = self._finished or frame["k"].endswith("finished")
        if not self._fetching:
            self._fetching = True
            Deferred.fromCoroutine(self._fetch()).addErrback(self._failed)

    def _failed(self, why: Failure) -> None:
        self.failed(why.value or RuntimeError(str(why)))

    async def _fetch(self) -> None:
        while (have := len(self.delays.ms)) < self._there:
            url = f"http://127.0.0.1:{self.port}/api/v2/logs/{self.logid}/contents?offset={have}"
            accept = Headers({"Accept": ["application/json"]})
            answer = await self._agent.request(b"GET", url.encode(), accept)
            body = await readBody(answer)
            now_ns = time.monotonic_ns()
            (chunk,) = json.loads(body)["logchunks"]
            self.delays.take(chunk["content"], now_ns)
        self._fetching = False
        if self._finished and not self.done.called:
            self.done.callback(None)


async def follow(reactor: Any, kind: str, port: str, logid: str) -> None:
    """Follow until the end and print the figures."""
    factory = {"buildapi": Following, "buildbot": FollowingBuildbot}[kind]
    following = factory(reactor, int(port), int(logid))
    await HostnameEndpoint(reactor, "127.0.0.1", int(port)).connect(following)
    await following.done
    ms = following.delays.ms
    print(
        json.dumps(
            {
                "lines": len(ms),
                "p50_ms": percentile(ms, 0.5),
                "p99_ms": percentile(ms, 0.99),
                "most_ms": max(ms, default=0.0),
            }
        )
    )


if __name__ == "__main__":
    react(follow, sys.argv[1:4])
