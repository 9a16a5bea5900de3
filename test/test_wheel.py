"""What a plain ``pip install`` brings: a wheel is made of this checkout and used alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("buildapi", "twisted", "pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('.')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a wheel of a copy, as setuptools leaves things behind; return the wheel."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    (made,) = copy.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder that can stand on the import path."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the wheel and our dependencies, and without this checkout."""
    # Without `site` nobody reads the .pth file by which an editable install adds the checkout.
    path = os.pathsep.join([str(installed), sysconfig.get_path("platlib")])
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_holds_the_package_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    """No test, no script; and no __init__.py in Twisted's own package."""
    names = zipfile.ZipFile(wheel).namelist()

    others = {name for name in names if not name.startswith(("buildapi/", "buildapi-"))}
    assert others == {"twisted/plugins/buildapi_plugin.py"}
    assert "buildapi/py.typed" in names


def test_every_module_can_be_imported_from_a_wheel(installed: Path) -> None:
    """None needs a file that only the checkout has."""
    walk = (
        "import importlib, pkgutil, buildapi\n"
        "for module in pkgutil.walk_packages(buildapi.__path__, 'buildapi.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(buildapi.__file__)"
    )

    done = python(installed, "-W", "error", "-c", walk)

    assert done.stderr == ""
    assert done.stdout == f"{installed / 'buildapi' / '__init__.py'}\n"


def test_twist_knows_the_plugin_of_a_wheel(installed: Path) -> None:
    """``twist buildapi`` takes the options of ``buildapi serve``."""
    done = python(installed, "-m", "twisted", "buildapi", "--help")

    assert done.returncode == 0
    for option in ("--config", "--db", "--listen", "--read-only", "--master"):
        assert option in done.stdout


def test_twist_refuses_a_wrong_setting_in_one_sentence(installed: Path) -> None:
    """Before anything is started."""
    done = python(installed, "-m", "twisted", "buildapi", "--db", "nowhere")

    assert done.returncode != 0
    assert "database.url cannot be what it is (from option --db)" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
