"""The master with everything real: processes, sockets, a database in a file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import Deferred

from buildapi.mq.event import Event
from buildapi.testing import RecordingSubscriber
from contrib.localmaster.config import Config, load
from contrib.localmaster.console import FOLLOW
from contrib.localmaster.master import LocalMaster
from contrib.localmaster.process import Command, Reactor

CONFIG = '''
[[builder]]
name = "whole"
description = "A bit of everything"
tags = ["demo", "quick"]
env = {COLOUR = "blue"}

  [[builder.step]]
  name = "compile"
  command = """
    echo $COLOUR; echo careful >&2; echo $BUILD_BUILDERNAME $BUILD_FLAVOUR; echo one > report.txt
  """
  logs = {"report.txt" = "report.txt"}
  urls = {manual = "https://docs.example.org/"}

  [[builder.step]]
  name = "check"
  command = ["printf", 'a warning: x\\nfine\\nno newline: a warning: y']
  warnings = "warning:"

[[builder]]
name = "broken"

  [[builder.step]]
  name = "fail"
  command = "exit 3"

  [[builder.step]]
  name = "skipped"
  command = "true"

  [[builder.step]]
  name = "tidy"
  command = "true"
  always = true

[[builder]]
name = "patient"

  [[builder.step]]
  name = "wait"
  command = "echo waiting; until [ -e ../../go ]; do sleep 0.02; done; echo went"

[[builder]]
name = "noisy"

  [[builder.step]]
  name = "count"
  command = "seq 200000"

[[forcescheduler]]
name = "force"
builder_names = ["whole", "broken", "patient", "noisy"]
fields = [{type = "text", name = "flavour", default = "sour"}]
'''

DEMO = Path(__file__).parents[2] / "contrib" / "localmaster" / "demo.toml"

Start = Callable[..., Awaitable[LocalMaster]]


@pytest_twisted.async_yield_fixture
async def start(reactor: Reactor, tmp_path: Path) -> AsyncIterator[Start]:
    """Start masters, one after the other, on one directory; the last is stopped at the end."""
    running: list[LocalMaster] = []
    (tmp_path / "master.toml").write_text(CONFIG)
    usual = load(tmp_path / "master.toml")

    async def start(config: Config = usual) -> LocalMaster:
        master = LocalMaster(reactor, config, tmp_path, "tcp:0:interface=127.0.0.1")
        running.append(master)
        master.startService()
        await master.ready()
        return master

    yield start
    for master in running:
        if master.running:
            await master.stopService()


@pytest_twisted.async_fixture
async def master(start: Start) -> LocalMaster:
    """A master that is running."""
    return await start()


def happened(master: LocalMaster, pattern: str) -> Deferred[Event]:
    """Fire with the first event from now on that matches."""
    found: Deferred[Event] = Deferred()

    def hear(event: Event) -> None:
        listener.close()
        found.callback(event)

    listener = master.api.mq.listen([pattern], hear)
    return found


def url(master: LocalMaster, path: str) -> str:
    """Return the address of something in the API."""
    port: Any = master.api.port
    return f"http://127.0.0.1:{port.getHost().port}/api/v2/{path}"


async def text(master: LocalMaster, path: str) -> str:
    """GET something."""
    response = await treq.get(url(master, path), persistent=False)
    return str(await treq.text_content(response))


async def rows(master: LocalMaster, path: str) -> list[dict[str, Any]]:
    """GET a list."""
    answer = json.loads(await text(master, path))
    del answer["meta"]
    (found,) = answer.values()
    return list(found)


async def call(master: LocalMaster, path: str, method: str, **params: Any) -> Any:
    """Make a JSON-RPC call; return its result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    response = await treq.post(url(master, path), json=body, persistent=False)
    answer = json.loads(await treq.text_content(response))
    assert "error" not in answer, answer
    return answer["result"]


async def force(master: LocalMaster, builder: str, **params: Any) -> int:
    """Ask for a build; return the id of the request."""
    (found,) = await rows(master, f"builders?name={builder}")
    builderid = found["builderid"]
    _, brids = await call(master, "forceschedulers/force", "force", builderid=builderid, **params)
    return int(brids[str(builderid)])


def milestones(names: list[str]) -> list[str]:
    """Leave out changes of state strings, and repetitions."""
    told = [name for name in names if not re.fullmatch(r"build\.\d+\.update|.*\.updated", name)]
    return [name for i, name in enumerate(told) if i == 0 or name != told[i - 1]]


@pytest_twisted.ensureDeferred
async def test_a_master_says_what_it_has(master: LocalMaster) -> None:
    """Builders, workers, schedulers and the master itself can be read."""
    builders = await rows(master, "builders?order=builderid")

    assert [b["name"] for b in builders] == ["whole", "broken", "patient", "noisy"]
    assert builders[0]["description"] == "A bit of everything"
    assert sorted(builders[0]["tags"]) == ["demo", "quick"]
    (me,) = await rows(master, "masters")
    assert me["active"]
    assert builders[0]["masterids"] == [me["masterid"]]
    (worker,) = await rows(master, f"builders/{builders[0]['builderid']}/workers")
    assert worker["name"] == "whole-1"
    assert worker["connected_to"] == [{"masterid": me["masterid"]}]
    (scheduler,) = await rows(master, "schedulers")
    assert scheduler["master"]["masterid"] == me["masterid"]
    (forced,) = await rows(master, "forceschedulers")
    assert forced["builder_names"] == ["whole", "broken", "patient", "noisy"]


@pytest_twisted.ensureDeferred
async def test_a_forced_build_is_told_in_order(master: LocalMaster, tmp_path: Path) -> None:
    """Every event of a build comes, in the order in which things happen."""
    heard = RecordingSubscriber(master.api, "build.#")
    finished = happened(master, "build.*.finished")
    (tmp_path / "go").touch()
    await force(master, "patient")
    await finished

    assert milestones(heard.topics) == [
        "build.1.new",
        "build.1.properties.update",
        "build.1.step.0.new",
        "build.1.step.0.started",
        "build.1.step.0.log.1.newlog",
        "build.1.step.0.log.1.append",
        "build.1.step.0.log.1.complete",
        "build.1.step.0.finished",
        "build.1.finished",
    ]
    keys = [key for event in heard.events for key in event.keys]
    log = [key for key in keys if key.startswith("steps/1/logs/stdio/")]
    assert milestones(log) == [f"steps/1/logs/stdio/{w}" for w in ("new", "append", "finished")]


@pytest_twisted.ensureDeferred
async def test_a_build_is_recorded_whole(master: LocalMaster) -> None:
    """Steps, logs, links, properties and results can be read afterwards."""
    done = happened(master, "buildrequest.*.complete")
    brid = await force(master, "whole", flavour="sweet")
    await done

    (build,) = await rows(master, "builds/1?property=*")
    assert (build["number"], build["buildrequestid"], build["results"]) == (1, brid, 1)
    assert build["state_string"] == "check: 2 warnings"
    properties = build["properties"]
    assert properties["buildername"] == ["whole", "Builder"]
    assert properties["flavour"] == ["sweet", "Force Build Form"]
    assert properties["workername"] == ["whole-1", "Worker"]
    assert properties["check-warnings"] == [2, "check"]
    compiled, checked = await rows(master, "builds/1/steps")
    assert (compiled["results"], compiled["state_string"]) == (0, "done")
    assert compiled["urls"] == [{"name": "manual", "url": "https://docs.example.org/"}]
    assert (checked["results"], checked["state_string"]) == (1, "2 warnings")
    log = await text(master, "builds/1/steps/0/logs/stdio/raw_inline")
    assert "\nblue\n" in log
    assert "\ncareful\n" in log
    assert "\nwhole sweet\n" in log
    assert log.endswith("\ndone\n")
    assert await text(master, "builds/1/steps/0/logs/report_txt/raw_inline") == "one\n"
    (contents,) = await rows(master, "builds/1/steps/1/logs/stdio/contents")
    lines = contents["content"].splitlines()
    assert lines[2:5] == ["oa warning: x", "ofine", "ono newline: a warning: y"]
    assert {line[0] for line in lines} == {"o", "h"}
    (request,) = await rows(master, f"buildrequests/{brid}")
    assert (request["complete"], request["results"]) == (True, 1)


@pytest_twisted.ensureDeferred
async def test_a_noisy_command_is_stored_line_by_line(master: LocalMaster) -> None:
    """Everything is there, in order, in far fewer appends than lines."""
    appends = RecordingSubscriber(master.api, "build.*.step.*.log.*.append")
    done = happened(master, "buildrequest.*.complete")
    await force(master, "noisy")
    await done

    lines = (await text(master, "builds/1/steps/0/logs/stdio/raw_inline")).splitlines()
    assert lines[5:-1] == [str(n) for n in range(1, 200_001)]
    assert len(appends.events) < 1000


@pytest_twisted.ensureDeferred
async def test_a_log_can_be_followed_from_a_terminal(
    master: LocalMaster, reactor: Reactor, tmp_path: Path
) -> None:
    """Lines arrive while the command runs, each once; the program ends with the log."""
    printed: list[str] = []
    half: Deferred[None] = Deferred()

    def take(text: str) -> None:
        printed.extend(line[1:] for line in text.splitlines())
        if "waiting" in printed and not half.called:
            half.callback(None)

    follower = Command(reactor, take)
    base = url(master, "").removesuffix("api/v2/")
    script = [sys.executable, str(FOLLOW), base, "builds/1/steps/0/logs/stdio"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    await force(master, "patient")
    follower.start(script, env, tmp_path)
    await half
    (tmp_path / "go").touch()

    assert await follower.ended == 0
    assert printed[0].startswith("/bin/sh -c 'echo waiting;")
    assert printed[2:] == ["waiting", "went", "done"]


@pytest_twisted.ensureDeferred
async def test_a_failed_step_ends_the_build_but_not_its_tidying(master: LocalMaster) -> None:
    """What comes after a failure isn't tried, unless it is always wanted."""
    done = happened(master, "buildrequest.*.complete")
    await force(master, "broken")
    await done

    steps = await rows(master, "builds/1/steps")
    assert [(s["name"], s["results"]) for s in steps] == [("fail", 2), ("tidy", 0)]
    (build,) = await rows(master, "builds/1")
    assert (build["results"], build["state_string"]) == (2, "fail: failed with exit code 3")


@pytest_twisted.ensureDeferred
async def test_a_running_build_can_be_stopped(master: LocalMaster) -> None:
    """It ends as CANCELLED with its step, its log and its request, and says why."""
    line = happened(master, "build.*.step.*.log.*.append")
    done = happened(master, "buildrequest.*.complete")
    brid = await force(master, "patient")
    await line
    assert await call(master, "builds/1", "stop", reason="enough") is None
    await done

    (build,) = await rows(master, "builds/1")
    assert (build["results"], build["state_string"]) == (6, "stopped: enough")
    (step,) = await rows(master, "builds/1/steps")
    assert (step["complete"], step["results"]) == (True, 6)
    (log,) = await rows(master, "builds/1/steps/0/logs")
    assert log["complete"]
    (request,) = await rows(master, f"buildrequests/{brid}")
    assert (request["complete"], request["results"]) == (True, 6)


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_being_built_can_be_cancelled(master: LocalMaster) -> None:
    """Its build is stopped."""
    running = happened(master, "build.*.step.*.started")
    done = happened(master, "buildrequest.*.complete")
    brid = await force(master, "patient")
    await running
    await call(master, f"buildrequests/{brid}", "cancel", reason="not needed")
    await done

    (build,) = await rows(master, "builds/1")
    assert (build["results"], build["state_string"]) == (6, "stopped: not needed")


@pytest_twisted.ensureDeferred
async def test_a_request_that_waits_can_be_cancelled(master: LocalMaster, tmp_path: Path) -> None:
    """It is never built, and those around it are."""
    first, second, third = [await force(master, "patient") for _ in range(3)]
    await call(master, f"buildrequests/{second}", "cancel", reason="not needed")
    done = happened(master, f"buildrequest.{third}.complete")
    (tmp_path / "go").touch()
    await done

    builds = await rows(master, "builds?order=buildid")
    assert [b["buildrequestid"] for b in builds] == [first, third]
    (request,) = await rows(master, f"buildrequests/{second}")
    assert (request["complete"], request["results"]) == (True, 6)


@pytest_twisted.ensureDeferred
async def test_requests_are_built_by_priority_then_age(master: LocalMaster, tmp_path: Path) -> None:
    """The most urgent first; among equals the one that has waited longest."""
    priorities = (0, 0, 5, 5)
    running, old, urgent, also = [
        await force(master, "patient", priority=priority) for priority in priorities
    ]
    done = happened(master, f"buildrequest.{old}.complete")
    (tmp_path / "go").touch()
    await done

    builds = await rows(master, "builds?order=buildid")
    assert [b["buildrequestid"] for b in builds] == [running, urgent, also, old]


async def the_worker(master: LocalMaster, name: str = "patient-1") -> dict[str, Any]:
    """GET a worker."""
    (found,) = await rows(master, f"workers/{name}")
    return found


@pytest_twisted.ensureDeferred
async def test_a_paused_worker_starts_no_build_until_it_is_resumed(
    start: Start, tmp_path: Path
) -> None:
    """A restart of the master resumes nobody."""
    master = await start()
    (tmp_path / "go").touch()
    await call(master, "workers/patient-1", "pause", reason="full disk")
    await master.stopService()
    master = await start()
    brid = await force(master, "patient")
    other = happened(master, "buildrequest.*.complete")
    await force(master, "broken")
    await other
    assert await rows(master, f"buildrequests/{brid}/builds") == []

    done = happened(master, f"buildrequest.{brid}.complete")
    await call(master, "workers/patient-1", "unpause")
    await done
    assert len(await rows(master, f"buildrequests/{brid}/builds")) == 1
    assert not (await the_worker(master))["paused"]


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_to_stop_ends_its_build_first(start: Start, tmp_path: Path) -> None:
    """Then it disconnects and builds no more; the next start of the master brings it back."""
    master = await start()
    running = happened(master, "build.*.step.*.started")
    first = await force(master, "patient")
    await running
    second = await force(master, "patient")
    await call(master, "workers/patient-1", "stop")
    gone = happened(master, "worker.*.disconnected")
    (tmp_path / "go").touch()
    await gone

    (request,) = await rows(master, f"buildrequests/{first}")
    assert (request["complete"], request["results"]) == (True, 0)
    assert (await the_worker(master))["connected_to"] == []
    assert await rows(master, f"buildrequests/{second}/builds") == []
    await master.stopService()
    master = await start()
    done = happened(master, f"buildrequest.{second}.complete")
    (request,) = await rows(master, f"buildrequests/{second}")
    if not request["complete"]:
        await done
    assert not (await the_worker(master))["graceful"]


@pytest_twisted.ensureDeferred
async def test_an_idle_worker_stops_at_once(master: LocalMaster) -> None:
    """A second request changes nothing."""
    heard = RecordingSubscriber(master.api, "worker.*.disconnected")
    gone = happened(master, "worker.*.disconnected")
    await call(master, "workers/patient-1", "stop")
    await gone
    await call(master, "workers/patient-1", "stop")

    done = happened(master, "buildrequest.*.complete")
    await force(master, "broken")
    await done
    assert len(heard.events) == 1
    assert (await the_worker(master))["connected_to"] == []
    assert (await the_worker(master, "broken-1"))["connected_to"] != []


@pytest_twisted.ensureDeferred
async def test_a_killed_worker_gives_its_request_back(master: LocalMaster) -> None:
    """Its build ends at once, as RETRY, and says why; the worker is gone."""
    line = happened(master, "build.*.step.*.log.*.append")
    gone = happened(master, "worker.*.disconnected")
    brid = await force(master, "patient")
    await line
    await call(master, "workers/patient-1", "kill", reason="it burns")
    await gone

    (build,) = await rows(master, "builds")
    assert (build["results"], build["state_string"]) == (5, "worker killed: it burns")
    (request,) = await rows(master, f"buildrequests/{brid}")
    assert (request["complete"], request["claimed"]) == (False, False)
    assert (await the_worker(master))["connected_to"] == []


@pytest_twisted.ensureDeferred
async def test_a_clean_stop_gives_back_what_is_running(start: Start, tmp_path: Path) -> None:
    """The build ends as RETRY, and the next start builds the request again, once."""
    master = await start()
    waiting = happened(master, "build.*.step.*.log.*.append")
    brid = await force(master, "patient")
    await waiting
    await master.stopService()
    (tmp_path / "go").touch()
    again = await start()
    finished = happened(again, "build.*.finished")
    if len(await rows(again, "builds?complete=true")) == 1:
        await finished

    builds = await rows(again, "builds?order=buildid")
    assert [(b["buildrequestid"], b["results"]) for b in builds] == [(brid, 5), (brid, 0)]
    assert [s["complete"] for s in await rows(again, "builds/1/steps")] == [True]
    (me,) = await rows(again, "masters")
    assert me["active"]


@pytest_twisted.ensureDeferred
async def test_a_stopped_master_says_so(start: Start) -> None:
    """Its last words are stored before the database is closed."""
    master = await start()
    heard = RecordingSubscriber(master.api, "#")
    await master.stopService()

    assert "master.1.stopped" in heard.topics
    assert "worker.1.disconnected" in heard.topics


@pytest_twisted.ensureDeferred
async def test_the_demo_shows_what_it_says(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small builders end as they are described: failed, with warnings, with two logs."""
    here = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", here, prepend=os.pathsep)  # as the script does
    config = load(DEMO)
    small = tuple(b for b in config.builders if b.name not in {"checks", "clock"})
    names = tuple(b.name for b in small)
    (scheduler,) = config.forceschedulers
    forced = replace(scheduler, builder_names=names)
    master = await start(Config(builders=small, forceschedulers=(forced,)))
    for name in names:
        done = happened(master, "buildrequest.*.complete")
        await force(master, name)
        await done

    builds = await rows(master, "builds?order=buildid")
    assert dict(zip(names, [b["results"] for b in builds], strict=True)) == {
        "broken": 2,
        "warnings": 1,
        "report": 0,
    }
    assert [b["state_string"] for b in builds][1] == "compile: 2 warnings"
    logs = await rows(master, "builds/3/steps/0/logs")
    assert [(log["name"], log["num_lines"] > 0) for log in logs] == [
        ("stdio", True),
        ("report", True),
    ]
    (step,) = await rows(master, "builds/3/steps")
    assert step["urls"][0]["name"] == "how to read this"
