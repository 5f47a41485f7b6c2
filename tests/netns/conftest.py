"""Give every test in namespaces hosts to work on, and leave the machine itself alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.netns.netlab import Host, Lan


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


@pytest.fixture
def host() -> Iterator[Host]:
    """One namespace with nothing in it but lo."""
    made = Host()
    yield made
    made.close()


@pytest.fixture
def lan() -> Iterator[Lan]:
    """An empty LAN; add hosts to it."""
    made = Lan()
    yield made
    made.close()
