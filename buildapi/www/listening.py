"""Where a server listens, read from an endpoint's description."""

from __future__ import annotations

import ipaddress

from twisted.internet.endpoints import _parse as parsed_endpoint  # the only parser of descriptions

# Behind any other (haproxy, say) stands somebody who lets the whole world in.
_DIRECT = ("tcp", "tcp6", "ssl")


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
