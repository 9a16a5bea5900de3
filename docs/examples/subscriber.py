"""
Every event of a buildapi server, once and in order, whatever happens to the connection.

    python subscriber.py http://127.0.0.1:8010 'build.#' [since]

It needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

PAUSE_S = 0.5
# A comment comes every 15 seconds: after so much silence the connection is dead.
SILENCE_S = 60


def subscribed(
    server: str, topics: list[str], since: int | None = None, log: str | None = None
) -> Iterator[dict[str, Any]]:
    """
    Tell the events after a position, without one from now on; wait for more, forever.

    log: the X-Event-Log of the answer that ``since`` is from.  A dictionary with "gap" says that
    events are not coming: read again, by REST, what they were about.
    Raises HTTPError, with status 410 if the position is of another log.
    """
    position = since
    while True:
        try:
            for kind, data in _stream(server, topics, position, log):
                if kind == "event":
                    # All there is to it: what is not above the position has been told before.
                    if position is not None and data["seq"] <= position:
                        continue
                    position = data["seq"]
                    yield data
                elif kind == "gap":
                    position = data["gap"]["to"]
                    yield data
                else:
                    position = data.get("synced") or data.get("bookmark") or position
        except HTTPError as error:
            if error.code < 500:  # noqa: PLR2004  to ask again would not help
                raise
        except (OSError, HTTPException):
            pass
        time.sleep(PAUSE_S)


def _stream(
    server: str, topics: list[str], position: int | None, log: str | None
) -> Iterator[tuple[str, Any]]:
    """Yield kind and data of what one connection tells, until it ends."""
    query: dict[str, Any] = {"topic": topics}
    if position is not None:
        query["since"] = position
    if log is not None:
        query["log"] = log
    url = f"{server}/api/v2/events?{urlencode(query, doseq=True)}"
    asked = Request(url, headers={"Accept": "text/event-stream"})  # noqa: S310  the caller's
    with urlopen(asked, timeout=SILENCE_S) as answer:  # noqa: S310
        kind = ""
        for line in answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


if __name__ == "__main__":
    begin = int(sys.argv[3]) if len(sys.argv) > 3 else None  # noqa: PLR2004
    for told in subscribed(sys.argv[1], [sys.argv[2]], begin):
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()
