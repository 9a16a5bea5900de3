"""The TOML file of contrib/localmaster."""

from pathlib import Path

import pytest

from buildapi.errors import BadSettings
from contrib.localmaster.config import load

WHOLE = """
[[builder]]
name = "docs"
description = "The manual"
tags = ["docs"]
workers = 2
env = {LANG = "C.UTF-8"}

  [[builder.step]]
  name = "html"
  command = "make html"
  env = {STRICT = "1"}
  warnings = "warning:"
  logs = {report = "build/report.txt"}
  urls = {manual = "https://docs.example.org/"}
  always = true

  [[builder.step]]
  name = "upload"
  command = ["rsync", "-a", "build/", "docs.example.org:"]

[[forcescheduler]]
name = "force"
builder_names = ["docs"]
fields = [{type = "text", name = "target", default = "all"}]

[[gitpoller]]
name = "commits"
repository = "../project"
branch = "main"
builder_names = ["docs"]
interval_s = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a bit of everything."""
    path = tmp_path / "master.toml"
    path.write_text(WHOLE)
    return path


def test_a_file_says_what_is_built(file: Path) -> None:
    """Builders, their steps and workers come out as they stand there."""
    (docs,) = load(file).builders

    assert (docs.name, docs.description, docs.tags) == ("docs", "The manual", ("docs",))
    assert docs.worker_names == ["docs-1", "docs-2"]
    assert docs.env == {"LANG": "C.UTF-8"}
    html = docs.steps[0]
    assert (html.name, html.env, html.always) == ("html", {"STRICT": "1"}, True)
    assert html.warnings is not None
    assert html.warnings.pattern == "warning:"
    assert html.logs == {"report": "build/report.txt"}
    assert html.urls == {"manual": "https://docs.example.org/"}


def test_a_file_says_when_it_is_built(file: Path) -> None:
    """A force scheduler is buildapi's own; a poller's repository is relative to the file."""
    config = load(file)

    assert [s.name for s in config.forceschedulers] == ["force"]
    assert config.forceschedulers[0].fields[0].name == "target"
    (poller,) = config.gitpollers
    assert poller.repository.resolve() == file.parent.parent / "project"
    assert (poller.branch, poller.interval_s) == ("main", 5)


def test_a_text_goes_to_the_shell_and_a_list_is_run_as_it_is(file: Path) -> None:
    """Both come out as a list of arguments."""
    html, upload = load(file).builders[0].steps

    assert html.command == ("/bin/sh", "-c", "make html")
    assert upload.command == ("rsync", "-a", "build/", "docs.example.org:")


@pytest.mark.parametrize(
    ("was", "is_now", "sentence"),
    [
        ("tags =", "tag =", "builder 'docs' tag: Unexpected keyword argument"),
        ('name = "docs"', 'name = "the docs"', "builder 'the docs' name: String should match"),
        ("workers = 2", "workers = 0", "builder 'docs' workers: Input should be greater"),
        ('"warning:"', '"("', "step 'html' warnings: Input should be a valid regular expression"),
        ('"make html"', "3", "step 'html' command: it should be a text for the shell, or a list"),
        ('"make html"', '["make", 3]', "it should be a text for the shell, or a list"),
        ('builder_names = ["docs"]', 'builder_names = ["dogs"]', "'dogs', which is no builder"),
        ('type = "text"', 'type = "txt"', "forcescheduler 'force' fields 'target'"),
        ("[[gitpoller]]", "[[gitpoler]]", "gitpoler: Unexpected keyword argument"),
        ("workers = 2", "workers = ", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    file: Path, was: str, is_now: str, sentence: str
) -> None:
    """The error is a sentence for the person who wrote the file."""
    file.write_text(WHOLE.replace(was, is_now))

    with pytest.raises(BadSettings) as error:
        load(file)
    assert error.value.sentence.startswith(str(file))
    assert sentence in error.value.sentence


def test_two_builders_need_two_names(file: Path) -> None:
    """Names are what everything else refers to."""
    file.write_text(WHOLE + WHOLE)

    with pytest.raises(BadSettings, match="two are called 'docs'"):
        load(file)


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    """A missing file is told in the same way as a wrong one."""
    with pytest.raises(BadSettings, match="No such file"):
        load(tmp_path / "none.toml")
