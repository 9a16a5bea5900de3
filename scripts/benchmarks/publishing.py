"""
How many events a bus publishes in a second of processor time, in this process.

``python -m benchmarks.publishing EVENTS``: prints one line of JSON, events/s by title. The events
are those of builds as they run: most are appends to logs, and each has slash keys. With "no name
twice" nothing that was remembered of an earlier event can help.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

from buildapi.mq.bus import Bus
from buildapi.mq.event import Event

# As many as commit together when twenty builds run.
BATCH = 20
APPENDS = 30
MOST = 1_000
BODY = b'{"complete":false,"logid":1,"name":"stdio","num_lines":12,"slug":"stdio","type":"s"}'
SUBSCRIBERS = (1, 100, MOST)


def events(appends: int) -> Iterator[Event]:
    """Make events of one build after the other, without end; each appends so often to its log."""
    seq = 0
    for build in range(1, sys.maxsize):
        log, step = build + 7_000, build + 9_000
        names = [
            (f"build.{build}.new", (f"builders/3/builds/{build}/new", f"builds/{build}/new")),
            (
                f"build.{build}.step.0.new",
                (f"builds/{build}/steps/{step}/new", f"steps/{step}/new"),
            ),
            *[
                (
                    f"build.{build}.step.0.log.{log}.append",
                    (f"logs/{log}/append", f"steps/{step}/logs/stdio/append"),
                )
            ]
            * appends,
        ]
        for topic, keys in names:
            seq += 1
            yield Event(seq, topic, 0.0, keys, BODY)


def nothing(bus: Bus, number: int) -> None:
    """Subscribe to things that do not happen: by dotted patterns, and by slash keys."""
    for other in range(10**6, 10**6 + number // 2):
        bus.listen(f"build.{other}.#", _hear)
        bus.listen_keys(f"logs/{other}/append", _hear_key)


def everything(bus: Bus, number: int) -> None:
    """Listen to all that happens."""
    for _ in range(number):
        bus.listen("build.#", _hear)


def _hear(event: Event) -> None:
    pass


def _hear_key(key: str, event: Event) -> None:
    pass


def published(
    subscribe: Callable[[Bus, int], None], subscribers: int, number: int, appends: int = APPENDS
) -> float:
    """Return the events per second of processor time."""
    bus = Bus()
    subscribe(bus, subscribers)
    made = events(appends)
    batches = [list(islice(made, BATCH)) for _ in range(max(1, number // BATCH))]
    began = time.process_time()
    for batch in batches:
        bus.publish(batch)
    return bus.published / (time.process_time() - began)


def main(number: int) -> None:
    """Measure all."""
    found = {}
    for subscribers in SUBSCRIBERS:
        found[f"{subscribers:,} not matching"] = published(nothing, subscribers, number)
        found[f"{subscribers:,} matching"] = published(
            everything, subscribers, number // subscribers
        )
    found[f"{MOST:,} not matching, no name twice"] = published(nothing, MOST, number, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
