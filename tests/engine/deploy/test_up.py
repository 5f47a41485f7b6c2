"""hostmesh-deploy on fresh booted machines, over ssh, from the package."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines import booted
from hostmesh_lab.machines.booted import BootedHost

from deploy.deb.build import build
from tests.engine.conftest import running_lab
from tests.engine.deploy import controller
from tests.engine.deploy.controller import HOSTS, Controller

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1200)]

SUITE = "trixie"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Controller]]:
    if why := booted.why_not():
        pytest.skip(f"NO MACHINE IS BOOTED: {why}")
    folder = tmp_path_factory.mktemp("deploy")
    package = build(SUITE, folder / "dist", say=print)
    private, public = controller.key_pair(folder)
    with running_lab(controller.options("deploy", SUITE, public)) as lab:
        yield lab, Controller(lab, private, package)


def hosts(lab: Lab) -> list[BootedHost]:
    found = [lab.hosts[name] for name in HOSTS]
    assert all(isinstance(host, BootedHost) for host in found)
    return found  # type: ignore[return-value]


UP = ("up", "--hosts", "root@host1,root@host2,root@host3", "--with-etcd", "host1,host2,host3",
      "--accept-host-keys")  # fmt: skip


def test_three_fresh_machines_become_a_mesh_with_tls(lab: tuple[Lab, Controller]) -> None:
    mesh, machine = lab
    began = time.monotonic()
    done = machine.deploy(*UP, "--yes")
    took_s = time.monotonic() - began
    print(f"three fresh machines to a verified mesh: {took_s:.0f} s")
    assert "3 hosts are members and reach each other" in done.stdout
    for host in hosts(mesh):
        assert host.ready()
        assert host.conditions(open_etcd=True) == {}
        assert host.start_container("web")
    addresses = {host.name: host.container_address("web") for host in hosts(mesh)}
    for host in hosts(mesh):
        assert all(host.ping(address, container="web") for address in addresses.values())
    document = json.loads(hosts(mesh)[0].agentctl("status", "-o", "json").stdout)
    assert document["state"] == "ready"
