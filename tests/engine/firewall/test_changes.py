"""Change a Docker host over time: iptables switched, Docker upgraded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]

_PROGRAMS = (
    *("/usr/sbin/dockerd", "/usr/sbin/docker-proxy", "/usr/sbin/runc", "/usr/bin/runc"),
    *("/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/docker"),
)


@pytest.fixture(scope="module")
def mesh(make_lab: Callable[[LabOptions], AbstractContextManager[Lab]]) -> Iterator[Lab]:
    """Two hosts with Docker 26.1; host1 keeps containers while dockerd is away."""
    kept = HostOptions(daemon_json={"live-restore": True})
    with make_lab(LabOptions(name="changes", hosts=2, hosts_differ={"host1": kept})) as lab:
        for host in lab.hosts.values():
            host.start_container("web", options=["--restart", "always"])
        yield lab


def test_promise_9_iptables_switched_under_docker_is_told_and_ours_follow(mesh: Lab) -> None:
    host, other = mesh.hosts["host2"], mesh.hosts["host1"]
    host.run(["update-alternatives", "--set", "iptables", "/usr/sbin/iptables-legacy"])
    found = host.wait_condition("firewall-stale-variant", 60)
    assert "restart docker" in found["hint"]
    assert other.ping(host.container_address("web"), container="web"), "ours stay with Docker's"
    host.run(["lab-service", "restart", "docker"], timeout_s=120)
    wait_until(lambda: _ours(host, "legacy") and not _ours(host, "nft"), 60, "ours to be moved")
    assert "iptables-nft" in host.wait_condition("firewall-stale-variant", 60)["cause"]
    for table in ("filter", "nat", "raw"):
        host.run(["iptables-nft", "-w", "-t", table, "-F"])
        host.run(["iptables-nft", "-w", "-t", table, "-X"])
    host.run(["iptables-nft", "-w", "-P", "FORWARD", "ACCEPT"])
    wait_until(lambda: not host.conditions(), 60, "every condition to be gone")
    wait_until(
        lambda: other.ping(host.container_address("web"), container="web"), 30, "the mesh again"
    )


def _ours(host: Host, variant: str) -> bool:
    return any("HOSTMESH" in line for line in host.iptables("filter", variant=variant))


def test_promise_6_docker_upgraded_in_place_under_traffic(mesh: Lab) -> None:
    """26.1 to 28.5 with live-restore: containers run on, and so does their traffic."""
    try:
        newer = images.ensure("forky", print)
    except LabError as error:
        pytest.skip(f"NOT TESTED: no root filesystem of forky could be made here: {error}")
    host, other = mesh.hosts["host1"], mesh.hosts["host2"]
    address = host.container_address("web")
    away = Pinger(host, other.container_address("web"), container="web")
    inward = Pinger(other, address, container="web")
    try:
        for pinger in (away, inward):
            pinger.wait_reply(15, "the pings before")
        host.run(["lab-service", "stop", "docker"], timeout_s=120)
        for program in _PROGRAMS:
            source = newer.rootfs / program.lstrip("/")
            if source.exists():
                target = host.path(program)
                target.unlink(missing_ok=True)
                shutil.copy2(source, target)
        host.run(["lab-service", "start", "docker"], timeout_s=120)
        version = host.docker("version", "-f", "{{.Server.Version}}").stdout
        assert version.startswith("28."), version
        assert host.inspect("web")["State"]["Running"]
        wait_until(host.ready, 60, "the host to be ready")
        wait_until(lambda: not host.conditions(), 60, "every condition to be gone")
        counts = [len(pinger.replies) for pinger in (away, inward)]
        wait_until(
            lambda: all(
                len(pinger.replies) > count + 20
                for pinger, count in zip((away, inward), counts, strict=True)
            ),
            30,
            "twenty replies after the upgrade",
        )
    finally:
        away.stop()
        inward.stop()
    missed = {"from the upgraded host": away.missed(), "to it": inward.missed()}
    assert all(len(each) <= 10 for each in missed.values()), missed
    raw = "\n".join(host.iptables("raw"))
    assert "DROP" in raw, "28 drops in raw what did not come through the bridge"
    assert other.fetch(f"http://{address}/", container="web")
    assert other.fetch(f"http://{address}/cgi-bin/whoami", container="web") == (
        f"{other.container_address('web')}\n"
    )
