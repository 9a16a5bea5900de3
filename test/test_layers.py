"""Imports point one way: who may know of whom, and what each part has never heard of."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up.  A module may import from its own layer and from lower ones; the first
# pattern that fits says where it lives.
LAYERS = (
    ("data", "db", "docs", "mq", "www"),  # an __init__.py that is only its docstring
    ("errors", "histogram", "mq.event", "mq.topic", "data.storedjson", "data.values"),
    ("data.formfields", "data.forcefields", "db.compression"),
    ("settings", "data.gate", "db.tables", "db.chunks", "db.filelock", "db.hashes"),
    ("db.connect", "db.spelling"),
    ("db.sqlite", "db.server", "db.pipeline"),
    ("db.postgresql", "db.mariadb"),
    ("db.systems",),
    ("db.*", "mq.*"),
    ("data.schema",),
    ("data.query",),
    ("data.sql", "data.router"),
    ("data.api",),
    ("data.reach",),
    ("data.contents",),
    ("data.views", "data.waking"),
    ("data.watch", "data.readings"),
    ("data.watches", "data.outcomes"),
    ("data.deeds", "data.control"),
    ("docs.*",),
    ("www.*",),
    ("service",),
    ("buildapi", "testing", "testing.*", "client"),
    ("cli", "twist", "__main__"),
)
# Between the router and the API stand the resource types: every other module of data.
RESOURCES = LAYERS.index(("data.api",)) - 0.5

# Whom a package (or module) must not know, though the layers would let it.
STRANGERS = {
    "db": ("buildapi.data", "klein", "twisted.web", "autobahn"),
    "mq": ("buildapi.db", "buildapi.data", "sqlalchemy", "klein", "twisted.web", "autobahn"),
    "docs": ("klein", "twisted.web", "autobahn"),
    "data": ("klein", "twisted.web", "autobahn"),
    "client": ("buildapi.db", "buildapi.data", "buildapi.mq", "buildapi.www", "sqlalchemy"),
}

# Values in, values out: neither they nor anything they import knows the reactor.
PURE = (
    "settings",
    "mq.topic",
    "db.chunks",
    "db.hashes",
    "data.values",
    "data.forcefields",
    "data.query",
    "data.sql",
    "data.router",
    "data.gate",
)


@cache
def imports() -> dict[str, frozenset[str]]:
    """What each module of buildapi imports, by full name; for the type checker alone, too."""
    paths = {_name(path): path for path in (ROOT / "buildapi").rglob("*.py")}
    return {module: frozenset(_imported(path, set(paths))) for module, path in paths.items()}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(path: Path, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from buildapi.db import migrate` imports a module; other names come from one.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in whole)


def short(module: str) -> str:
    """The name without ``buildapi.``."""
    return module.removeprefix("buildapi.")


def layer(module: str) -> float | None:
    """How high the module stands; None if no layer is meant for it."""
    name = short(module)
    for height, patterns in enumerate(LAYERS):
        if any(fnmatch(name, pattern) for pattern in patterns):
            return height
    return RESOURCES if name.startswith("data.") else None


def within(name: str, package: str) -> bool:
    """Whether a dotted name is the package or in it."""
    return name == package or name.startswith(f"{package}.")


def reached(module: str) -> Iterator[str]:
    """Every module that comes along when the module is imported, itself included."""
    seen, waiting = set(), [module]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            yield one
            waiting.extend(imports().get(one, ()))


def test_every_module_has_its_layer() -> None:
    """A new module is put into LAYERS by whoever writes it."""
    lost = [name for name in imports() if layer(name) is None]

    assert not lost


def test_imports_point_down() -> None:
    """No module imports from a layer above its own."""
    wrong = [
        f"{short(module)} imports {short(other)}"
        for module, others in imports().items()
        for other in others
        if within(other, "buildapi") and (layer(other) or 0) > (layer(module) or 0)
    ]

    assert not wrong


def test_no_two_modules_import_each_other() -> None:
    """Nor do longer chains come back to where they began."""
    order = graphlib.TopologicalSorter(imports()).static_order()

    assert "buildapi.errors" in order


@pytest.mark.parametrize("package", STRANGERS)
def test_a_package_has_never_heard_of_its_strangers(package: str) -> None:
    """The database knows no resource, the bus no build, the data no HTTP."""
    wrong = [
        f"{short(module)} imports {other}"
        for module, others in imports().items()
        if within(short(module), package)
        for other in others
        if any(within(other, stranger) for stranger in STRANGERS[package])
    ]

    assert not wrong


def test_pure_modules_know_no_reactor() -> None:
    """What parses, routes and builds SQL can be used and tested without Twisted."""
    wrong = [
        f"{name}: {short(one)} imports {other}"
        for name in PURE
        for one in reached(f"buildapi.{name}")
        for other in imports().get(one, ())
        if within(other, "twisted")
    ]

    assert not wrong
