"""Endpoints that count: a change costs what changed and gives what a full computation gives."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mesh.endpoints import AcceptedEndpoints
from agent.model import Access, DockerState, Heartbeat, HostId, Lease, View
from agent.model.endpoint import Endpoint, EndpointAddress, EndpointView
from agent.model.network import MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.property

_CONFIG = replace(CONFIG, level=3)
_HOSTS = [HostId(f"{number:032x}") for number in range(2)]
_NAMES = ("shop", "db")

elsewhere = st.sampled_from([0, 0, 0, 0, 1, -1])
"""Most of what hosts say is true."""


def subnets(host: HostId) -> st.SearchStrategy[IPv4Network]:
    """The first /24s of a host's lease, and now and then those of another."""
    return st.builds(
        lambda other, index: IPv4Network(f"10.{64 + _HOSTS.index(host) + other}.{index}.0/24"),
        elsewhere,
        st.integers(0, 1),
    )


@st.composite
def endpoints(draw: st.DrawFn, host: HostId) -> Endpoint:
    number = draw(st.integers(0, 2))
    places = st.builds(
        EndpointAddress,
        network=st.just("n"),
        address=subnets(host).map(lambda subnet: IPv4Address(subnet[2])),
        mesh_network=st.sampled_from(["", *_NAMES]),
        access=st.just(Access.OPEN),
        aliases=st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple),
    )
    return Endpoint(
        host_id=host,
        container_id=f"{number:016x}" + "c" * 48,
        name=f"web{number}",
        addresses=tuple(draw(st.lists(places, max_size=2))),
        boot_id=draw(st.sampled_from(["", "", "b1", "b2"])),
    )


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Any]:
    kind = draw(
        st.sampled_from(
            ["put", "put", "put", "slice", "slice", "gone", "lease", "beat", "record", "config"]
        )
    )
    host = draw(st.sampled_from(_HOSTS))
    name = draw(st.sampled_from(_NAMES))
    value: Any = None
    if kind in {"put", "gone"}:
        value = draw(endpoints(host))
    elif kind == "lease":
        value = host, draw(st.booleans())
    elif kind == "slice":
        value = host, name, draw(st.none() | subnets(host))
    elif kind == "beat":
        value = host, draw(st.sampled_from(["", "b1", "b2"]))
    elif kind == "record":
        value = name, draw(st.none() | st.sampled_from([(), (host,)]))
    else:
        value = draw(st.sampled_from([{"level": 2}, {"level": 3}, {"declared_networks": True}]))
    return kind, value


def heartbeat(host_id: HostId, boot_id: str) -> Heartbeat:
    return Heartbeat(
        host_id=host_id,
        host_name="h",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="0.2.0",
        started_s=1.0,
        boot_id=boot_id,
    )


def _changed(found: Any, key: object, value: object) -> Any:  # noqa: ANN401  # of each kind
    return SharedMap(found).changed({key: value})


def _endpoint_change(view: EndpointView, kind: str, value: Endpoint) -> EndpointView:
    key = value.host_id, value.container_id[:16]
    found = _changed(view.endpoints, key, value if kind == "put" else None)
    return replace(view, endpoints=found, revision=view.revision + 1, complete=True)


def _mesh_change(view: View, kind: str, value: Any) -> View:  # noqa: ANN401  # of each kind
    view = replace(view, revision=view.revision + 1)
    if kind == "lease":
        host, there = value
        leases = [each for each in view.leases if each.host_id != host]
        own: Lease = lease(_HOSTS.index(host))
        return replace(view, leases=[*leases, own] if there else leases)
    if kind == "slice":
        host, name, subnet = value
        part = subnet and NetworkSlice(host_id=host, network=name, subnet=subnet)
        return replace(view, slices=_changed(view.slices, (host, name), part))
    if kind == "beat":
        host, boot = value
        beat = heartbeat(host, boot)
        return replace(view, heartbeats=_changed(view.heartbeats, host, beat))
    if kind == "record":
        name, hosts = value
        record = None if hosts is None else MeshNetwork(name=name, hosts=hosts)
        return replace(view, networks=_changed(view.networks, name, record))
    assert view.config is not None
    return replace(view, config=replace(view.config, **value))


@settings(max_examples=200)
@given(st.lists(changes(), max_size=20), st.sampled_from([8, 32_768]))
def test_following_gives_what_a_full_computation_gives(
    steps: list[tuple[str, Any]], most: int
) -> None:
    published = EndpointView()
    mesh = View(cluster_id=1, revision=1, config=_CONFIG, leases=list(map(lease, range(2))))
    followed = AcceptedEndpoints(most_names=most).follow(mesh=mesh)
    for kind, value in steps:
        before = followed
        if kind in {"put", "gone"}:
            published = _endpoint_change(published, kind, value)
            followed = followed.follow(published=published)
        else:
            mesh = _mesh_change(mesh, kind, value)
            followed = followed.follow(mesh=mesh)
        full = AcceptedEndpoints(most_names=most).follow(published, mesh)
        assert followed.endpoints == full.endpoints
        assert followed.set_aside == full.set_aside
        for key, each in followed.endpoints.items():
            assert before.endpoints.get(key) != each or before.endpoints[key] is each
            _in_bounds(each, mesh)
            names = sum(2 + sum(1 + len(p.aliases) for p in e.addresses)
                        for e in followed.endpoints.values() if e.host_id == key[0])  # fmt: skip
            assert names <= most


def _in_bounds(endpoint: Endpoint, mesh: View) -> None:
    """Promise 8: no host gives a name to an address that is not its own."""
    for place in endpoint.addresses:
        assert any(place.address in each.subnet for each in mesh.leases_of(endpoint.host_id))
        if place.mesh_network:
            part = mesh.slices[endpoint.host_id, place.mesh_network]
            assert place.address in part.subnet
