"""Requests that the OpenAPI document describes, and some that it excludes: both get its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from test.fuzz.conftest import Limits, Target

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
# A status that is not in the document is none of ours: 500, for one.
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"


def test_the_server_answers_as_it_is_described(sample: Target, limits: Limits) -> None:
    """Statuses, content types, and every field of every answer, as schemathesis checks them."""
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis as run; run()",
        "run",
    ]
    options = {
        "--url": f"http://127.0.0.1:{sample.port}",
        "--phases": "fuzzing",
        "--checks": CHECKS,
        "--seed": str(limits.seed),
        "--max-examples": str(max(1, limits.examples // 1000)),
        "--request-timeout": str(limits.patience_s),
    }
    given = [word for option in options.items() for word in option]

    done = subprocess.run(
        [*command, str(DOCUMENT), *given, "--no-color"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    paths = json.loads(DOCUMENT.read_bytes())["paths"].values()
    assert f"Tested: {sum(len(path.keys() & {'get', 'post'}) for path in paths)}" in done.stdout
    assert sample.complaint() == ""
