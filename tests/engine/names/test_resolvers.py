"""Real resolvers of three C libraries, on docker0 and on user networks of a real engine.

The snapshot is written by the test: no agent runs.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hostmesh_lab.filesystems import libc_image
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.dns_load import DnsLoad
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import NAME_SERVERS, HostOptions
from hostmesh_lab.wait import wait_until

from agent.dns.snapshot import LOCAL_FILE, encode_host, encode_local
from agent.model import HostId
from agent.model.names import (
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)

pytestmark = pytest.mark.engine

DOMAIN = "hostmesh.internal"
LAB = LabOptions(
    name="resolvers",
    hosts=1,
    etcd_members=0,
    host=HostOptions(
        agent=False,
        images=libc_image.NAMES,
        daemon_json={"dns": list(NAME_SERVERS), "dns-search": [DOMAIN, "example"]},
    ),
)
HERE, THERE = HostId("a" * 32), HostId("b" * 32)
API = "10.65.1.2"
FOLDER = "/var/lib/hostmesh/names"
CLIENTS = {"glibc": "lab-glibc", "musl": "lab-musl", "busybox": "lab"}
NETWORKS = {"docker0": "bridge", "user": "web"}


def write_names(host: Host) -> None:
    """Write the snapshot that an agent would write: an api of another host in network web."""
    networks = tuple(_local(host, each) for each in NETWORKS.values())
    local = LocalNames(
        domain=DOMAIN,
        host_id=HERE,
        boot_id=host.run(["cat", "/proc/sys/kernel/random/boot_id"])
        .stdout.strip()
        .replace("-", ""),
        complete=True,
        ranges=(IPv4Network("10.64.0.0/10"),),
        networks=networks,
    )
    api = NamedAddress(
        address=IPv4Address(API),
        names=(Name("api.web", NameKind.NETWORK), Name("api", NameKind.PLAIN)),
        network="web",
        mesh_network="web",
        pointer="api.web",
    )
    cache = replace(
        api,
        address=IPv4Address("172.17.0.99"),
        names=(Name("cache", NameKind.PLAIN),),
        network="bridge",
        mesh_network="",
        pointer="",
    )
    for host_id, each in ((THERE, api), (HERE, cache)):
        content = encode_host(HostNames(host_id=host_id, addresses=(each,)))
        host.write_file(f"{FOLDER}/{host_id}.json", content.decode())
    host.write_file(f"{FOLDER}/{LOCAL_FILE}", encode_local(local).decode())


def _local(host: Host, network: str) -> LocalNetwork:
    found = host.inspect(network)
    bridge = "docker0" if network == "bridge" else f"br-{found['Id'][:12]}"
    subnet = IPv4Network(found["IPAM"]["Config"][0]["Subnet"])
    mesh_network = "" if network == "bridge" else network
    return LocalNetwork(name=network, bridge=bridge, subnets=(subnet,), mesh_network=mesh_network)


def found(host: Host, client: str, name: str) -> str:
    """Return the addresses that a client's resolver finds, as text."""
    if client.startswith("busybox"):
        done = host.docker("exec", client, "ping", "-c1", "-W1", name, check=False)
        said = done.stdout + done.stderr
        return said.partition("(")[2].partition(")")[0]
    done = host.docker("exec", client, "lookup", name, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def test_every_resolver_finds_names_of_the_mesh_of_docker_and_of_the_world(mesh: Lab) -> None:
    host = mesh.hosts["host1"]
    host.docker("network", "create", "web")
    write_names(host)
    host.start_container("own", network="web")
    for place, network in NETWORKS.items():
        for client, image in CLIENTS.items():
            host.start_container(
                f"{client}-{place}", image=image, network=network, command=["sleep", "600"]
            )
    wait_until(lambda: found(host, "glibc-user", "api") == API, 20, "the snapshot")
    own = str(host.container_address("own"))
    missing = []
    for client in CLIENTS:
        for place, wanted in (
            ("user", {"api": API, f"api.web.{DOMAIN}": API, "own": own, "world.example": ""}),
            ("docker0", {"cache": "172.17.0.99", f"api.web.{DOMAIN}": API, "world.example": ""}),
        ):
            for name, address in wanted.items():
                got = found(host, f"{client}-{place}", name)
                if got != (address or "203.0.113.7"):
                    missing.append((client, place, name, got))
    # Of a search list, the host's own domain comes after the mesh's: musl needs NXDOMAIN for that.
    missing += [
        (client, "docker0", "world", got)
        for client in CLIENTS
        if (got := found(host, f"{client}-docker0", "world")) != "203.0.113.7"
    ]
    # No resolver on docker0 gets the api of another network by its short name.
    missing += [
        (client, "docker0", "api", got)
        for client in CLIENTS
        if (got := found(host, f"{client}-docker0", "api")) != ""
    ]
    assert missing == []

    # The second server answers while PID 1 starts the first again.
    before = host.services()["dns-53"]["pid"]
    with DnsLoad(host, "glibc-user", f"api.web.{DOMAIN}") as load:
        host.service("signal", "dns-53", number=9)
        wait_until(lambda: host.services()["dns-53"]["pid"] not in (None, before), 10, "dns-53")
    assert load.lost == 0, load


def test_docker_gives_the_servers_to_containers_on_the_hosts_own_network(mesh: Lab) -> None:
    host = mesh.hosts["host1"]
    host.docker("network", "create", "web", check=False)  # the test above may have made it
    write_names(host)
    for client, image in CLIENTS.items():
        name = f"{client}-host"
        host.start_container(name, image=image, network="host", command=["sleep", "600"])
        wait_until(lambda: found(host, name, f"api.web.{DOMAIN}") == API, 20, f"api, for {name}")  # noqa: B023
        assert found(host, name, "world.example") == "203.0.113.7", name
