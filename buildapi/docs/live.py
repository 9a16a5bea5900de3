"""What the live roads take: arguments of GETs that wait or go on, commands of the WebSocket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Argument:
    """One argument.  kind: what it takes; "texts" can be repeated, in a command it is a list."""

    name: str
    kind: Literal["text", "texts", "integer", "seconds", "id", "object"]
    doc: str


@dataclass(frozen=True)
class Command:
    """A command of the WebSocket, with the arguments that it may have besides cmd and _id."""

    doc: str
    arguments: tuple[Argument, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments."""
        return tuple(one.name for one in self.arguments)


_SINCE = Argument("since", "integer", "The position to go on from: all events up to it are known.")
_LOG = Argument("log", "text", "The log that the position is of; one of another log is 410.")
_SLOW = Argument(
    "slow",
    "text",
    "What is done for a client that reads slowly: resume (the default), latest or close.",
)
_GREP = Argument("grep", "text", "Only lines in which this regular expression is found (RE2).")
_CONTEXT = Argument("context", "integer", "So many lines before and after each of those, too.")
_STREAMS = Argument("streams", "text", "Only lines of these streams: o, e, h, or several.")
_FIRST = "The first line, from 0; if negative, so many from the end at that moment."
_PATH = Argument("path", "text", "The path of a GET, with its query.")

# GET .../contents and .../raw of a log.
FOLLOWED = (
    Argument(
        "follow",
        "text",
        "1: go on with what is written, until the log is complete; contents only with"
        " `Accept: text/event-stream`.",
    ),
    Argument(
        "wait",
        "seconds",
        "Answer as soon as there are lines, at the latest after so many seconds, at most 60, with"
        " an empty content; not with follow, nor for raw.",
    ),
    _GREP,
    _CONTEXT,
    _STREAMS,
)
# GET of one object that can be complete.
OUTCOME = (
    Argument("until", "text", "complete: answer as soon as the object is."),
    Argument(
        "wait", "seconds", "Answer after so many seconds at the latest, with the state of then."
    ),
)
# GET /api/v2/events.
EVENTS = (
    Argument("topic", "texts", "Patterns of topics: * is one word, # any number of words."),
    _SINCE,
    Argument("after", "integer", "Another name of since."),
    _LOG,
    Argument("limit", "integer", "Most events of an answer that is no stream; 1,000 by default."),
    Argument(
        "wait",
        "seconds",
        "Wait so long for an event if there is none yet, at most 60; of an answer that is no"
        " stream.",
    ),
)
COMMANDS: Mapping[str, Command] = {
    "ping": Command("Answers pong."),
    "hello": Command("Who the server is, which log it has and how far, and its limits."),
    "subscribe": Command(
        "Events that match, from a position or from now on.",
        (
            Argument("topic", "text", "A pattern of topics: * is one word, # any number of words."),
            Argument("topics", "texts", "Several of them, instead of topic."),
            _SINCE,
            _LOG,
            _SLOW,
        ),
    ),
    "startConsuming": Command(
        "Events that match, from now on, as Buildbot tells them.",
        (Argument("path", "text", "A pattern: dotted, or one of slash keys."),),
    ),
    "stopConsuming": Command(
        "Ends that.", (Argument("path", "text", "The pattern that it was begun with."),)
    ),
    "followLog": Command(
        "The lines of a log, as they are written; it need not be there yet.",
        (
            Argument("logid", "integer", "The log."),
            Argument("path", "text", "Its path, instead of logid."),
            Argument("offset", "integer", _FIRST),
            _GREP,
            _CONTEXT,
            _STREAMS,
        ),
    ),
    "watch": Command("The rows of a GET, and then how they change.", (_PATH, _SLOW)),
    "follow": Command(
        "All logs of a step, a build or a build set as one stream, with what begins and ends.",
        (
            Argument("path", "text", "The path of the step, build or build set."),
            Argument("offset", "integer", _FIRST),
            Argument("offsets", "object", "To go on: by log id the next line of it."),
            _GREP,
            _CONTEXT,
            _STREAMS,
        ),
    ),
    "unsubscribe": Command(
        "Ends a stream.", (Argument("sub", "id", "The _id of the command that began it."),)
    ),
}


_INTRODUCTION = (
    "This page is made of the declarations in the code by `scripts/docs`. What subscribers can rely"
    " on, and the frames that they get, stands in [streams.md](../streams.md)."
)
_BESIDE = (
    "Beside `offset` (lines; negative: from the end) and what every GET takes. The stream of"
    " server-sent events is resumed by `Last-Event-ID`, the next line."
)


def text() -> str:
    """Return the page about them."""
    parts = [
        "# Live roads",
        _INTRODUCTION,
        "## GET /api/v2/events",
        (
            "Events after a position: server-sent events with `Accept: text/event-stream` (which"
            " `Last-Event-ID` resumes), else one answer."
        ),
        *_table(EVENTS),
        "## GET …/contents and …/raw of a log",
        _BESIDE,
        *_table(FOLLOWED),
        "## GET of one object",
        "Of a type with the field `complete`: builds, steps, logs, build requests, build sets.",
        *_table(OUTCOME),
        "## Commands of the WebSocket /ws",
        'A frame is `{"cmd": …, "_id": …, …}`; its reply has the same `_id`.',
    ]
    for name, command in COMMANDS.items():
        parts += [f"### {name}", command.doc, *_table(command.arguments)]
    return "\n\n".join(parts) + "\n"


def _table(arguments: Iterable[Argument]) -> Iterator[str]:
    rows = [f"| `{one.name}` | {one.kind} | {one.doc} |" for one in arguments]
    if rows:
        yield "\n".join(["| argument | takes | what it says |", "| --- | --- | --- |", *rows])
