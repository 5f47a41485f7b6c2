"""A Docker room on a world of its own, for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import Room, World, make  # the line above


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "docker/daemon.json")


@pytest.fixture
def room(world: World, tmp_path: Path) -> Room:
    return make(world, tmp_path / "state", DockerSettings())
