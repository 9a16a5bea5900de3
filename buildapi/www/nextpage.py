"""The URL of the page that comes behind an answer, as it stands in ``Link`` and ``meta`` (pure)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from buildapi.data.fetch import Ask

# What may stand in a URL as it is (RFC 3986), the sign of what had to be quoted included.
_IN_URLS = "%:/?#[]@!$&'()*+,;="


def next_page(
    base: Callable[[Any], str], request: Any, path: bytes, ask: Ask, total: int
) -> bytes | None:
    """
    Return the URL of the next page; None if this is the last.

    base: gives the root of our URLs as the client of a request knows it, with its slash.  path:
    below ``/api/v2/``, as it was asked for.  total: how many rows match.
    """
    page, query = ask.page, ask.query
    if page is None or query.offset + (query.limit or 0) >= total:
        return None
    return b"%b?%b" % (_address(base(request), path), page.following.encode())


# Few addresses are asked for, and to quote one takes as long as all the rest.
@lru_cache(maxsize=256)
def _address(base: str, path: bytes) -> bytes:
    # The root of the API has no element below it.
    below = b"" if path == b"/" else b"/" + path
    # Both come from the client, and must not end the <...> of a Link header.
    return quote(base.encode("latin-1", "replace") + b"api/v2" + below, safe=_IN_URLS).encode()
