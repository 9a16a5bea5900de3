"""``python -m buildapi`` is ``buildapi``."""

from buildapi.cli import main

if __name__ == "__main__":
    main(prog_name="buildapi")
