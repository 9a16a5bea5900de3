"""
Every setting: its default, its limits, and what it is for.

Where several places set one, the later of these counts: the default, the TOML file, the
environment (``BUILDAPI_<SECTION>_<NAME>``; lists separated by commas), an option.

    [database]                                         # a TOML file
    url = "sqlite:////srv/ci/state.sqlite"

    BUILDAPI_DATABASE_URL=sqlite:////srv/ci/state.sqlite
    buildapi serve --db sqlite:////srv/ci/state.sqlite

A master that embeds buildapi may also write ``Settings(database=Database(url=...))``.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import sqlalchemy as sa
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from buildapi.data.forcefields import ForceScheduler, force_schedulers
from buildapi.errors import BadSettings

T = TypeVar("T")

PREFIX = "BUILDAPI_"


def setting(default: T, doc: str, *, option: str | None = None) -> T:
    """Declare a setting: its default, what it is for, and the option that sets it, if one does."""
    return field(default=default, metadata={"doc": doc, "option": option})


def _database_url(text: str) -> str:
    try:
        sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("it should be a URL, such as sqlite:////srv/ci/state.sqlite") from None
    return text


def _base_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("it should begin with http:// or https://")
    return text if text.endswith("/") else f"{text}/"


def _none_if_empty(value: object) -> object:
    # Neither TOML nor the environment has a null.
    return None if value == "" else value


Count = Annotated[int, Field(ge=1)]
Span = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Interval = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str | None, BeforeValidator(_none_if_empty)]
URL = Annotated[str, AfterValidator(_base_url)]


@dataclass(frozen=True)
class Server:
    """Where the server listens, and who it is."""

    listen: Text = setting(
        "tcp:8010:interface=127.0.0.1",
        "Where to listen, as a Twisted endpoint: tcp:8010:interface=127.0.0.1, unix:/run/buildapi. "
        "Empty: nowhere.",
        option="--listen",
    )
    base_url: Annotated[URL | None, BeforeValidator(_none_if_empty)] = setting(
        None,
        "The address people know this server by, where a proxy makes it another than they ask.",
    )
    master: Text = setting(
        None,
        "Name of the master that this process is, such as ci.example.org:/srv/ci. Empty: none.",
        option="--master",
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "Origins of other sites whose pages may ask this server, with * as a wildcard: "
        "https://*.example.org. Empty: none.",
    )
    access_log: bool = setting(False, "Log a line for every request.")
    deflate: bool = setting(
        False,
        "Compress what WebSockets are told, where the client offers it (permessage-deflate); all "
        "browsers do. Good for slow networks; on others it costs more time than it saves, as to "
        "compress an event takes longer than to tell it to ten clients.",
    )
    stop_deadline_s: Span = setting(
        10.0, "Seconds that accepted work may still take when the server is stopped."
    )


@dataclass(frozen=True)
class Database:
    """Where the data is, and how it is read and written."""

    url: Annotated[str, AfterValidator(_database_url)] = setting(
        "sqlite:///buildapi.sqlite",
        "SQLAlchemy URL of the database: four slashes begin an absolute path.",
        option="--db",
    )
    read_only: bool = setting(
        False,
        "Change no byte of the database.",
        option="--read-only",
    )
    inline_reads: bool = setting(
        True, "Make small reads without a thread: quicker, if the disk is not a slow one."
    )
    quick_threads: Count = setting(
        2, "Threads for small reads, where the reactor's is not for them: on a database server."
    )
    reader_threads: Count = setting(2, "Threads for long lists and all that is not small.")
    log_threads: Count = setting(2, "Threads that read the contents of logs.")
    statement_timeout_s: Span = setting(
        30.0, "Seconds that the database may take for one read; what takes longer is refused."
    )
    busy_timeout_s: Span = setting(
        5.0, "Seconds to wait for a lock that another process holds on the database."
    )
    max_queued_writes: Count = setting(
        10_000, "Writes that may wait; those who bring more are told to come later."
    )
    foreign_writer: bool = setting(
        False,
        "Another program, such as a Buildbot master, writes this database too: its changes are "
        "read, and the event log, which cannot have them, is not offered.",
    )


@dataclass(frozen=True)
class Events:
    """How long the event log remembers, and what it still tells."""

    keep_days: Span = setting(7.0, "Days after which events are forgotten.")
    keep_count: Count = setting(1_000_000, "Events that are kept at most.")
    control_ttl_s: Span = setting(
        60.0,
        "Seconds after which a control message is told to nobody who reads the event log: what was "
        "asked for then is not wanted now.",
    )
    poll_interval_s: Interval = setting(
        0.5, "Seconds between two looks at the log that another process writes, with read_only."
    )


@dataclass(frozen=True)
class Control:
    """What is remembered of control calls."""

    key_characters: Count = setting(255, "Length of the longest Idempotency-Key that is taken.")
    keep_keys_hours: Span = setting(
        24.0, "Hours for which a call with the same Idempotency-Key is answered as the first was."
    )
    keep_keys_count: Count = setting(100_000, "Idempotency-Keys that are kept at most.")
    keep_audit_days: Span = setting(90.0, "Days after which the audit forgets a control call.")
    keep_audit_count: Count = setting(100_000, "Control calls that the audit keeps at most.")
    audit_characters: Count = setting(
        4_096, "Characters that the audit keeps of a call's parameters, and as many of its answer."
    )
    audit_refused_per_minute: Count = setting(
        600,
        "Refused calls that the audit records in a minute: who is not let in must not be able to "
        "flood it, or the disk. More are only told of in the log.",
    )
    audit_page: Count = setting(1_000, "Control calls that one page of the audit has at most.")


@dataclass(frozen=True)
class Limits:
    """What one client may cost."""

    rows: Annotated[int, Field(ge=0)] = setting(
        10_000, "Rows of a list for a client that gives no limit; meta.next leads on. 0: all."
    )
    answer_bytes: Count = setting(
        1_073_741_824,
        "Size of the largest list, and of a log's contents as JSON; who wants more asks with limit "
        "and offset.",
    )
    answer_memory_bytes: Count = setting(
        1_048_576, "Size above which a list waits for its client in a temporary file (TMPDIR)."
    )
    kept_bytes: Annotated[int, Field(ge=0)] = setting(
        16_777_216,
        "Memory for lists that are answered again as they are, as long as nothing they show has "
        "changed, in bytes. 0: none.",
    )
    request_bytes: Count = setting(1_048_576, "Size of the largest request body that is read.")
    frame_bytes: Count = setting(
        65_536, "Size of the largest WebSocket message that is read, after decompression."
    )
    deflate_window_bits: Annotated[int, Field(ge=9, le=15)] = setting(
        12,
        "Size of the windows of server.deflate: so many bits, so 4 kB with 12. A larger one "
        "compresses better, and takes more time and memory.",
    )
    watches: Count = setting(100, "Queries that one WebSocket can watch.")
    watch_rows: Count = setting(10_000, "Rows of one watched query.")
    watch_bytes: Count = setting(4_194_304, "Bytes of the rows of one watched query.")
    waiting: Count = setting(1_000, "Requests that may wait for an outcome at once.")
    wait_s: Span = setting(60.0, "Seconds that a request may wait for an outcome.")
    subscription_messages: Count = setting(
        10_000, "Messages that may wait for a client that reads slowly."
    )
    subscription_bytes: Count = setting(
        8_388_608,
        "Memory that messages may take that wait for a client that reads slowly, in bytes.",
    )
    events: Count = setting(
        10_000,
        "Events of the log that one answer of /api/v2/events looks at, so also the most it has; "
        "meta.seq leads on.",
    )
    connections: Count = setting(
        10_000,
        "WebSockets, event streams and waiting requests that may be open at once; more are "
        "refused with 503.",
    )
    connections_per_client: Count = setting(
        2_000,
        "The same from one address; more are refused with 429. Behind a proxy all clients have the "
        "proxy's.",
    )
    subscriptions: Count = setting(1_000, "Subscriptions and streams of one connection.")
    heartbeat_s: Interval = setting(
        12.0,
        "Seconds between two signs of life on a connection that stays open: clients are promised "
        "one every 15, and the way to them may be slow.",
    )
    bookmark_s: Interval = setting(
        25.0,
        "Seconds between two bookmarks of a stream of events, or of a watch that is idle; clients "
        "are promised one every 30.",
    )
    followers: Count = setting(20_000, "Followers of logs that the server has at once.")
    follow_frame_bytes: Count = setting(
        131_072, "Size of the lines in one frame of a followed log; a longer line is one by itself."
    )
    follow_line_bytes: Count = setting(
        4_194_304,
        "Size of the longest line that a frame of a followed log may have. A longer one ends the "
        "stream with an error that names it; raw downloads, also those that follow, have it whole.",
    )
    follow_gather_ms: Span = setting(
        3.0,
        "Milliseconds for which lines of a busy log are gathered into one frame; the first line "
        "after a pause is sent at once. A log with many followers is gathered longer.",
    )
    grep_characters: Count = setting(1_000, "Length of the longest pattern to search logs for.")
    grep_memory_bytes: Annotated[int, Field(ge=65_536)] = setting(
        1_048_576, "Memory that a compiled pattern may take; a larger one is refused."
    )
    context_lines: Count = setting(100, "Lines that may be asked for around each match.")


@dataclass(frozen=True)
class Settings:
    """Every setting, by section, and the force schedulers: ``[[forcescheduler]]`` in the file."""

    server: Server = Server()
    database: Database = Database()
    events: Events = Events()
    control: Control = Control()
    limits: Limits = Limits()
    forcescheduler: tuple[ForceScheduler, ...] = ()
    # Dotted name -> where the value comes from; what is not named here has its default.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


SECTIONS: Mapping[str, type] = {
    f.name: type(f.default) for f in fields(Settings) if is_dataclass(f.default)
}


@dataclass(frozen=True)
class Declaration:
    """
    One setting, as the sections above declare it.

    type: what pydantic checks a value against.  option: the option of ``buildapi serve``, if any.
    """

    section: str
    name: str
    type: Any
    default: object
    doc: str
    option: str | None

    @property
    def dotted(self) -> str:
        """Section and name: ``database.url``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The variable of the environment that sets it."""
        return f"{PREFIX}{self.section}_{self.name}".upper()


@cache
def declarations() -> Mapping[str, Declaration]:
    """Every setting by its dotted name, in order."""
    found = [
        Declaration(section, f.name, hints[f.name], f.default, **f.metadata)
        for section, kind in SECTIONS.items()
        for hints in [get_type_hints(kind, include_extras=True)]
        for f in fields(kind)
    ]
    return {declaration.dotted: declaration for declaration in found}


def load(
    config: Path | None, environ: Mapping[str, str], options: Mapping[str, object]
) -> Settings:
    """
    Return the settings that a file, the environment and options make together.

    options: by dotted name; None where the option was not given.
    Raises BadSettings: one sentence on the first thing that is wrong, and where it stands.
    """
    file = _read(config) if config else {}
    schedulers = _schedulers(file.pop("forcescheduler", []), config)
    found = (*_from_file(file, config), *_from_environment(environ), *_from_options(options))
    given = {one.dotted: one for one in found}
    values: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for one in given.values():
        section, name = one.dotted.split(".", 1)
        values[section][name] = one.checked()
    return Settings(
        **{section: kind(**values[section]) for section, kind in SECTIONS.items()},
        forcescheduler=schedulers,
        origins={one.dotted: one.origin for one in given.values()},
    )


@dataclass(frozen=True)
class _Given:
    """A value that somebody wrote.  loose: it is text, whatever the type of the setting."""

    dotted: str
    value: object
    origin: str
    loose: bool = False

    def __post_init__(self) -> None:
        if self.dotted in declarations():
            return
        near = difflib.get_close_matches(self.dotted, declarations(), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise BadSettings(f"{self.origin} sets {self.dotted}, which is no setting{meant}")

    def checked(self) -> object:
        """Return the value as its setting's type, or raise BadSettings."""
        kind = declarations()[self.dotted].type
        value = _tuple(self.value) if get_origin(kind) is tuple else self.value
        try:
            return TypeAdapter(kind).validate_python(value, strict=not self.loose)
        except ValidationError as error:
            raise BadSettings(self._sentence(error)) from None

    def _sentence(self, error: ValidationError) -> str:
        message = error.errors(include_url=False)[0]["msg"]
        should = message.removeprefix("Value error, ").replace("Input should", "it should")
        # A database's URL may hold a password.
        hidden = self.dotted == "database.url"
        shown = "what it is" if hidden else json.dumps(self.value, default=str)
        return f"{self.dotted} cannot be {shown} (from {self.origin}): {should}"


def _tuple(value: object) -> object:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    return tuple(value) if isinstance(value, list) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise BadSettings(f"{path} is not a TOML file: {error}") from None


def _schedulers(tables: object, path: Path | None) -> tuple[ForceScheduler, ...]:
    try:
        return force_schedulers(tables)
    except BadSettings as error:
        raise BadSettings(f"{error} (from {path})") from None


def _from_file(content: Mapping[str, object], path: Path | None) -> Iterator[_Given]:
    for section, values in content.items():
        if section not in SECTIONS or not isinstance(values, dict):
            there = ", ".join((*SECTIONS, "[forcescheduler]"))
            raise BadSettings(f"{path}: {section} is no section; there are {there}")
        for name, value in values.items():
            yield _Given(f"{section}.{name}", value, str(path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for variable, value in environ.items():
        section, _, name = variable.removeprefix(PREFIX).lower().partition("_")
        # Others begin with BUILDAPI_ too: Kubernetes makes BUILDAPI_PORT for a service "buildapi".
        if variable.startswith(PREFIX) and section in SECTIONS:
            yield _Given(f"{section}.{name}", value, variable, loose=True)


def _from_options(options: Mapping[str, object]) -> Iterator[_Given]:
    for dotted, value in options.items():
        if value is not None:
            yield _Given(dotted, value, f"option {declarations()[dotted].option}")
