"""The README's examples do what it says, in the order in which it says it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from buildapi.testing import WebSocketClient, Wire, a_log, in_memory_api, result_of

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def example(heading: str, language: str) -> str:
    """Return the first block of a language below a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} below {heading}"
    return found[1]


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
def test_the_curl_transcript_is_what_the_server_answers(tmp_path: Path) -> None:
    """The database of the embedding example, served and asked as the README does."""
    asked, answer = example("Ask it", "console").splitlines()
    curl = shlex.split(asked.removeprefix("$ "))
    command = [sys.executable, "-m", "buildapi", "serve", "--listen", "tcp:0:interface=127.0.0.1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        greeting = server.stdout.readline()
        port = re.findall(r":(\d+)/api/v2", greeting)[0]
        curl[-1] = curl[-1].replace(":8010/", f":{port}/")
        done = subprocess.run(curl, capture_output=True, check=True)
        server.send_signal(signal.SIGINT)

    assert json.loads(done.stdout) == json.loads(answer)
    said = example("Serve a database", "console").splitlines()[-1]
    assert greeting == said.replace("//srv/ci/state", "/buildapi").replace("8010", port) + "\n"


def test_the_frames_are_understood() -> None:
    """Both names of an event can be subscribed to, and the log comes to its end."""
    api = in_memory_api()
    logid = result_of(a_log(api))
    result_of(api.data.updates.appendLog(logid, "ohello\n"))
    ws = WebSocketClient(Wire(api))
    for line in example("Follow it live", "json").splitlines():
        ws.send(json.loads(line))
    result_of(api.data.updates.finishLog(logid))
    result_of(api.data.updates.finishBuild(1, 0))

    frames = ws.sync()
    assert [frame["code"] for frame in frames if "code" in frame] == [200, 200, 200]
    assert {frame["k"] for frame in frames if "k" in frame} == {
        "build.1.finished",
        "builds/1/finished",
    }
    assert [frame["content"] for frame in frames if "content" in frame] == ["ohello\n"]
    assert {"sub": 3, "end": {"num_lines": 1, "complete": True}} in frames
