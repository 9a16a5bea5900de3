"""
How many files a process may open: each connection is one, and so is much else.

Who is beyond that limit of the system is cut off before anybody could tell him why.
"""

from __future__ import annotations

import resource

from buildapi.settings import Limits

# What a server opens besides connections that stay: its databases, its logs, requests under way.
OTHERS = 200


def raise_limit() -> None:
    """Let this process open as many files as it may without asking anybody."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):  # some systems call it unlimited, and refuse that all the same
        return


def shortage(limits: Limits) -> str | None:
    """Say what is wrong if this process may open too few files for its connections; or None."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= limits.connections + OTHERS:
        return None
    return (
        f"this process may open {files} files, too few for the {limits.connections} connections of "
        "limits.connections: raise the one (ulimit -n, LimitNOFILE=), or lower the other; clients "
        "that are too many would be cut off without a word"
    )
