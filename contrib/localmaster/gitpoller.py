"""Build what is new in a local git repository."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import Logger

from buildapi import BuildAPI
from buildapi.db.transaction import Tx
from buildapi.errors import BuildAPIError

from .config import GitPoller
from .process import Reactor

# If a branch gets more at once, the oldest aren't listed as changes; its tip is built all the same.
MOST_CHANGES = 100

# A commit: fields that each end in 1F, then the names of its files, each ended by a zero byte.
_FORMAT = "\x1e" + "".join(
    f"{field}\x1f" for field in ("%H", "%an <%ae>", "%cn <%ce>", "%ct", "%B")
)
_COMMIT = re.compile(r"\x1e(?=[0-9a-f]{40,64}\x1f)")

# What fits in a change; git takes any date.
_FIRST_MOMENT, _LAST_MOMENT = -(2**31), 2**31 - 1

_STATE = "localmaster.GitPoller", "revision"

_log = Logger()


class GitError(Exception):
    """Git could not do it; the text is what it said."""


async def git(reactor: Reactor, repository: Path, *arguments: str) -> str:
    """Return what a git command prints; fail with GitError."""
    command = ("-C", str(repository), *arguments)
    try:
        out, err, code = await getProcessOutputAndValue("git", command, os.environ, None, reactor)
    except OSError as error:
        raise GitError(f"cannot run git: {error.strerror}") from None
    if code != 0:
        raise GitError(err.decode(errors="replace").strip())
    return str(out, errors="replace")


def parse_log(text: str) -> list[dict[str, Any]]:
    """Return the commits of ``git log -z --name-only`` in our format, as addChange wants them."""
    return [_change(commit) for commit in _COMMIT.split(text)[1:]]


def _change(commit: str) -> dict[str, Any]:
    revision, author, committer, when, rest = commit.split("\x1f", 4)
    comments, _, files = rest.rpartition("\x1f")
    return {
        "revision": revision,
        "author": author[:255],
        "committer": committer[:255],
        "when_timestamp": max(_FIRST_MOMENT, min(int(when), _LAST_MOMENT)),
        "comments": comments.rstrip(),
        "files": [name[:1024] for name in files.strip("\0\n").split("\0") if name],
    }


class Poller:
    """
    Looks at one branch now and then.

    The first time, its newest commit counts as new: a new master shows at once that it can build.
    """

    def __init__(
        self,
        api: BuildAPI,
        reactor: Reactor,
        config: GitPoller,
        schedulerid: int,
        builderids: list[int],
    ) -> None:
        self._api = api
        self._reactor = reactor
        self._config = config
        self._schedulerid = schedulerid
        self._builderids = builderids
        self._seen: str | None = None
        self._look: Deferred[None] = succeed(None)
        self._looking = LoopingCall(self._begin_look)
        self._looking.clock = reactor

    async def start(self) -> None:
        """Go on where the last run of the master was."""
        self._seen = await self._api.state.get(self._config.name, *_STATE, None)
        self._looking.start(self._config.interval_s)

    async def stop(self) -> None:
        """Look no more; a look that has begun is ended first."""
        self._looking.stop()
        await self._look

    def _begin_look(self) -> Deferred[None]:
        self._look = Deferred.fromCoroutine(self.look())
        return self._look

    async def look(self) -> None:
        """Build what is new, if anything is; what goes wrong is logged, and tried again."""
        try:
            tip = await self._git("rev-parse", "--verify", f"{self._config.branch}^{{commit}}")
            if tip.strip() != self._seen and await self._enabled():
                await self._build(tip.strip())
        except (GitError, BuildAPIError) as error:
            _log.warn("{name}: {error}", name=self._config.name, error=error)

    async def _enabled(self) -> bool:
        scheduler = await self._api.data.get(("schedulers", self._schedulerid))
        return bool(scheduler["enabled"])

    async def _build(self, tip: str) -> None:
        updates, config = self._api.data.updates, self._config
        changes = await self._changes(tip)
        # What is checked out has a name that says more than HEAD; a commit has none.
        branch = (await self._git("rev-parse", "--abbrev-ref", config.branch)).strip()
        source: dict[str, Any] = {
            "branch": branch or config.branch,
            "repository": str(config.repository.resolve()),
        }

        def ask(tx: Tx) -> None:
            # One transaction: no commit is forgotten, and none is built twice.
            for change in changes:
                updates.addChange.within(tx, **change, **source, src="git")
            updates.addBuildset.within(
                tx,
                waited_for=False,
                scheduler=config.name,
                reason=f"the branch {source['branch']} has new commits",
                sourcestamps=[{**source, "revision": tip}],
                properties={"scheduler": (config.name, "Scheduler")},
                builderids=self._builderids,
            )
            self._api.state.set.within(tx, config.name, *_STATE, tip)

        await self._api.data.transaction(ask)
        self._seen = tip

    async def _changes(self, tip: str) -> list[dict[str, Any]]:
        """Return the commits since the last one seen, oldest first."""
        log = ("log", "-z", "--name-only", "--reverse", f"--format={_FORMAT}")
        if self._seen is not None:
            try:
                new = f"{self._seen}..{tip}"
                return parse_log(await self._git(*log, f"--max-count={MOST_CHANGES}", new))
            except GitError:  # history was rewritten, and what was seen is gone
                pass
        return parse_log(await self._git(*log, "--max-count=1", tip))

    async def _git(self, *arguments: str) -> str:
        return await git(self._reactor, self._config.repository, *arguments)
