"""Where a server listens, read from an endpoint's description."""

from __future__ import annotations

import ipaddress

from twisted.internet.endpoints import _parse as parsed_endpoint  # the only parser of descriptions

# Behind any other (haproxy, say) stands somebody who lets the whole world in.
_DIRECT = ("tcp", "tcp6", "ssl")
# So many clients may knock at once, as when a server is back and all come again; the system may
# allow fewer. Who finds no room tries again after a second: Twisted's 50 are soon too few.
BACKLOG = 1024


def is_loopback(description: str) -> bool:
    """
    Say whether an endpoint takes connections from this machine only; False if nobody can tell.

    >>> is_loopback("tcp:8010:interface=127.0.0.1"), is_loopback("tcp:8010"), is_loopback("unix:/x")
    (True, False, True)
    """
    try:
        arguments, named = parsed_endpoint(description)
    except RuntimeError:  # a backslash at its end
        return False
    kind = arguments[0] if arguments else ""
    return kind == "unix" or (kind in _DIRECT and is_own(named.get("interface", "")))


def with_room(description: str) -> str:
    """
    Return an endpoint's description with room for many who knock, unless it says how many.

    >>> with_room("tcp:8010"), with_room("tcp:8010:backlog=5")
    ('tcp:8010:backlog=1024', 'tcp:8010:backlog=5')
    """
    try:
        arguments, named = parsed_endpoint(description)
    except RuntimeError:  # a backslash at its end
        return description
    kind, *values = arguments or [""]
    if kind not in (*_DIRECT, "unix") or len(values) > 1 or "backlog" in named:
        return description
    return f"{description}:backlog={BACKLOG}"


def is_own(host: str) -> bool:
    """
    Say whether a name or address means this machine, whoever asks.

    >>> is_own("127.0.0.1"), is_own("localhost"), is_own("ci.example.org")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
