"""What the ``buildapi`` command promises to those who type it."""

from __future__ import annotations

import importlib.metadata
import sqlite3
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from buildapi.cli import main
from buildapi.settings import load

SCHEDULER = """
[[forcescheduler]]
name = "force"
builder_names = ["tests \\u007f ü"]
fields = [{type = "text", name = "target", regex = "^[a-z]+$"}]
"""


def buildapi(*arguments: object, **environment: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(one) for one in arguments], env=environment)


def test_it_says_its_version() -> None:
    """The version is that of the installed package."""
    assert buildapi("--version").output == f"buildapi {importlib.metadata.version('buildapi')}\n"


def test_config_prints_each_setting_and_where_it_comes_from(tmp_path: Path) -> None:
    """Defaults, file, environment and options, one line each."""
    path = tmp_path / "buildapi.toml"
    path.write_text("[events]\nkeep_days = 3.0\n")

    done = buildapi(
        "config", "--config", path, "--read-only", BUILDAPI_SERVER_MASTER="ci.example.org:/srv/ci"
    )

    assert done.exit_code == 0
    assert {
        f"keep_days = 3.0  # {path}",
        'master = "ci.example.org:/srv/ci"  # BUILDAPI_SERVER_MASTER',
        "read_only = true  # option --read-only",
        "keep_count = 1000000  # default",
    } <= set(done.output.splitlines())


def test_what_config_prints_is_a_file_with_the_same_settings(tmp_path: Path) -> None:
    """A person can save it and go on from there."""
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"
    before.write_text(SCHEDULER)

    after.write_text(buildapi("config", "--config", before, "--master", 'a "b"').output)

    assert load(after, {}, {}) == load(before, {}, {"server.master": 'a "b"'})


@pytest.mark.parametrize(
    "url",
    ["postgresql://ci:geheim@db/ci", "postgresql://db/ci?password=geheim&sslpassword=geheim"],
)
def test_config_shows_no_password(url: str) -> None:
    """It is what people paste into a report."""
    done = buildapi("config", BUILDAPI_DATABASE_URL=url)

    assert "geheim" not in done.output
    assert tomllib.loads(done.output)["database"]["url"].startswith("postgresql://")


def test_a_wrong_setting_is_one_sentence_and_status_1() -> None:
    """No traceback, nothing on the standard output."""
    done = buildapi("config", BUILDAPI_DATABASE_READER_THREADS="0")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == (
        'Error: database.reader_threads cannot be "0" (from BUILDAPI_DATABASE_READER_THREADS): '
        "it should be greater than or equal to 1\n"
    )


def test_an_operator_adds_indexes_to_a_database(tmp_path: Path) -> None:
    """What there is no database for is one sentence and status 1."""
    missing = tmp_path / "missing.sqlite"

    done = buildapi("db", "add-indexes", "--db", f"sqlite:///{missing}")

    assert done.exit_code == 1
    assert done.stderr == f"Error: there is no database {missing}\n"


def test_an_operator_is_told_how_far_a_backup_is(tmp_path: Path) -> None:
    """On the standard error; the last line, on the standard output, is what there is now."""
    connection = sqlite3.connect(tmp_path / "state.sqlite")
    connection.execute("CREATE TABLE builds (id INTEGER)")
    connection.close()

    done = buildapi("db", "backup", tmp_path / "copy", "--db", f"sqlite:///{tmp_path}/state.sqlite")

    assert done.exit_code == 0
    assert done.stderr == "100 %\n"
    assert done.stdout == f"{tmp_path / 'copy'}: 8192 bytes, checked\n"
    again = buildapi(
        "db", "backup", tmp_path / "copy", "--db", f"sqlite:///{tmp_path}/state.sqlite"
    )
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == (
        f"Error: {tmp_path / 'copy'} is there already; a backup overwrites nothing\n"
    )


def test_an_operator_begins_a_log_anew(tmp_path: Path) -> None:
    """What has no log is one sentence and status 1."""
    done = buildapi("db", "new-log", "--db", f"sqlite:///{tmp_path}/missing.sqlite")

    assert done.exit_code == 1
    assert done.stderr == f"Error: there is no database {tmp_path / 'missing.sqlite'}\n"
