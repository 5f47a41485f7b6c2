"""Machines that really boot: systemd as PID 1, the hardened units, the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostmesh_lab import shell
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines import booted
from hostmesh_lab.machines.booted import BootedHost

from deploy.deb.build import build
from tests.engine.boot import history, scenes
from tests.engine.boot.scenes import FRESH
from tests.engine.conftest import running_lab


@pytest.fixture(
    scope="package",
    params=[
        "trixie",
        pytest.param("bookworm", marks=pytest.mark.full),
        pytest.param("forky", marks=pytest.mark.full),
    ],
)
def suite(request: pytest.FixtureRequest) -> str:
    """Of the booted machines. trixie in every run, the others in the whole matrix."""
    why = booted.why_not()
    if why:
        pytest.skip(f"NO MACHINE IS BOOTED, the units are tested on paper only: {why}")
    return str(request.param)


@pytest.fixture(scope="package")
def package(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this clone."""
    return build(suite, tmp_path_factory.mktemp("dist"), say=print)


@pytest.fixture(scope="package")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a higher version: what an upgrade installs."""
    folder = tmp_path_factory.mktemp("newer")
    tree, target = folder / "tree", folder / "hostmesh-next.deb"
    shell.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], timeout_s=60)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    changed = [f"{x}.next" if x.startswith("Version: ") else x for x in lines]
    control.write_text("\n".join(changed) + "\n")
    argv = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target)]
    shell.run(argv, timeout_s=60)
    return target


@pytest.fixture(scope="package")
def older(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of version 0.1.0: what an upgrade replaces."""
    if why := history.why_not():
        pytest.skip(f"NO UPGRADE FROM AN EARLIER VERSION IS TESTED: {why}")
    return history.build(suite, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="package")
def _booted(suite: str) -> Iterator[Lab]:
    options = LabOptions(name=f"boot-{suite}", hosts=2, suite=suite, host=FRESH, cidr=None)
    with running_lab(options) as lab:
        yield lab


@pytest.fixture(scope="module")
def fresh(_booted: Lab) -> Lab:
    """Two or more machines that have booted, without Hostmesh, and their etcd without a mesh."""
    scenes.make_fresh(_booted)
    return _booted


def machine(lab: Lab, name: str) -> BootedHost:
    """A machine of the lab by name."""
    host = lab.hosts[name]
    assert isinstance(host, BootedHost)
    return host
