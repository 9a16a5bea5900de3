"""
Straight to the client: bytes for which nothing waits are given to the system at once.

A transport of Twisted's keeps what is written until the reactor comes round to it, and has the
reactor watch the socket until then. That makes three system calls of one, and costs more than all
else that a delivery does when a thousand clients are told the same.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def write(transport: Any, data: bytes) -> None:
    """Write to a transport, with its promises: in order, and it tells when there is too much."""
    if _is_idle(transport):
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        # Where the connection is lost there is no number, and the transport finds out by itself.
        if isinstance(sent, int):
            data = data[sent:]
    transport.write(data)


def _is_idle(transport: Any) -> bool:
    """Say whether a transport is a plain socket, and nothing that was written before waits."""
    return (
        isinstance(transport, Connection)
        and not (transport.dataBuffer or transport._tempDataBuffer)  # noqa: SLF001  no other way
        and bool(transport.connected)
        and not (transport.disconnecting or transport._writeDisconnected or transport.TLS)  # noqa: SLF001
    )
