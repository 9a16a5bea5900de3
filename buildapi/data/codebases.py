"""Codebases: the histories of source that a project is made of, with commits and branches."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from buildapi.data.projects import Project
from buildapi.data.schema import Resource, field, happens
from buildapi.data.updates import Id, Name, Seconds, ShortName, Updates, must_exist, update
from buildapi.data.values import Identifier
from buildapi.db.hashes import identifier, name_hash
from buildapi.db.tables import codebase_branches, codebase_commits, codebases, projects
from buildapi.db.transaction import Tx
from buildapi.errors import BadArgument


class Codebase(Resource):
    """One history of source in a project."""

    plural, table, parent = "codebases", codebases, Project
    parent_on = projects.c.id == codebases.c.projectid
    keys = {
        "codebaseid": codebases.c.id,
        "codebasename": codebases.c.name,
        "projectid": codebases.c.projectid,
    }
    one = ("codebases/n:codebaseid", "projects/n:projectid/codebases/i:codebasename")
    many = ("codebases",)
    topic = "codebase.{codebaseid}"
    slash_keys = ("codebases/{codebaseid}",)
    events = {
        "new": happens("The codebase is known.", slash=None),
        "update": happens("Its project or slug changed."),
    }

    codebaseid: int = field(codebases.c.id, "Unique id of this codebase.")
    projectid: int = field(codebases.c.projectid, "The project it belongs to.")
    name: Identifier = field(codebases.c.name, "Its name, unique in the project.")
    slug: Identifier = field(codebases.c.slug, "Its name for URLs.")


class Commit(Resource):
    """One commit of a codebase."""

    plural, table, parent = "commits", codebase_commits, Codebase
    parent_on = codebases.c.id == codebase_commits.c.codebaseid
    keys = {
        "commitid": codebase_commits.c.id,
        "codebaseid": codebase_commits.c.codebaseid,
        "revision": codebase_commits.c.revision,
    }
    one = ("commits/n:commitid", "codebases/n:codebaseid/commits_by_revision/s:revision")
    many = ("codebases/n:codebaseid/commits",)
    topic = "commit.{commitid}"
    slash_keys = ("commits/{commitid}", "codebases/{codebaseid}/commits/{commitid}")
    events = {"new": happens("The commit is known.")}

    commitid: int = field(codebase_commits.c.id, "Unique id of this commit.")
    codebaseid: int = field(codebase_commits.c.codebaseid, "The codebase it belongs to.")
    author: str = field(codebase_commits.c.author, "Who wrote it.")
    committer: str | None = field(codebase_commits.c.committer, "Who committed it, if known.")
    comments: str = field(codebase_commits.c.comments, "What the author says of it.")
    when_timestamp: int = field(codebase_commits.c.when_timestamp, "When (epoch seconds).")
    revision: str = field(codebase_commits.c.revision, "Its revision, unique in the codebase.")
    parent_commitid: int | None = field(
        codebase_commits.c.parent_commitid, "The commit before it, if that is known."
    )


class Branch(Resource):
    """One branch of a codebase, with its newest commit."""

    plural, table, parent = "branches", codebase_branches, Codebase
    parent_on = codebases.c.id == codebase_branches.c.codebaseid
    keys = {
        "branchid": codebase_branches.c.id,
        "codebaseid": codebase_branches.c.codebaseid,
    }
    one = ("branches/n:branchid",)
    many = ("codebases/n:codebaseid/branches",)
    topic = "branch.{branchid}"
    slash_keys = ("branches/{branchid}",)
    events = {"update": happens("Its newest commit changed.")}

    branchid: int = field(codebase_branches.c.id, "Unique id of this branch.")
    codebaseid: int = field(codebase_branches.c.codebaseid, "The codebase it belongs to.")
    name: str = field(codebase_branches.c.name, "Its name, unique in the codebase.")
    commitid: int | None = field(
        codebase_branches.c.commitid, "Its newest commit, if known.", declared=int
    )
    last_timestamp: int = field(
        codebase_branches.c.last_timestamp, "When it last changed (epoch seconds)."
    )


_BY_NAME = sa.select(codebases.c.id).where(
    codebases.c.projectid == sa.bindparam("projectid"),
    codebases.c.name_hash == sa.bindparam("hash"),
)
_BY_REVISION = sa.select(codebase_commits.c.id).where(
    codebase_commits.c.codebaseid == sa.bindparam("codebaseid"),
    codebase_commits.c.revision == sa.bindparam("revision"),
)
_BRANCH = sa.select(codebase_branches.c.id).where(
    codebase_branches.c.codebaseid == sa.bindparam("codebaseid"),
    codebase_branches.c.name_hash == sa.bindparam("hash"),
)


class CodebaseUpdates(Updates):
    """What changes codebases, their commits and branches."""

    @update
    def find_codebase_id(
        self, tx: Tx, *, projectid: Id, name: Name, auto_create: bool = True
    ) -> int | None:
        """Return the id of a project's codebase; make it, or return None, if there is none."""
        row = tx.first(_BY_NAME, {"projectid": projectid, "hash": name_hash(name)})
        if row is not None or not auto_create:
            return row[0] if row else None
        must_exist(tx, Project, projectid)
        ident = tx.insert(
            codebases,
            projectid=projectid,
            name=name,
            name_hash=name_hash(name),
            slug=identifier(name),
        )
        tx.emit(Codebase, ident, "new")
        return ident

    @update
    def update_codebase_info(
        self, tx: Tx, *, codebaseid: Id, projectid: Id, slug: ShortName
    ) -> None:
        """Set the project and the slug of a codebase.  Publishes ``update``."""
        must_exist(tx, Codebase, codebaseid)
        must_exist(tx, Project, projectid)
        tx.change(codebases, codebaseid, projectid=projectid, slug=slug)
        tx.emit(Codebase, codebaseid, "update")

    @update
    def add_commit(
        self,
        tx: Tx,
        *,
        codebaseid: Id,
        author: Annotated[str, Field(max_length=255)],
        committer: Annotated[str, Field(max_length=255)] | None = None,
        files: list[str] | None = None,  # noqa: ARG002  the contract has it, and no table for it
        comments: str,
        when_timestamp: Seconds,
        revision: Annotated[str, Field(min_length=1, max_length=70)],
        parent_commitid: Id | None = None,
    ) -> int:
        """Add a commit; return its id, that of the one with this revision if it is known.

        Publishes ``new`` if it was not known.
        """
        must_exist(tx, Codebase, codebaseid)
        row = tx.first(_BY_REVISION, {"codebaseid": codebaseid, "revision": revision})
        if row is not None:
            return int(row[0])
        if parent_commitid is not None:
            must_exist(tx, Commit, parent_commitid, "parent_commitid")
        ident = tx.insert(
            codebase_commits,
            codebaseid=codebaseid,
            author=author,
            committer=committer,
            comments=comments,
            when_timestamp=when_timestamp,
            revision=revision,
            parent_commitid=parent_commitid,
        )
        tx.emit(Commit, ident, "new")
        return ident

    @update
    def update_branch(
        self,
        tx: Tx,
        *,
        codebaseid: Id,
        name: Annotated[str, Field(min_length=1, max_length=255)],
        commitid: Id | None = None,
        last_timestamp: Seconds,
    ) -> int:
        """Set the newest commit of a branch; return its id.  Publishes ``update``."""
        must_exist(tx, Codebase, codebaseid)
        if commitid is not None and must_exist(tx, Commit, commitid)[1] != codebaseid:
            raise BadArgument(f"update_branch: commitid: {commitid} is of another codebase")
        values = {"commitid": commitid, "last_timestamp": last_timestamp}
        row = tx.first(_BRANCH, {"codebaseid": codebaseid, "hash": name_hash(name)})
        if row is not None:
            ident = int(row[0])
            tx.change(codebase_branches, ident, **values)
        else:
            ident = tx.insert(
                codebase_branches,
                codebaseid=codebaseid,
                name=name,
                name_hash=name_hash(name),
                **values,
            )
        tx.emit(Branch, ident, "update")
        return ident
