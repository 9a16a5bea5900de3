"""What a run needs besides buildapi: wrk, and Buildbot in an environment of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"
BUILDBOT = "4.3.0"
# The master's web service refuses to start without the user interface; then the drivers of the
# databases that it may be compared on.
BUILDBOT_PACKAGES = (
    *(f"buildbot=={BUILDBOT}", f"buildbot-www=={BUILDBOT}"),
    *("psycopg2-binary", "PyMySQL", "cryptography"),
)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other runs of this checkout out: they would share its files, and spoil its figures."""
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("bench: another run is under way in this checkout") from None
        yield


def say(text: str) -> None:
    """Tell what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def buildbot_venv() -> Path:
    """Return the folder of Buildbot's environment, made when it is first asked for."""
    folder = FOLDER / "buildbot-venv"
    stamp = folder / ".installed"
    wanted = "\n".join((sys.version, *BUILDBOT_PACKAGES))
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    say(f"making {folder.relative_to(ROOT)} with Buildbot {BUILDBOT}")
    # The interpreter behind .venv has a pip, .venv itself has none.
    base = [getattr(sys, "_base_executable", sys.executable), "-m"]
    subprocess.run([*base, "venv", "--without-pip", "--clear", str(folder)], check=True)
    install = ["pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    options = ["--disable-pip-version-check", "--no-warn-script-location"]
    packages = [*install, *options, *BUILDBOT_PACKAGES]
    done = subprocess.run([*base, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"bench: Buildbot can't be installed (--without buildbot leaves it out):\n{done.stderr}"
        )
    stamp.write_text(wanted)
    return folder


def wrk() -> bool:
    """Whether wrk is there, or could be installed now; else our own client makes the load."""
    if shutil.which("wrk") is None and os.getuid() == 0 and shutil.which("apt-get"):
        say("installing wrk with apt-get")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["-y", "install", "wrk"]):
            argv = ["apt-get", "-qq", *command]
            subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=False)
    return shutil.which("wrk") is not None
