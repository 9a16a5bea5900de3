"""
Subscribers that come, go, stall and resume, by three roads; they know nothing but the protocol.

Each keeps its history: every event with a ``seq`` above the last one it has, as the protocol says.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from soaking.visitor import Visitor, Wrong


class Client(Visitor):
    """
    One client.

    ``history``: events by seq, in the order in which they came.
    ``target``: the last seq that it should get, once that is known; the client ends there.
    """

    def __init__(self, port: int, topic: str, seed: int) -> None:
        super().__init__(port, seed)
        self.topic = topic
        self.history: dict[int, Any] = {}
        self.target: int | None = None
        self.last = self.repeated = 0
        self._previous = 0

    @property
    def done(self) -> bool:
        """Whether it has all that it should get."""
        return self.target is not None and self.last >= self.target

    @property
    def received(self) -> int:
        """How many events it has."""
        return len(self.history)

    def take(self, event: Any) -> None:
        """Take an event."""
        seq = event["seq"]
        if seq <= self._previous:
            raise Wrong(f"{seq} came after {self._previous} on one connection")
        self._previous = seq
        if seq > self.last:
            self.history[seq] = [event["topic"], event["at"], event["m"]]
            self.last = seq
        else:
            self.repeated += 1

    def since(self) -> int:
        """Return where to go on: mostly where it was, sometimes before."""
        if self.random.random() < 0.2:  # noqa: PLR2004
            self._previous = max(0, self.last - self.random.randint(1, 50))
        return self._previous


class WebSocketClient(Client):
    """``subscribe`` on ``/ws``."""

    road = "websocket"

    def session(self) -> None:
        """Subscribe and read frames."""
        self._previous = self.last
        command = {"cmd": "subscribe", "topic": self.topic, "since": self.since(), "_id": 1}
        for frame in self.frames(command):
            if "topic" in frame:
                self.take(frame)
            elif "gap" in frame or "error" in frame:
                raise Wrong(str(frame))


class EventSource(Client):
    """``GET /api/v2/events`` as server-sent events."""

    road = "eventstream"

    def session(self) -> None:
        """Resume by Last-Event-ID and read blocks."""
        self._previous = self.last
        since = self.since()
        for fields in self.blocks(f"events?topic={quote(self.topic)}", str(since)):
            if fields.get("event") == "event":
                event = json.loads(fields["data"])
                if int(fields["id"]) != event["seq"]:
                    raise Wrong(f"the id of {event['seq']} is {fields['id']}")
                self.take(event)
            elif fields.get("event") == "gap":
                raise Wrong(str(fields))


class LongPoll(Client):
    """``GET /api/v2/events?wait=…``, one connection for many answers."""

    road = "longpoll"

    def session(self) -> None:
        """Ask for what follows; sometimes go away before the answer."""
        self._previous = self.last
        position = self.since()
        with self.connected() as connection:
            for _ in self.moments():
                limit = self.random.choice((1, 10, 1000))
                topic = quote(self.topic)
                self.ask(connection, f"events?topic={topic}&after={position}&wait=1&limit={limit}")
                if self.random.random() < 0.05:  # noqa: PLR2004
                    return
                answer = self.answer(connection)
                for event in answer["events"]:
                    self.take(event)
                position = answer["meta"]["seq"]


ROADS: tuple[type[Client], ...] = (WebSocketClient, EventSource, LongPoll)
TOPICS = ("#", "build.*.step.#", "build.#", "#.finished")


def pattern(topic: str) -> re.Pattern[str]:
    """Return what a topic pattern matches: ``*`` one word, ``#`` any number of words."""
    words = {"*": r"\.[^.]+", "#": r"(\.[^.]+)*"}
    parts = (words.get(word, rf"\.{re.escape(word)}") for word in topic.split("."))
    return re.compile("".join(parts))


def matches(topic: str, name: str) -> bool:
    """Say whether an event of this name belongs to a topic pattern."""
    return pattern(topic).fullmatch(f".{name}") is not None
