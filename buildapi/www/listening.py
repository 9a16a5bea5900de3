"""Where a server listens, read from an endpoint's description."""

from __future__ import annotations

import ipaddress

from twisted.internet.endpoints import _parse as parsed_endpoint  # the only parser of descriptions


def is_loopback(description: str) -> bool:
    """
    Say whether an endpoint takes connections from this machine only.

    >>> is_loopback("tcp:8010:interface=127.0.0.1"), is_loopback("tcp:8010"), is_loopback("unix:/x")
    (True, False, True)
    """
    arguments, named = parsed_endpoint(description)
    if arguments[:1] == ["unix"]:
        return True
    interface = named.get("interface", "")
    if interface == "localhost":
        return True
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False
