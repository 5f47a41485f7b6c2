"""A host and its peers with mesh networks, as values."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from types import MappingProxyType

from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, DockerFacts, DockerNetwork, HostId
from agent.model.network import NETWORK_LABEL, MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap
from tests.unit.small_mesh import CONFIG, UPLINK, lease

ME = HostId("0" * 32)


def host(number: int) -> HostId:
    found = lease(number).host_id
    assert found is not None
    return found


def network(
    name: str = "web_default",
    subnet: str = "10.64.1.0/24",
    label: str | None = "web",
    *,
    internal: bool = False,
) -> DockerNetwork:
    labels = {} if label is None else {NETWORK_LABEL: label}
    return DockerNetwork(
        id=f"id-{name}",
        name=name,
        bridge=f"br-{name[:9]}",
        subnet=IPv4Network(subnet),
        internal=internal,
        labels=MappingProxyType(labels),
    )


def claim(number: int, name: str = "web", subnet: str = "", age: int = 5) -> NetworkSlice:
    """Host ``number`` says that its part of ``name`` is there."""
    return NetworkSlice(
        host_id=host(number),
        network=name,
        subnet=IPv4Network(subnet or f"10.{64 + number}.1.0/24"),
        create_revision=age,
    )


def world(
    *docker: DockerNetwork,
    slices: tuple[NetworkSlice, ...] = (),
    records: tuple[MeshNetwork, ...] = (),
    peers: int = 3,
) -> World:
    """Return the world of host 0, whose Docker has these networks."""
    return World(
        host_id=ME,
        config=replace(CONFIG, level=NETWORKS_LEVEL),
        own=lease(0),
        peers=SharedMap({lease(n).subnet: lease(n) for n in range(1, peers + 1)}),
        uplink=UPLINK,
        docker=DockerFacts(reachable=True, networks=docker),
        slices=SharedMap({(each.host_id, each.network): each for each in slices}),
        networks=SharedMap({each.name: each for each in records}),
        complete=True,
    )
