"""The reference pages have everything that is declared."""

from __future__ import annotations

import re
import tomllib

from buildapi.data.api import RESOURCES, ROUTER, AllUpdates
from buildapi.data.forcefields import force_schedulers
from buildapi.data.updates import Update
from buildapi.docs import reference
from buildapi.settings import declarations


def test_every_declaration_is_on_the_page() -> None:
    """Types, fields, paths, control methods and events."""
    page = reference.resources()

    for resource in RESOURCES:
        section = page.partition(f"\n## {resource.plural}\n")[2].partition("\n## ")[0]
        names = [*resource.fields, *resource.actions]
        assert [name for name in names if f"| `{name}` |" not in section] == []
        assert len(re.findall(r"^\| `[\w.{}]+\.[\w.]+` \|", section, re.MULTILINE)) == len(
            resource.events
        )
    assert page.count("\n- `/") == len(ROUTER.routes)


def test_an_event_has_its_topic_and_its_slash_keys() -> None:
    """As templates; none where Buildbot's clients must get nothing."""
    page = reference.resources()

    assert (
        "| `build.{buildid}.step.{number}.finished` | `builds/{buildid}/steps/{stepid}/finished`, "
        "`steps/{stepid}/finished` | It has its results. |"
    ) in page
    assert "| `build.{buildid}.created` | none |" in page


def test_every_update_method_is_on_the_page() -> None:
    """With its signature, as callers see it, and its text."""
    page = reference.resources()
    methods = [name for name in dir(AllUpdates) if isinstance(_declared(name), Update)]

    assert len(methods) > 40
    assert [name for name in methods if f"\n#### {name}\n" not in page] == []
    assert "addStep(buildid: int, name: str) -> tuple[int, int, str]\n```\n\nAdd a step" in page


def _declared(name: str) -> object:
    owners = (vars(owner) for owner in AllUpdates.__mro__)
    return next((names[name] for names in owners if name in names), None)


def test_every_setting_is_on_the_page() -> None:
    """With its default, its variable and its option."""
    page = reference.settings()

    for one in declarations().values():
        assert f"| `{one.name}` |" in page
        assert f"`{one.variable}`" in page
    assert "`BUILDAPI_DATABASE_URL` or `--db`" in page


def test_a_force_scheduler_can_be_written_by_the_page() -> None:
    """Its example works, and every type of field is there."""
    page = reference.settings()
    example = page.partition("```toml\n")[2].partition("```")[0]

    (form,) = force_schedulers(tomllib.loads(example)["forcescheduler"])

    assert form.builder_names == ("tests", "docs")
    for kind in ("text", "textarea", "int", "bool", "list", "username", "fixed", "nested"):
        assert f"\n| `{kind}` | " in page
