"""What a person who writes settings may rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from buildapi.errors import BadSettings
from buildapi.settings import Database, Settings, declarations, load

TomlFile = Callable[[str], Path]


@pytest.fixture
def toml(tmp_path: Path) -> TomlFile:
    """Write a settings file and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "buildapi.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(
    config: Path | None = None,
    environ: dict[str, str] | None = None,
    options: dict[str, object] | None = None,
) -> str:
    """Return the sentence with which settings are refused."""
    with pytest.raises(BadSettings) as caught:
        load(config, environ or {}, options or {})
    return caught.value.sentence


def test_nothing_need_be_set() -> None:
    """Every setting has a default, and the defaults are what a hand-made Settings has."""
    assert load(None, {}, {}) == Settings()


@pytest.mark.parametrize("name", declarations())
def test_every_setting_says_what_it_is_for(name: str) -> None:
    """A sentence each; it is the help text and the documentation."""
    doc = declarations()[name].doc

    assert doc.endswith(".")
    assert doc[0].isupper()


def test_every_default_is_a_value_that_may_be_written() -> None:
    """Limits and defaults agree, and each default can be said in the environment."""
    environ = {
        one.variable: str(one.default or (0 if one.default is False else ""))
        for one in declarations().values()
    }

    assert load(None, environ, {}) == Settings()


def test_a_file_is_overruled_by_the_environment_and_that_by_an_option(toml: TomlFile) -> None:
    """Each place adds to the ones before it, setting by setting."""
    path = toml(
        """
        [server]
        master = "from-file"
        listen = "tcp:1"
        access_log = true
        """
    )
    environ = {"BUILDAPI_SERVER_MASTER": "from-environment", "BUILDAPI_SERVER_LISTEN": "tcp:2"}

    settings = load(path, environ, {"server.listen": "tcp:3"})

    assert settings.server.access_log is True
    assert settings.server.master == "from-environment"
    assert settings.server.listen == "tcp:3"


def test_each_value_tells_where_it_came_from(toml: TomlFile) -> None:
    """A file by its path, the environment by the variable, an option by its name."""
    path = toml("[server]\naccess_log = true\n")
    environ = {"BUILDAPI_SERVER_MASTER": "m"}

    origins = load(path, environ, {"database.url": "sqlite://", "server.listen": None}).origins

    assert origins == {
        "server.access_log": str(path),
        "server.master": "BUILDAPI_SERVER_MASTER",
        "database.url": "option --db",
    }


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("BUILDAPI_DATABASE_READ_ONLY", "true", True),
        ("BUILDAPI_DATABASE_READ_ONLY", "0", False),
        ("BUILDAPI_DATABASE_READER_THREADS", "3", 3),
        ("BUILDAPI_DATABASE_BUSY_TIMEOUT_S", "0.5", 0.5),
        ("BUILDAPI_SERVER_ALLOWED_ORIGINS", "http://a, *.b.org", ("http://a", "*.b.org")),
        ("BUILDAPI_SERVER_ALLOWED_ORIGINS", "", ()),
        ("BUILDAPI_SERVER_LISTEN", "", None),
        ("BUILDAPI_SERVER_BASE_URL", "https://ci.example.org/x", "https://ci.example.org/x/"),
    ],
)
def test_the_environment_is_text_and_becomes_the_type(
    variable: str, text: str, value: object
) -> None:
    """Numbers, truth values, lists separated by commas, and the empty text for "none"."""
    section, name = variable.removeprefix("BUILDAPI_").lower().split("_", 1)

    assert getattr(getattr(load(None, {variable: text}, {}), section), name) == value


def test_a_file_says_what_type_it_means(toml: TomlFile) -> None:
    """A number in quotes is a mistake there, as TOML has numbers."""
    path = toml('[database]\nreader_threads = "2"\n')

    assert refused(path) == (
        f'database.reader_threads cannot be "2" (from {path}): it should be a valid integer'
    )


def test_a_value_beyond_its_limits_is_refused_with_both() -> None:
    """The sentence has the value, where it stands, and what would be right."""
    assert refused(environ={"BUILDAPI_DATABASE_READER_THREADS": "0"}) == (
        'database.reader_threads cannot be "0" (from BUILDAPI_DATABASE_READER_THREADS): '
        "it should be greater than or equal to 1"
    )


@pytest.mark.parametrize("endless", ["inf", "nan", "-1"])
def test_a_span_of_time_is_finite(endless: str) -> None:
    """Nobody can wait for longer than for ever, or for less than nothing."""
    assert "it should be" in refused(environ={"BUILDAPI_SERVER_STOP_DEADLINE_S": endless})


def test_a_wrong_database_url_is_not_repeated() -> None:
    """It may hold a password, and errors end in logs."""
    sentence = refused(options={"database.url": "postgresql:/user:secret@host/db"})

    assert "secret" not in sentence
    assert "option --db" in sentence
    assert "sqlite:////srv/ci/state.sqlite" in sentence


def test_an_unknown_setting_is_refused_with_the_nearest_one(toml: TomlFile) -> None:
    """A slip of the finger must not be a setting that silently does nothing."""
    path = toml('[database]\nulr = "sqlite://"\n')

    assert refused(path) == (
        f"{path} sets database.ulr, which is no setting; did you mean database.url?"
    )
    assert "did you mean server.listen?" in refused(environ={"BUILDAPI_SERVER_LISTENS": "tcp:1"})


@pytest.mark.parametrize("text", ["[databse]\nurl = 'x'\n", "database = 3\n"])
def test_an_unknown_section_is_refused_with_those_there_are(toml: TomlFile, text: str) -> None:
    """Sections are few: the sentence names them all."""
    assert "there are server, database, events, control, limits" in refused(toml(text))


def test_variables_that_are_no_settings_are_left_alone() -> None:
    """Kubernetes makes some for every service, and its name may be ours."""
    environ = {"BUILDAPI_PORT": "tcp://10.0.0.1:8010", "BUILDAPI_SERVICE_HOST": "10.0.0.1"}

    assert load(None, environ, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "said"), [("[server\n", "is not a TOML file"), ("a = '\udcff'", "is not a TOML file")]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Syntax or bytes: the sentence names the file."""
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    assert refused(path).startswith(f"{path} {said}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Whoever names a file means it."""
    path = tmp_path / "missing.toml"

    assert refused(path) == f"cannot read {path}: No such file or directory"


def test_force_schedulers_are_tables_of_the_file(toml: TomlFile) -> None:
    """In order, each with what it does not say by default."""
    path = toml(
        """
        [[forcescheduler]]
        name = "force"
        builder_names = ["tests"]

        [[forcescheduler]]
        name = "release"
        builder_names = []
        """
    )

    assert [one.name for one in load(path, {}, {}).forcescheduler] == ["force", "release"]


def test_a_wrong_force_scheduler_is_refused_with_its_place(toml: TomlFile) -> None:
    """The sentence says which key of which table of which file."""
    path = toml("[[forcescheduler]]\nname = 3\nbuilder_names = []\n")

    sentence = refused(path)

    assert sentence.startswith("forcescheduler.0.name: ")
    assert sentence.endswith(f"(from {path})")


def test_a_master_may_make_its_settings_itself() -> None:
    """They are plain frozen values, and equal if they say the same."""
    settings = Settings(database=Database(url="sqlite://"))

    assert settings.database.reader_threads == Database().reader_threads
    assert settings == Settings(database=Database(url="sqlite://"))
