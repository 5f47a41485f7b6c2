"""A Docker parts on a world of its own, for each test."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import Parts, World, make  # the line above


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory: thousands of fsyncs of a disk that others use take a minute.

    No promise is lost: powercut.py keeps account of what was synced, not the disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else None) as name:
        yield Path(name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "docker/daemon.json")


@pytest.fixture
def parts(world: World, tmp_path: Path) -> Parts:
    return make(world, tmp_path / "state", DockerSettings())
