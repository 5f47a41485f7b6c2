"""The mesh on each engine a Debian host can have, with both variants of iptables.

Docker 26.1 (trixie) is what the other modules run on; here are 20.10 (bookworm) and 28.5 (forky),
which drops mesh traffic before the filter table. tests/engine/firewall has 28.5 in `make test`;
this module is for `make test-full`. host1 has iptables-nft, host2 iptables-legacy.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import ECHO_REQUEST, Capture
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]

REJECT = HostOptions(reject_forward=True)


@pytest.fixture(scope="module", params=["bookworm", "forky"])
def mesh(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Lab]:
    """Two hosts of a suite with a container each."""
    suite: str = request.param
    try:
        images.ensure(suite, print)
    except LabError as error:
        pytest.skip(f"NOT TESTED: no root filesystem of {suite} could be made here: {error}")
    options = LabOptions(
        name="engines",
        hosts=2,
        suite=suite,
        host=REJECT,
        hosts_differ={"host2": HostOptions(reject_forward=True, iptables="legacy")},
    )
    with make_lab(options) as lab:
        for host in lab.hosts.values():
            host.start_container("web")
        yield lab


def test_ours_stand_in_the_variant_that_docker_uses(mesh: Lab) -> None:
    for name, variant, other in (("host1", "nft", "legacy"), ("host2", "legacy", "nft")):
        host = mesh.hosts[name]
        assert any("HOSTMESH" in line for line in host.iptables("filter", variant=variant))
        assert not any("HOSTMESH" in line for line in host.iptables("filter", variant=other))


def test_containers_and_hosts_reach_remote_containers_with_true_addresses(mesh: Lab) -> None:
    for source, target in itertools.permutations(mesh.hosts.values(), 2):
        address = str(target.container_address("web"))
        assert source.fetch(f"http://{address}/"), f"{source.name} itself to {target.name}"
        with Capture(target, "docker0", "icmp") as capture:
            assert source.ping(address, container="web"), f"{source.name} to {target.name}"
            seen = capture.wait_for(lambda p: p.icmp_type == ECHO_REQUEST, 5, "the ping")
        assert str(seen.src) == str(source.container_address("web"))
        assert source.fetch(f"http://{address}/", container="web")


def test_promise_5_what_was_closed_stays_closed(mesh: Lab) -> None:
    host, other = mesh.hosts["host1"], mesh.hosts["host2"]
    stranger = mesh.stranger
    assert stranger is not None
    web = host.container_address("web")
    host.docker("network", "create", "blue")
    host.docker("network", "create", "--internal", "vault")
    stranger.run(["ip", "route", "add", host.lease() or "", "via", str(host.address)])
    try:
        blue = host.start_container("bb", network="blue", publish=["8081:80"])
        vault = host.start_container("vv", network="vault")
        assert stranger.run(["ping", "-c1", "-W1", str(web)], check=False).returncode != 0
        assert not host.ping(blue, container="web"), "two networks of one host"
        assert not other.ping(vault, container="web"), "an internal network"
        wait_until(
            lambda: other.fetch(f"http://{blue}/", container="web"), 15, "the published port"
        )
        host.docker("exec", "-d", "bb", "httpd", "-p", "81", "-h", "/")
        assert not other.fetch(f"http://{blue}:81/", container="web", timeout_s=1)
    finally:
        stranger.run(["ip", "route", "del", host.lease() or ""], check=False)
        host.docker("rm", "-f", "bb", "vv", check=False)
        host.docker("network", "rm", "blue", "vault", check=False)


def test_a_restarted_docker_and_flushed_rules_are_healed(mesh: Lab) -> None:
    for host, other in itertools.permutations(mesh.hosts.values(), 2):
        host.run(["iptables", "-t", "raw", "-F"])
        host.run(["lab-service", "restart", "docker"], timeout_s=120)
        host.docker("start", "web")
        wait_until(host.ready, 60, f"{host.name} to be ready")
        for source, target in ((host, other), (other, host)):
            address = str(target.container_address("web"))
            wait_until(
                lambda source=source, address=address: source.fetch(  # type: ignore[misc]
                    f"http://{address}/", container="web"
                ),
                20,
                f"{source.name} to reach {target.name}",
            )


def test_promise_9_the_doctor_finds_nothing_wrong_with_a_healthy_member(mesh: Lab) -> None:
    for host in mesh.hosts.values():
        done = host.agentctl("doctor", "-o", "json", check=False)
        document = json.loads(done.stdout)
        checks = [each for each in document["checks"] if each["check"] != "etcd access"]
        wrong = [each for each in checks if each["state"] != "ok"]  # the lab's etcd is in the clear
        assert (done.returncode, document["member"], wrong) == (0, True, []), host.name


def test_promise_9_ping_is_green_from_container_to_container(mesh: Lab) -> None:
    for host, peer in itertools.permutations(mesh.hosts.values(), 2):

        def steps(host: Host = host, peer: Host = peer) -> dict[str, str]:
            done = host.agentctl("ping", peer.name, "-o", "json", check=False)
            found = json.loads(done.stdout)["steps"]
            assert done.returncode == 0, found
            return {each["step"]: each["result"] for each in found}

        wait_until(lambda: set(steps().values()) == {"ok"}, 45, "heartbeats to name the containers")
        assert {"rules", "docker0", "container"} <= set(steps())
