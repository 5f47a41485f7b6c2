"""Names of containers and hosts, one example of each rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType
from typing import Any

import pytest

from agent.mesh.names import NamesInput, local_names, mesh_names
from agent.mesh.world import World
from agent.model import (
    Access,
    Attachment,
    Container,
    DockerFacts,
    DockerNetwork,
    HostId,
    Lease,
    MeshConfig,
)
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.model.family import Network
from agent.model.names import HostNames, LocalNetwork
from agent.model.network import NETWORK_LABEL
from agent.sharedmap import SharedMap

pytestmark = pytest.mark.unit

HERE, THERE = HostId("a" * 32), HostId("b" * 32)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/12"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.79.0.0"),
    level=3,
    domain="mesh.example",
)


def lease(number: int, host: HostId, name: str) -> Lease:
    return Lease(
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        backend="host-gw",
        host_id=host,
        host_name=name,
        create_revision=number + 1,
    )


def place(address: str, network: str = "app", mesh: str = "", **more: Any) -> EndpointAddress:  # noqa: ANN401
    return replace(
        EndpointAddress(network=network, address=IPv4Address(address), mesh_network=mesh), **more
    )


def endpoint(name: str, *places: EndpointAddress, **more: Any) -> Endpoint:  # noqa: ANN401
    return replace(
        Endpoint(host_id=THERE, container_id=f"{name:0>64}", name=name, addresses=places), **more
    )


def peers_at(leases: Mapping[Network, Lease]) -> SharedMap[Network, Lease]:
    return SharedMap(leases)


WORLD = World(
    host_id=HERE,
    config=CONFIG,
    own=lease(0, HERE, "one"),
    peers=peers_at({IPv4Network("10.65.0.0/16"): lease(1, THERE, "two")}),
)


def names_of(*shown: Endpoint, world: World = WORLD, host: HostId = THERE) -> HostNames:
    found = {(each.host_id, each.container_id): each for each in shown}
    return mesh_names(NamesInput(world=world, endpoints=SharedMap(found)))[host]


def texts(names: HostNames) -> dict[str, list[str]]:
    return {str(each.address): [name.text for name in each.names] for each in names.addresses}


def test_a_container_has_names_in_its_network_project_and_host() -> None:
    web = endpoint(
        "shop-api-1",
        place("10.65.0.9", "shop", "web", aliases=("api", "backend")),
        place("10.65.7.9", "bridge"),
        project="shop",
        service="api",
    )
    names = names_of(web)
    common = ["api.shop", "shop-api-1.two"]
    assert texts(names) == {
        "192.0.2.1": ["two.host"],
        "10.65.0.9": [
            *("shop-api-1.web", "api.web", "backend.web"),
            *(*common, "shop-api-1", "api", "backend"),
        ],
        "10.65.7.9": [*common, "shop-api-1", "api"],
    }
    assert [each.pointer for each in names.addresses] == ["", "shop-api-1.web", "shop-api-1.two"]


def test_characters_that_dns_does_not_take_are_hyphens_and_the_exact_name_wins() -> None:
    odd = [
        endpoint(name, place(f"10.65.0.{number}"))
        for number, name in enumerate(["a_b", "a.b", "a-b"], 1)
    ]
    found = texts(names_of(*odd))
    assert found["10.65.0.3"] == ["a-b.two", "a-b"]
    assert found["10.65.0.1"] == ["a-b-648fa9.two", "a-b-648fa9"]
    assert found["10.65.0.2"][0] not in {"a-b.two", "a-b-648fa9.two"}
    assert texts(names_of(endpoint("My_App.1", place("10.65.0.1"))))["10.65.0.1"] == [
        "my-app-1.two",
        "my-app-1",
    ]


def test_a_hosts_name_is_the_older_hosts_and_host_is_reserved() -> None:
    peers: dict[Network, Lease] = {IPv4Network("10.65.0.0/16"): lease(1, THERE, "one")}
    young = replace(WORLD, peers=peers_at(peers))
    assert texts(names_of(world=young))["192.0.2.1"] == [f"one-{THERE}.host"]
    assert texts(names_of(world=young, host=HERE))["192.0.2.0"] == ["one.host"]
    reserved = replace(
        WORLD, peers=peers_at({IPv4Network("10.65.0.0/16"): lease(1, THERE, "host")})
    )
    one = endpoint("db", place("10.65.0.1"), project="host", service="db")
    assert texts(names_of(one, world=reserved))["10.65.0.1"] == [f"db.host-{THERE}", "db"]


def test_an_unhealthy_container_is_named_as_such() -> None:
    states = {
        Health.NONE: True,
        Health.HEALTHY: True,
        Health.STARTING: False,
        Health.UNHEALTHY: False,
    }
    for health, healthy in states.items():
        names = names_of(endpoint("db", place("10.65.0.1"), health=health))
        assert names.addresses[1].healthy is healthy


def test_a_host_that_cannot_be_reached_has_no_names() -> None:
    dead = replace(WORLD, dead_subnets=frozenset({IPv4Network("10.65.0.0/16")}))
    found = {(THERE, "c"): endpoint("db", place("10.65.0.1"))}
    assert mesh_names(NamesInput(world=dead, endpoints=SharedMap(found))).keys() == {HERE}


def docker(*networks: DockerNetwork, containers: tuple[Container, ...] = ()) -> DockerFacts:
    return DockerFacts(reachable=True, networks=networks, containers=containers)


def network(identity: str, name: str, subnet: str, **labels: str) -> DockerNetwork:
    return DockerNetwork(
        id=identity,
        name=name,
        bridge=f"br-{identity}",
        subnet=IPv4Network(subnet),
        labels=MappingProxyType(labels),
        address=IPv4Interface(subnet.replace(".0/", ".1/")),
        default=name == "bridge",
    )


def test_a_label_on_a_network_of_this_host_counts_where_its_slice_does() -> None:
    labels = {NETWORK_LABEL: "web"}
    inside = network("1", "w", "10.64.128.0/24", **labels)
    outside = network("2", "w", "172.18.0.0/16", **labels)
    one = endpoint("db", place("10.64.128.2", "w", "web"), host_id=HERE)
    for found, expected in ((inside, ["db.web", "db.one", "db"]), (outside, ["db.one", "db"])):
        world = replace(WORLD, docker=docker(found))
        names = mesh_names(NamesInput(world=world, own=(one,)))[HERE]
        assert texts(names)["10.64.128.2"] == expected


def test_the_servers_get_this_hosts_networks_and_the_askers_of_several() -> None:
    app = network("1", "app", "10.64.128.0/24", **{NETWORK_LABEL: "web", "hostmesh.access": "open"})
    bridge = network("2", "bridge", "10.64.0.0/17")
    first, second = (
        Attachment(each, IPv4Address(address), "")
        for each, address in (("1", "10.64.128.2"), ("2", "10.64.0.2"))
    )
    containers = (
        Container("c1", "both", (first, second)),
        Container("c2", "one", (Attachment("2", IPv4Address("10.64.0.3"), ""),)),
    )
    world = replace(WORLD, docker=docker(app, bridge, containers=containers))
    found = local_names(world, Access.PUBLISHED, "boot", complete=True)
    assert found is not None
    assert found.networks == (
        LocalNetwork(name="app", bridge="br-1", subnets=(app.subnet,), mesh_network="web"),
        LocalNetwork(name="bridge", bridge="br-2", subnets=(bridge.subnet,)),
    )
    assert found.askers == dict.fromkeys((first.address, second.address), ("app", "bridge"))
    assert (found.domain, found.complete, found.ranges) == ("mesh.example", True, (CONFIG.cidr,))
    off = replace(world, config=replace(CONFIG, domain=""))
    assert local_names(off, Access.OPEN, "boot", complete=True) is None
