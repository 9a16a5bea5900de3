"""
Every error that buildapi raises on purpose.

    BuildAPIError                   what callers catch
    ├── BadRequest            400   the caller can mend it
    │   ├── BadQuery                an argument of a query
    │   ├── BadArgument             an argument of an update method
    │   └── FieldErrors             fields of a form; says which, and what is wrong with each
    ├── Forbidden             403   the gate says no
    ├── NotFound              404
    │   ├── NoSuchPath              no pattern matches
    │   └── NoSuchResource          the pattern matches, nothing is there
    ├── Gone                  410   a position of another event log, or one that is too old
    ├── Conflict              409   the state of things does not allow it
    │   ├── CorruptValue            what is stored cannot be what it should be
    │   │   └── CorruptChunk        a piece of a log cannot be read
    │   ├── NoEventLog              there are no positions here, so no streams of events
    │   ├── Missed                  events that a subscriber will not get
    │   └── Overflow                a subscriber was too slow and lost events
    ├── LineTooLong           413   a line of a log that does not fit into a frame
    ├── KeyReused             422   an Idempotency-Key that another call used already
    ├── TooMany               429   a client has as many of something as it may
    ├── NoSuchAction          501   the object has no such control method
    ├── Unavailable           503   try again later
    │   ├── TooSlow                 a read took longer than it may; ask for less
    │   ├── QueueFull               too many writes are waiting
    │   └── Stopping                the service is being stopped
    ├── CannotOpen            503   the database can't be used as it is
    ├── CannotCopy            409   another database can't have what is stored in this one
    └── BadSettings           500   a setting is wrong; raised at start only

The text of each is one sentence for the person who gets it: what is wrong, and what would be right.
"""

from collections.abc import Mapping


class BuildAPIError(Exception):
    """The root of all errors raised on purpose; ``status`` is the HTTP status it becomes."""

    status = 500

    @property
    def sentence(self) -> str:
        """The error in words."""
        return str(self)


class BadRequest(BuildAPIError):
    """The caller asked for something that cannot be meant."""

    status = 400


class BadQuery(BadRequest):
    """An argument of a query is wrong."""


class BadArgument(BadRequest):
    """An argument of an update method is wrong."""


class FieldErrors(BadRequest):
    """Fields of a form are wrong.  ``fields``: a sentence for each, by its full name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {sentence}" for name, sentence in fields.items()))
        self.fields = dict(fields)


class Forbidden(BuildAPIError):
    """The gate does not let this identity do that."""

    status = 403


class NotFound(BuildAPIError):
    """There is no such thing."""

    status = 404


class NoSuchPath(NotFound):
    """No pattern of the API matches the path."""


class NoSuchResource(NotFound):
    """A pattern matches, but nothing is there."""


class Conflict(BuildAPIError):
    """The present state does not allow it."""

    status = 409


class CorruptValue(Conflict):
    """
    What is stored is not what it should be, and nothing can be made of it.

    Not 404: it is there, and a client would wait for it to appear.  Not 503: to try again would not
    help.  Not 500: what stands in the database is no fault of the program.
    """


class CorruptChunk(CorruptValue):
    """A stored piece of a log cannot be read."""


class NoEventLog(Conflict):
    """Nobody can be told of events by their position: no log tells of every change."""

    def __init__(self) -> None:
        super().__init__(
            "there is no event log here: another program writes the database, or it is one of"
            " Buildbot's that was opened for reading only"
        )


class Overflow(Conflict):
    """
    A subscriber was too slow: ``from_seq`` to ``to_seq`` and all that follows will not reach it.

    The event log still has them.
    """

    def __init__(self, from_seq: int, to_seq: int) -> None:
        super().__init__(
            f"the subscriber was too slow: events {from_seq} to {to_seq} were dropped;"
            f" read on in the event log after {from_seq - 1}, then subscribe again"
        )
        self.from_seq = from_seq
        self.to_seq = to_seq


class Missed(Conflict):
    """
    The events ``first`` to ``last`` are not coming; what follows them is.

    why: "retention", as they have been forgotten, or "overflow", as the subscriber was too slow.
    """

    def __init__(self, first: int, last: int, why: str) -> None:
        super().__init__(f"events {first} to {last} are not coming ({why})")
        self.first = first
        self.last = last
        self.why = why


class Gone(BuildAPIError):
    """
    A position in the event log cannot be gone on from.

    log, oldest, newest: what this log is, and what it has.
    """

    status = 410

    def __init__(self, sentence: str, log: str, oldest: int, newest: int) -> None:
        super().__init__(sentence)
        self.log = log
        self.oldest = oldest
        self.newest = newest


class LineTooLong(BuildAPIError):
    """
    A line of a log is longer than what is told of one: the limit follow_line_bytes.

    logid, line: which it is.
    """

    status = 413

    def __init__(self, logid: int, line: int, longest: int) -> None:
        super().__init__(
            f"line {line} of log {logid} is longer than {longest} bytes (limits.follow_line_bytes):"
            f" logs/{logid}/raw has it whole; follow what comes after it with offset {line + 1}"
        )
        self.logid = logid
        self.line = line


class KeyReused(BuildAPIError):
    """The Idempotency-Key of this call was used for another one, which has been carried out."""

    status = 422


class TooMany(BuildAPIError):
    """One client has as many as the setting allows."""

    status = 429


class NoSuchAction(BuildAPIError):
    """The resource has no such control method."""

    status = 501


class Unavailable(BuildAPIError):
    """The database is busy, lost or full; nothing was half-written."""

    status = 503


class TooSlow(Unavailable):
    """The database took longer for a read than the setting allows."""


class QueueFull(Unavailable):
    """More writes are waiting than the setting allows."""


class Stopping(Unavailable):
    """The service is being stopped and takes no more work."""


class CannotOpen(BuildAPIError):
    """The database cannot be used as it is."""

    status = 503


class CannotCopy(BuildAPIError):
    """A database can't be copied: another system can't have one of its values."""

    status = 409


class BadSettings(BuildAPIError):
    """A setting is unknown or has a value that cannot be used."""
