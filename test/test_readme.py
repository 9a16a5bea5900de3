"""The README's examples do what it says, in the order in which it says it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from buildapi.mq.event import Event
from buildapi.testing import (
    WebClient,
    WebSocketClient,
    Wire,
    a_build,
    a_log,
    in_memory_api,
    result_of,
)

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def example(heading: str, language: str) -> str:
    """Return the first block of a language below a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} below {heading}"
    return found[1]


def undated(answer: str) -> Any:
    """Return the JSON of an answer, without the moments of calls."""
    found = json.loads(answer)
    for call in found.get("calls", ()):
        assert call.pop("at") > 0
    return found


@pytest.fixture
def embedded(tmp_path: Path) -> str:
    """Run the embedding example in an empty folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example("Embed it", "python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_embedding_example_prints_what_is_said(embedded: str) -> None:
    """It can be pasted into a file and run."""
    assert embedded == example("Embed it", "text")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.usefixtures("embedded")
def test_the_curl_transcripts_are_what_the_server_answers(tmp_path: Path) -> None:
    """The database of the embedding example, served and asked as the README does."""
    lines = (example("Ask it", "console") + example("Control it", "console")).splitlines()
    asked, answers = lines[::2], lines[1::2]
    command = [sys.executable, "-m", "buildapi", "serve", "--listen", "tcp:0:interface=127.0.0.1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        greeting = server.stdout.readline()
        port = re.findall(r":(\d+)/api/v2", greeting)[0]
        said = [
            subprocess.run(
                shlex.split(line.removeprefix("$ ").replace(":8010/", f":{port}/")),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for line in asked
        ]
        server.send_signal(signal.SIGINT)

    assert [undated(one) for one in said] == [undated(one) for one in answers]
    greeted = example("Serve a database", "console").splitlines()[-1]
    assert greeting == greeted.replace("//srv/ci/state", "/buildapi").replace("8010", port) + "\n"


def test_a_master_obeys_as_it_is_shown() -> None:
    """It is called with what the comment says."""
    api = in_memory_api()
    buildid = result_of(a_build(api))
    told: list[Event] = []
    exec(example("Control it", "python"), {"api": api, "stop_build": told.append})  # noqa: S102  it is ours
    WebClient(api).call(f"/api/v2/builds/{buildid}", "stop", reason="…")

    assert [(event.topic, event.message) for event in told] == [
        (f"control.build.{buildid}.stop", {"reason": "…"})
    ]


def test_the_frames_are_understood() -> None:
    """Both names of an event can be subscribed to, the log comes to its end, the build leaves."""
    api = in_memory_api()
    logid = result_of(a_log(api))
    result_of(api.data.updates.appendLog(logid, "ohello\n"))
    ws = WebSocketClient(Wire(api))
    for line in example("Follow it live", "json").splitlines():
        ws.send(json.loads(line))
    result_of(api.data.updates.finishLog(logid))
    result_of(api.data.updates.finishBuild(1, 0))

    frames = ws.sync()
    assert [frame["code"] for frame in frames if "code" in frame] == [200, 200, 200, 200]
    assert {frame["k"] for frame in frames if "k" in frame} == {
        "build.1.finished",
        "builds/1/finished",
    }
    assert [frame["content"] for frame in frames if "content" in frame] == ["ohello\n"]
    assert {"sub": 3, "end": {"num_lines": 1, "complete": True}} in frames
    assert [frame["leave"] for frame in frames if frame.get("sub") == 4] == [[1]]


def variable(text: str) -> str:
    """Return a transcript without what is different each time: sizes and identities."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID", text)
    return re.sub(r"\d+ bytes", "SIZE bytes", text)


@pytest.mark.usefixtures("embedded")
def test_a_database_is_backed_up_and_restored_as_it_is_shown(tmp_path: Path) -> None:
    """With the database of the embedding example; afterwards it is served again."""
    section = README.partition("\n## Back up and restore\n")[2].partition("\n## ")[0]
    transcript = "".join(re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    said = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            command = line[2:].replace("buildapi db", f"{sys.executable} -m buildapi db")
            done = subprocess.run(
                shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=True
            )
            said.append(f"{line}\n{done.stdout}")

    assert variable("".join(said)) == variable(transcript)
    with sqlite3.connect(tmp_path / "buildapi.sqlite") as connection:
        assert connection.execute("SELECT seq FROM buildapi_log").fetchone() == (10**12,)
    connection.close()
