"""Bytes that go straight to the system, and those that can't."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport

from buildapi.www import straight

MEGABYTES = b"".join(b"%07d\n" % number for number in range(2**20))


class Watching:
    """A reactor that only takes note of who wants to write."""

    def __init__(self) -> None:
        self.writers: set[Connection] = set()

    def addWriter(self, writer: Connection) -> None:
        """Take note."""
        self.writers.add(writer)

    def removeWriter(self, writer: Connection) -> None:
        """Take note."""
        self.writers.discard(writer)


class Ends:
    """A transport on a socket, and the other end."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.settimeout(0)
        self.reactor = Watching()
        self.transport = Connection(ours, Protocol(), cast("Any", self.reactor))
        self.transport.connected = True

    def read(self) -> bytes:
        """Read what has come."""
        found = []
        try:
            while data := self.client.recv(2**20):
                found.append(data)
        except BlockingIOError:
            pass
        return b"".join(found)

    def close(self) -> None:
        """Close both."""
        self.client.close()
        self.transport.getHandle().close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return both ends of a connection."""
    made = Ends()
    yield made
    made.close()


def test_what_nothing_waits_before_is_sent_at_once(ends: Ends) -> None:
    """The client has it, and the reactor was not asked for anything."""
    straight.write(ends.transport, b"one")
    straight.write(ends.transport, b" two")

    assert ends.read() == b"one two"
    assert not ends.reactor.writers


def test_what_does_not_fit_waits_for_the_reactor(ends: Ends) -> None:
    """Every byte comes once, in order, also of what is written behind."""
    straight.write(ends.transport, MEGABYTES)
    straight.write(ends.transport, b"the end")
    assert ends.reactor.writers == {ends.transport}
    came = b""
    while ends.reactor.writers:
        came += ends.read()
        ends.transport.doWrite()

    assert came + ends.read() == MEGABYTES + b"the end"


def test_what_waits_already_is_not_overtaken(ends: Ends) -> None:
    """Though there is room, the second waits: the first does, too."""
    ends.transport.write(b"one")
    straight.write(ends.transport, b" two")
    assert ends.read() == b""
    ends.transport.doWrite()

    assert ends.read() == b"one two"


def test_a_lost_connection_is_left_to_the_reactor(ends: Ends) -> None:
    """Nothing is raised at whoever writes; the next turn of the reactor sees it."""
    ends.client.close()
    straight.write(ends.transport, b"lost")

    assert ends.reactor.writers == {ends.transport}
    assert isinstance(ends.transport.doWrite(), Exception)


def test_a_closing_transport_decides_by_itself(ends: Ends) -> None:
    """What is written after the end of a connection is not sent."""
    ends.transport.connected = False
    straight.write(ends.transport, b"late")

    assert ends.read() == b""


def test_another_transport_is_written_to() -> None:
    """TLS has to make something of the bytes first."""
    transport = StringTransport()
    straight.write(transport, b"text")

    assert transport.value() == b"text"
