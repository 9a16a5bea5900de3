"""The descriptions that are checked in are those of the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from buildapi.cli import main
from buildapi.docs.files import FILES

CHECKED_IN = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", FILES)
def test_what_is_checked_in_is_what_the_declarations_say(name: str) -> None:
    """Whoever changes a declaration runs scripts/docs, and sees in the diff what users will see."""
    assert (CHECKED_IN / name).read_text(encoding="utf-8") == FILES[name](), "run scripts/docs"


def test_no_other_file_is_there() -> None:
    """One that nobody makes any more would grow old."""
    assert {path.name for path in CHECKED_IN.iterdir()} == set(FILES)


def test_the_command_writes_all_of_them(tmp_path: Path) -> None:
    """Into a folder that need not be there."""
    folder = tmp_path / "new" / "reference"

    done = CliRunner().invoke(main, ["docs", str(folder)])

    assert done.output.splitlines() == [str(folder / name) for name in FILES]
    for name in FILES:
        assert (folder / name).read_bytes() == (CHECKED_IN / name).read_bytes()
