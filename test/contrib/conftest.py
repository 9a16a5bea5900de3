"""What the tests of contrib share."""

import sys
from pathlib import Path
from typing import cast

import pytest
from twisted.internet import reactor as twisted_reactor

# contrib isn't installed; it is imported from the top of the repository.
sys.path.append(str(Path(__file__).parents[2]))

from contrib.localmaster.process import Reactor


@pytest.fixture
def reactor() -> Reactor:
    """The one real reactor, under the name of what is wanted of it."""
    return cast("Reactor", twisted_reactor)
