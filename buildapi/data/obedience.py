"""
Who obeys control messages in this process.

A call that needs a master is accepted only if somebody here obeys the topic of its message.
"""

from __future__ import annotations

from collections.abc import Callable

from buildapi.errors import BadArgument
from buildapi.mq.bus import Bus
from buildapi.mq.event import CONTROL, Event
from buildapi.mq.listener import Listener
from buildapi.mq.topic import Pattern, matches, parse_pattern, split_topic

EVERYTHING = f"{CONTROL}.#"


class Obedience:
    """The handlers of control messages."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._handlers: list[tuple[Listener, Pattern]] = []

    def obey(self, callback: Callable[[Event], object], pattern: str) -> Listener:
        """
        Call back with the control messages that match.

        Raises BadQuery for a bad pattern, BadArgument for one that matches other events too.
        """
        parsed = parse_pattern(pattern)
        if parsed[0] != CONTROL:
            raise BadArgument(
                f"'{pattern}' is no pattern of control messages alone: it must begin with"
                f" '{CONTROL}.', as in '{CONTROL}.build.#'"
            )
        listener = self._bus.listen(pattern, callback)
        self._handlers = [one for one in self._handlers if not one[0].closed]
        self._handlers.append((listener, parsed))
        return listener

    def obeys(self, topic: str) -> bool:
        """Say whether somebody would get a message of this topic."""
        words = split_topic(topic)
        return any(
            not listener.closed and matches(pattern, words) for listener, pattern in self._handlers
        )
