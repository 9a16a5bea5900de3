"""Projects: what builders and codebases belong to."""

from __future__ import annotations

import sqlalchemy as sa

from buildapi.data.schema import NOTHING, Column, Narrowing, Resource, field, happens
from buildapi.data.updates import Id, Name, ShortName, Updates, found_or_made, must_exist, update
from buildapi.data.values import Identifier
from buildapi.db.hashes import identifier, name_hash
from buildapi.db.tables import builder_masters, builders, projects
from buildapi.db.transaction import Tx


def _active(narrowing: Narrowing) -> Column:
    """Return whether some builder of it is configured; null unless that is asked for."""
    if "active" not in narrowing.filtered:
        return NOTHING
    return sa.exists(
        sa.select(builders.c.id)
        .join(builder_masters, builder_masters.c.builderid == builders.c.id)
        .where(builders.c.projectid == projects.c.id)
        .correlate(projects)
    )


class Project(Resource):
    """Something that is built: its builders and codebases belong together."""

    plural, table = "projects", projects
    keys = {"projectid": projects.c.id, "projectname": projects.c.name}
    one = ("projects/n:projectid", "projects/i:projectname")
    many = ("projects",)
    topic = "project.{projectid}"
    slash_keys = ("projects/{projectid}",)
    events = {
        "new": happens("The project is known.", slash=None),
        "update": happens("Its slug or description changed."),
    }

    projectid: int = field(projects.c.id, "Unique id of this project.")
    name: Identifier = field(projects.c.name, "Its name, unique.")
    slug: Identifier = field(projects.c.slug, "Its name for URLs.")
    active: bool | None = field(
        _active, "Whether a builder of it is on a master; null unless it is filtered by."
    )
    description: str | None = field(projects.c.description, "What it is, for people.")
    description_format: str | None = field(
        projects.c.description_format, "The format of the description, such as markdown; else null."
    )
    description_html: str | None = field(
        projects.c.description_html, "The description rendered as HTML, if it has a format."
    )


_BY_NAME = sa.select(projects.c.id).where(projects.c.name_hash == sa.bindparam("hash"))


class ProjectUpdates(Updates):
    """What changes projects."""

    @update
    def find_project_id(self, tx: Tx, name: Name, auto_create: bool = True) -> int | None:
        """Return the id of the project of this name; make it, or return None, if there is none."""
        if auto_create:
            return found_or_made(tx, Project, name, slug=identifier(name))
        row = tx.first(_BY_NAME, {"hash": name_hash(name)})
        return row[0] if row else None

    @update
    def update_project_info(
        self,
        tx: Tx,
        projectid: Id,
        slug: ShortName,
        description: str | None,
        description_format: str | None,
        description_html: str | None,
    ) -> None:
        """Set what a project is.  Publishes ``update``."""
        must_exist(tx, Project, projectid)
        tx.change(
            projects,
            projectid,
            slug=slug,
            description=description,
            description_format=description_format,
            description_html=description_html,
        )
        tx.emit(Project, projectid, "update")
