"""One subnet, one host: clones of a machine-id, and a subnet that was lost. Promises 1 and 3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(
    name="beating",
    hosts=2,
    host=HostOptions(settings={"lease": {"heartbeat_ttl_s": 6}}),
)
LAB_LAST = True  # a host joins
_CLONED = "machine-id-cloned"


@pytest.fixture(scope="module")
def copied(mesh: Lab) -> Host:
    """A third host with the first one's machine-id; its agent does not run yet."""
    clone = mesh.join(replace(mesh.host_defaults(), agent=False))
    clone.write_file("/etc/machine-id", mesh.hosts["host1"].read_file("/etc/machine-id"))
    return clone


@pytest.fixture
def clone(mesh: Lab, copied: Host) -> Iterator[Host]:
    """The clone, as it was again afterwards; the original, too."""
    yield copied
    if copied.proc() is None:
        copied.boot()
    copied.stop_agent()
    copied.run(["rm", "-rf", "/var/lib/hostmesh"])
    mesh.wait_ready(60, ("host1", "host2"))
    wait_until(lambda: _CLONED not in mesh.hosts["host1"].conditions(), 30, "the report to end")


def leases(mesh: Lab) -> dict[str, str]:
    """Subnet to node address, as in etcd."""
    return {each["subnet"]: each["node_address"] for each in mesh.hosts["host2"].leases()}


def route(host: Host, subnet: str) -> Any:  # noqa: ANN401  # as ip -j prints it
    return next((each["gateway"] for each in host.mesh_routes() if each["dst"] == subnet), None)


def heartbeat_is_gone(mesh: Lab, host: Host) -> bool:
    beats = mesh.etcd["etcd1"].keys("/hostmesh/hosts/")
    return not any(f'"{host.address}"' in value for value in beats.values())


def test_promise_1_a_clone_beside_its_original_is_reported_on_both_and_gets_no_lease(
    mesh: Lab, clone: Host
) -> None:
    original, other = mesh.hosts["host1"], mesh.hosts["host2"]
    before, subnet = leases(mesh), original.lease() or ""
    clone.start_agent()
    found = clone.wait_condition(_CLONED, 30)
    assert "host1" in found["cause"]
    found = original.wait_condition(_CLONED, 10)
    assert str(clone.address) in found["cause"]
    assert "systemd-machine-id-setup" in found["hint"]
    assert clone.lease() is None
    assert leases(mesh) == before
    assert route(other, subnet) == str(original.address)
    # Follow the hint: an identity of its own, a subnet of its own.
    clone.write_file("/etc/machine-id", "5ca1ab1e" * 4 + "\n")
    clone.restart_agent()
    wait_until(clone.ready, 60, "the host that was a clone to be ready")
    assert clone.lease() not in {None, *before}
    wait_until(lambda: _CLONED not in original.conditions(), 15, "the original's report to end")
    assert original.lease() == subnet
    clone.agentctl("leave", timeout_s=120)
    clone.write_file("/etc/machine-id", original.read_file("/etc/machine-id"))


def test_promise_1_a_clone_that_starts_while_the_original_is_cut_off_from_etcd(
    mesh: Lab, clone: Host
) -> None:
    """The heartbeat has lapsed; the probe of the old node address finds the original there."""
    original, other = mesh.hosts["host1"], mesh.hosts["host2"]
    before, subnet = leases(mesh), original.lease() or ""
    cut = ["OUTPUT", "-p", "tcp", "--dport", "2379", "-j", "DROP"]
    original.run(["iptables", "-I", *cut])
    try:
        wait_until(lambda: heartbeat_is_gone(mesh, original), 40, "its heartbeat to lapse")
        clone.start_agent()
        clone.wait_condition(_CLONED, 40)
        assert leases(mesh) == before
        assert route(other, subnet) == str(original.address)
    finally:
        original.run(["iptables", "-D", *cut])
    original.wait_condition(_CLONED, 40)
    assert original.lease() == subnet
    assert clone.lease() is None
    assert leases(mesh) == before


@pytest.mark.full
def test_promise_1_an_original_cut_off_from_everything_does_not_share_when_it_returns(
    mesh: Lab, clone: Host
) -> None:
    """It cannot be distinguished from a host that was rebooted: the clone alone has the lease."""
    original = mesh.hosts["host1"]
    subnet = original.lease() or ""
    original.cable("silent")
    try:
        wait_until(lambda: heartbeat_is_gone(mesh, original), 40, "its heartbeat to lapse")
        clone.start_agent()
        wait_until(lambda: clone.lease() == subnet, 40, "the clone to pass for the original")
    finally:
        original.cable("up")
    original.wait_condition(_CLONED, 60)
    clone.wait_condition(_CLONED, 30)
    assert leases(mesh)[subnet] == str(clone.address)
    assert route(mesh.hosts["host2"], subnet) == str(clone.address)
    clone.kill()  # gone for good: the original is the one that is left
    wait_until(
        lambda: leases(mesh).get(subnet) == str(original.address), 60, "the lease to be its again"
    )
    wait_until(original.ready, 30, "the original to be ready")


@pytest.mark.full
def test_promise_3_a_host_whose_subnet_is_taken_moves_only_when_docker_may_be_restarted(
    mesh: Lab,
) -> None:
    """Away past its TTL, and another host has the subnet: what runs keeps running."""
    host = mesh.hosts["host1"]
    subnet = host.lease() or ""
    address = host.start_container("works")
    host.pause_agent()
    thief = {"PublicIP": "192.168.50.99", "BackendType": "host-gw"}
    key = f"/hostmesh/subnets/{subnet.replace('/', '-')}"
    mesh.etcdctl("put", key, json.dumps(thief))
    host.resume_agent()
    found = host.wait_condition("lease-taken", 30)
    assert "192.168.50.99" in found["cause"]
    assert host.ping(address)
    assert leases(mesh)[subnet] == "192.168.50.99", "the new owner was overwritten"
    assert str(host.address) not in leases(mesh).values(), "it announced what it does not own"
    host.docker("rm", "-f", "works")
    wait_until(lambda: str(host.address) in leases(mesh).values(), 60, "another subnet")
    wait_until(host.ready, 90, "Docker to have it")
    assert host.lease() != subnet
    assert leases(mesh)[subnet] == "192.168.50.99"
    mesh.etcdctl("del", key)
