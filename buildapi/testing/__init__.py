"""
A test kit for those who embed buildapi: everything in memory, in one thread, without a reactor.

    api = in_memory_api()
    builderid = result_of(api.data.updates.findBuilderId("runtests"))
    assert WebClient(api).get("/api/v2/builders/1").status == 200

    ws = WebSocketClient(Wire(api))
    assert ws.ask("startConsuming", path="builders/*/update")["code"] == 200

Deferreds have fired when they are returned, and time is a ``Clock`` that stands still. The web is
the real one, from the first byte of a request to the last of its answer; only the network is not
there: a ``Wire`` stands for a connection, and is as slow as a test wants.
"""

from buildapi.testing.eventsource import Block, EventSource
from buildapi.testing.memory import NOON, RecordingSubscriber, in_memory_api, result_of
from buildapi.testing.samples import a_build, a_commit, a_log, a_request, a_step
from buildapi.testing.webclient import Answer, WebClient, answered
from buildapi.testing.websocket import WebSocketClient, masked
from buildapi.testing.wire import Connection, Wire

__all__ = [
    "NOON",
    "Answer",
    "Block",
    "Connection",
    "EventSource",
    "RecordingSubscriber",
    "WebClient",
    "WebSocketClient",
    "Wire",
    "a_build",
    "a_commit",
    "a_log",
    "a_request",
    "a_step",
    "answered",
    "in_memory_api",
    "masked",
    "result_of",
]
