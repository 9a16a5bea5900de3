"""New commits become changes and builds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent, globalLogPublisher

from buildapi.service import BuildAPI
from buildapi.testing import in_memory_api, result_of
from contrib.localmaster.config import GitPoller
from contrib.localmaster.gitpoller import Poller, parse_log
from contrib.localmaster.process import Reactor


class Repository:
    """A git repository in a temporary folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git in it; return what it prints."""
        name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        command = ["git", "-C", str(self.path), *name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str, *names: str) -> str:
        """Commit some files; return the revision."""
        for name in names:
            (self.path / name).write_text(message)
            self.git("add", "--", name)
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one commit."""
    found = Repository(tmp_path / "project")
    found.commit("Begin", "README")
    return found


@pytest.fixture
def api() -> Iterator[BuildAPI]:
    """A buildapi in memory."""
    api = in_memory_api()
    yield api
    result_of(api.stopService())


@pytest.fixture
def poller(api: BuildAPI, reactor: Reactor, repository: Repository) -> Poller:
    """A poller of the branch main for one builder."""
    return a_poller(api, reactor, repository)


def a_poller(
    api: BuildAPI, reactor: Reactor, repository: Repository, branch: str = "main"
) -> Poller:
    """Make a poller, as a start of the master does."""
    updates = api.data.updates
    builderid = result_of(updates.findBuilderId("checks"))
    schedulerid = result_of(updates.findSchedulerId("commits"))
    config = GitPoller(
        name="commits", builder_names=("checks",), repository=repository.path, branch=branch
    )
    return Poller(api, reactor, config, schedulerid, [builderid])


def get(api: BuildAPI, path: str) -> Any:
    """Read a list, in the order of its ids."""
    return result_of(api.data.get(path))


@pytest_twisted.ensureDeferred
async def test_the_first_look_builds_the_newest_commit(
    api: BuildAPI, poller: Poller, repository: Repository
) -> None:
    """A new master shows at once that it can build; what is older isn't listed."""
    revision = repository.commit("Say more\n\nMuch more.", "notes.txt", "a b.txt")
    await poller.look()

    (change,) = get(api, "changes")
    assert change["revision"] == revision
    assert change["author"] == "Ada <ada@example.org>"
    assert change["comments"] == "Say more\n\nMuch more."
    assert sorted(change["files"]) == ["a b.txt", "notes.txt"]
    (buildset,) = get(api, "buildsets")
    assert [s["ssid"] for s in buildset["sourcestamps"]] == [change["sourcestamp"]["ssid"]]
    assert buildset["sourcestamps"][0]["revision"] == revision
    assert len(get(api, "buildrequests")) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_checked_out_is_called_by_its_name(
    api: BuildAPI, reactor: Reactor, repository: Repository
) -> None:
    """HEAD would say nothing in a list of builds; a commit that is checked out has no other."""
    poller = a_poller(api, reactor, repository, "HEAD")
    await poller.look()
    repository.git("checkout", "--quiet", "--detach")
    repository.commit("On no branch")
    await poller.look()

    assert [change["branch"] for change in get(api, "changes")] == ["main", "HEAD"]


@pytest_twisted.ensureDeferred
async def test_new_commits_are_listed_and_the_newest_is_built(
    api: BuildAPI, poller: Poller, repository: Repository
) -> None:
    """Each commit is a change, oldest first; what is there together is built once."""
    await poller.look()
    revisions = [repository.commit(f"Commit {n}", "README") for n in range(3)]
    await poller.look()

    assert [c["revision"] for c in get(api, "changes")][1:] == revisions
    assert len(get(api, "buildsets")) == 2
    assert get(api, "sourcestamps?order=-ssid&limit=1")[0]["revision"] == revisions[-1]


@pytest_twisted.ensureDeferred
async def test_nothing_new_is_nothing_to_do(api: BuildAPI, poller: Poller) -> None:
    """A second look at the same commit asks for no second build."""
    await poller.look()
    await poller.look()

    assert len(get(api, "buildsets")) == 1


@pytest_twisted.ensureDeferred
async def test_a_restart_goes_on_where_the_last_run_was(
    api: BuildAPI, poller: Poller, reactor: Reactor, repository: Repository
) -> None:
    """What was built isn't built again, and what came meanwhile is."""
    await poller.look()
    again = a_poller(api, reactor, repository)
    await again.start()
    await again.stop()
    assert len(get(api, "buildsets")) == 1
    repository.commit("Meanwhile", "README")
    third = a_poller(api, reactor, repository)
    await third.start()
    await third.stop()

    assert [c["comments"] for c in get(api, "changes")] == ["Begin", "Meanwhile"]
    assert len(get(api, "buildsets")) == 2


@pytest_twisted.ensureDeferred
async def test_rewritten_history_is_built_from_its_newest_commit(
    api: BuildAPI, poller: Poller, repository: Repository
) -> None:
    """A revision that is gone is no reason to stop looking."""
    await poller.look()
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit("Start over", "README")
    repository.git("branch", "--force", "main", "other")
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    await poller.look()

    assert [c["comments"] for c in get(api, "changes")] == ["Begin", "Start over"]


@pytest_twisted.ensureDeferred
async def test_a_disabled_scheduler_asks_for_nothing(api: BuildAPI, poller: Poller) -> None:
    """What came while it was disabled is built once it's enabled."""
    (scheduler,) = get(api, "schedulers")
    result_of(api.data.updates.schedulerEnable(scheduler["schedulerid"], False))
    await poller.look()
    assert get(api, "buildsets") == []
    result_of(api.data.updates.schedulerEnable(scheduler["schedulerid"], True))
    await poller.look()

    assert len(get(api, "buildsets")) == 1


@pytest_twisted.ensureDeferred
async def test_a_repository_that_cannot_be_read_is_logged(
    api: BuildAPI, poller: Poller, repository: Repository
) -> None:
    """The next look may find it again."""
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)  # type: ignore[arg-type]  # a list's is one
    repository.path.rename(repository.path.with_name("moved"))
    await poller.look()
    globalLogPublisher.removeObserver(logged.append)  # type: ignore[arg-type]
    repository.path.with_name("moved").rename(repository.path)

    assert any("cannot change to" in str(event.get("error")) for event in logged)
    await poller.look()
    assert len(get(api, "buildsets")) == 1


def test_a_message_may_hold_anything() -> None:
    """Only what git can't put into a message separates commits."""
    fields = ("a" * 40, "Ada <>", "Ada <>", "1795262400", "odd \x1e and \x1f text\n")
    record = "\x1e" + "".join(f"{field}\x1f" for field in fields) + "\0\nREADME\0"

    (change,) = parse_log(record)
    assert change["comments"] == "odd \x1e and \x1f text"
    assert change["files"] == ["README"]


def test_what_a_change_has_no_room_for_is_cut(api: BuildAPI) -> None:
    """A strange commit must not end the looking."""
    fields = ["a" * 40, "é" * 300, "c" * 300, str(2**40), "It is from the future."]
    commit = "\x1e" + "".join(f"{field}\x1f" for field in fields) + "\n" + "f" * 2000 + "\0"

    (change,) = parse_log(commit)

    changeid = result_of(api.data.updates.addChange(**change))
    stored = result_of(api.data.get(("changes", changeid)))
    assert stored["when_timestamp"] == 2**31 - 1
    assert stored["files"] == ["f" * 1024]
    assert stored["author"] == "é" * 255
