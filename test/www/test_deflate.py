"""permessage-deflate, with a client that others wrote."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from buildapi.service import BuildAPI
from buildapi.settings import Limits, Server, Settings
from buildapi.testing import Wire, a_build, a_log, in_memory_api, masked, result_of
from buildapi.www import deflate

LINE = "o" + "gcc -c -O2 -Wall thing.c -o thing.o; " * 5 + "\n"
COMPRESSED_TEXT = 0x41


class Client:
    """
    The other end of a connection in memory: of websockets, without a network.

    ``received``: the bytes that came after the handshake.
    """

    def __init__(self, api: BuildAPI, **offer: Any) -> None:
        self.api = api
        self.wire = Wire(api)
        self.received = 0
        extensions = [ClientPerMessageDeflateFactory(**offer)]
        self.protocol = ClientProtocol(
            parse_uri("ws://127.0.0.1:8010/ws"), extensions=extensions, max_size=None
        )
        self.protocol.send_request(self.protocol.connect())
        self.frames()
        self.received = 0

    @property
    def agreed(self) -> PerMessageDeflate | None:
        """The extension, if both want it."""
        for found in self.protocol.extensions:
            assert isinstance(found, PerMessageDeflate)
            return found
        return None

    @property
    def closed_with(self) -> int | None:
        """The code with which the server closed."""
        close = self.protocol.close_rcvd
        return None if close is None else close.code

    def send(self, value: Any) -> None:
        """Send a text."""
        self.protocol.send_text(json.dumps(value).encode())

    def frames(self) -> list[Any]:
        """Exchange what there is; return the JSON of what came."""
        found: list[Any] = []
        while True:
            for data in self.protocol.data_to_send():
                self.wire.send(data)
            taken = self.wire.take()
            if not taken:
                return found
            self.received += len(taken)
            self.protocol.receive_data(taken)
            found += [
                json.loads(bytes(event.data))
                for event in self.protocol.events_received()
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT
            ]


def service(*, on: bool = True, bits: int = 12) -> BuildAPI:
    """Return one that takes the offer, or doesn't."""
    limits = Limits(frame_bytes=10_000, follow_gather_ms=0, deflate_window_bits=bits)
    return in_memory_api(Settings(server=Server(deflate=on), limits=limits))


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_what_is_told_is_the_same_and_shorter(bits: int) -> None:
    """Logs and events, each of several messages; what a client says is understood."""
    plain, deflated = Client(service(on=False)), Client(service(bits=bits))
    for client in (plain, deflated):
        result_of(a_log(client.api, LINE * 2_000, finished=True))
        client.send({"cmd": "subscribe", "topic": "build.#", "since": 0, "_id": "x" * 300})
        client.send({"cmd": "followLog", "logid": 1, "_id": 2})

    assert plain.agreed is None
    assert deflated.agreed is not None
    told, deflated_told = plain.frames(), deflated.frames()
    assert "".join(frame.get("content", "") for frame in told) == LINE * 2_000
    assert without_times(told) == without_times(deflated_told)
    assert deflated.received < plain.received / 4


def without_times(frames: list[Any]) -> list[Any]:
    """Return frames of which two services with the same history have the same."""
    return [{key: value for key, value in one.items() if key != "at"} for one in frames]


def test_without_the_setting_it_is_not_offered() -> None:
    """By default: a browser that asks gets plain frames."""
    client = Client(in_memory_api())
    client.send({"cmd": "ping", "_id": 1})

    assert not Settings().server.deflate
    assert client.agreed is None
    assert client.frames() == [{"msg": "pong", "code": 200, "_id": 1}]


@pytest.mark.parametrize(
    ("offer", "server_bits"),
    [
        ({}, 15),
        ({"server_max_window_bits": 10}, 10),
        ({"server_max_window_bits": 15}, 15),
        ({"client_max_window_bits": None}, 15),
        ({"server_no_context_takeover": True, "client_no_context_takeover": True}, 15),
    ],
)
def test_whatever_is_offered_is_kept(offer: dict[str, Any], server_bits: int) -> None:
    """The windows are no larger than the setting, nor than what the client wants."""
    client = Client(service(), **offer)
    agreed = client.agreed
    assert agreed is not None
    for number in range(5):
        client.send({"cmd": "ping", "_id": f"{number} {LINE * 20}"})

    assert [frame["_id"][0] for frame in client.frames()] == list("01234")
    assert agreed.remote_max_window_bits == server_bits
    assert agreed.local_no_context_takeover
    assert agreed.local_max_window_bits == (15 if "client_max_window_bits" in offer else 12)


def test_a_bomb_is_defused() -> None:
    """What a client sends counts after decompression: 10 MB in 10 kB are refused, unread."""
    client = Client(service())
    client.send({"cmd": "ping", "_id": "x" * 9_000})
    assert len(client.frames()) == 1

    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(b" " * 9_000_000) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 10_000
    client.wire.send(masked(COMPRESSED_TEXT, data.removesuffix(b"\x00\x00\xff\xff")))

    assert client.frames() == []
    assert client.closed_with == 1009


def test_what_is_no_deflate_closes_with_1007() -> None:
    """And nothing fails."""
    client = Client(service())
    client.wire.send(masked(COMPRESSED_TEXT, b"\xff" * 20))

    assert client.frames() == []
    assert client.closed_with == 1007


def test_a_frame_is_compressed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all whose stream has the same name and whose window is as large."""
    made: list[int] = []
    frame = deflate.frame

    def counted(payload: bytes, bits: int) -> bytes | None:
        made.append(bits)
        return frame(payload, bits)

    monkeypatch.setattr(deflate, "frame", counted)
    api = service()
    clients = [Client(api) for _ in range(10)] + [Client(api, server_max_window_bits=9)]
    for client in clients:
        client.send({"cmd": "subscribe", "topic": "build.#", "_id": 1})
        client.frames()
    made.clear()
    result_of(a_build(api))

    told = [client.frames() for client in clients]
    assert all(frames == told[0] for frames in told)
    assert sorted(made) == [9] * len(told[0]) + [12] * len(told[0])
