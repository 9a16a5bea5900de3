"""
``python contrib/localmaster CONFIG``: this folder, run as a program.

It isn't installed.  Run like this, Python looks for modules inside the folder; they must be found
as those of one package, which is what the folder's own place is needed for.
"""

import sys
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
import_module("localmaster.command").main()
