"""
permessage-deflate (RFC 7692), an option of the WebSocket.

Each message is compressed by itself, in both directions: neither side keeps a window from one to
the next. So a frame that was made for one client serves all whose window is as large, and a client
that is silent costs no memory for it. What a client sends counts after decompression: autobahn
stops there at the limit for a message.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from buildapi.settings import Limits

# Shorter messages gain less than their compression costs.
WORTH_DEFLATING = 256
# The quickest: it is done on the reactor's thread.
_LEVEL = 1
# What a compressor takes besides its window is then as much again.
_BELOW_WINDOW = 7
# With which every compressed message ends, and which is left out.
_TAIL = b"\x00\x00\xff\xff"
# The first byte of a frame: the last of a message, compressed, text.
_HEAD = 0xC1
_SHORT, _MEDIUM = 125, 65_535


def accepted(offers: Sequence[Any], limits: Limits) -> PerMessageDeflateOfferAccept | None:
    """Return what we take of a client's offers: the first, if there is one."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            bits = limits.deflate_window_bits
            return PerMessageDeflateOfferAccept(
                offer,
                request_no_context_takeover=True,
                request_max_window_bits=bits if offer.accept_max_window_bits else 0,
                no_context_takeover=True,
                window_bits=min(bits, offer.request_max_window_bits or bits),
                max_message_size=limits.frame_bytes,
            )
    return None


def frame(payload: bytes, bits: int) -> bytes | None:
    """Return a text as a compressed frame, with a window of 2**bits bytes; None if not worth it."""
    if len(payload) < WORTH_DEFLATING:
        return None
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, bits - _BELOW_WINDOW)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(_TAIL)
    return _header(len(data)) + data if len(data) < len(payload) else None


def _header(size: int) -> bytes:
    if size <= _SHORT:
        return struct.pack("!BB", _HEAD, size)
    if size <= _MEDIUM:
        return struct.pack("!BBH", _HEAD, 126, size)
    return struct.pack("!BBQ", _HEAD, 127, size)
