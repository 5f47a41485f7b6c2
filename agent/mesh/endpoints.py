"""Decide which endpoints of the hosts count, with which of their addresses. Pure.

A host says which containers it has. An address counts inside a lease of that host only, and one of
a mesh network inside the host's slice of it: no host can give a name to another's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from agent.mesh.networks.claims import refusal_by_mesh
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, HostId, Lease, MeshConfig, View
from agent.model.endpoint import Endpoint, EndpointAddress, EndpointView
from agent.model.family import within
from agent.sharedmap import SharedMap, changed_keys

__all__ = ["NAMES_OF_HOST_MOST", "AcceptedEndpoints"]

NAMES_OF_HOST_MOST: Final = 32_768
"""Names of containers, services and aliases: of one host no more count."""

_Key = tuple[HostId, str]
_NOTHING: Final = View(cluster_id=0, revision=0)


@dataclass(frozen=True, slots=True)
class _OfHost:
    """The containers that a host publishes, and how many names they have."""

    containers: frozenset[str] = frozenset()
    names: int = 0


@dataclass(frozen=True, slots=True)
class AcceptedEndpoints:
    """The endpoints that count. A later value costs what changed since this one.

    Attributes:
        published: All endpoints, as the hosts say.
        mesh: The view by which they are judged.
        endpoints: Those that count, without the addresses that do not.
        set_aside: Why an endpoint, or an address of it, does not count.
        without: A host whose endpoints are left out, such as this one.
        most_names: So many of one host count, in order of the containers' ids.
    """

    published: EndpointView = field(default_factory=EndpointView)
    mesh: View = _NOTHING
    endpoints: SharedMap[_Key, Endpoint] = field(default_factory=SharedMap)
    set_aside: SharedMap[_Key, str] = field(default_factory=SharedMap)
    without: HostId | None = None
    most_names: int = NAMES_OF_HOST_MOST
    _hosts: SharedMap[HostId, _OfHost] = field(default_factory=SharedMap)

    @property
    def complete(self) -> bool:
        """Return whether an endpoint that is not here is known not to be there."""
        return self.published.complete and not self.mesh.cached and self.mesh is not _NOTHING

    def follow(
        self, published: EndpointView | None = None, mesh: View | None = None
    ) -> AcceptedEndpoints:
        """Return the endpoints that count in other views; None: the same view as before."""
        published, mesh = published or self.published, mesh or self.mesh
        differing = changed_keys(self.published.endpoints, published.endpoints)
        changed = {key for key in differing if key[0] != self.without}
        hosts = self._count(published, changed)
        whole = self._otherwise_judged(mesh) | set(self._limited(hosts, changed))
        judged = {key for key in changed if key[0] not in whole}
        judged.update((host, each) for host in whole for each in _containers(hosts, host))
        judged.update((host, each) for host in whole for each in _containers(self._hosts, host))
        found = replace(self, published=published, mesh=mesh, _hosts=hosts)
        return found._judging(judged, whole) if judged else found  # noqa: SLF001 - of this class

    def _count(self, published: EndpointView, changed: set[_Key]) -> SharedMap[HostId, _OfHost]:
        """Follow which containers each host has, and how many names they have."""
        found: dict[HostId, tuple[set[str], int]] = {}
        for key in changed:
            host, container = key
            if host not in found:
                known = self._hosts.get(host) or _OfHost()
                found[host] = set(known.containers), known.names
            containers, names = found[host]
            before, now = self.published.endpoints.get(key), published.endpoints.get(key)
            (containers.discard if now is None else containers.add)(container)
            found[host] = containers, names - _names(before) + _names(now)
        return self._hosts.changed(
            {
                host: _OfHost(frozenset(containers), names) if containers else None
                for host, (containers, names) in found.items()
            }
        )

    def _limited(self, hosts: SharedMap[HostId, _OfHost], changed: set[_Key]) -> Iterator[HostId]:
        """Yield hosts with a change of which the limit of names takes part, before or after."""
        for host in {host for host, _ in changed}:
            both = (index.get(host) for index in (self._hosts, hosts))
            if any(each is not None and each.names > self.most_names for each in both):
                yield host

    def _otherwise_judged(self, mesh: View) -> set[HostId]:
        """Return hosts of which every endpoint may be judged otherwise than before."""
        before = self.mesh
        if mesh is before:
            return set()
        records = mesh.networks is not before.networks and mesh.networks != before.networks
        if records or _terms(mesh.config) != _terms(before.config):
            return set(self._hosts)
        found: set[HostId] = set()
        for subnet in changed_keys(before.by_subnet, mesh.by_subnet):
            was, now = before.by_subnet.get(subnet), mesh.by_subnet.get(subnet)
            if _holder(was) != _holder(now):
                found.update(each.host_id for each in (was, now) if each and each.host_id)
        found.update(host for host, _ in changed_keys(before.slices, mesh.slices))
        for host in changed_keys(before.heartbeats, mesh.heartbeats):
            if _boot_id(before, host) != _boot_id(mesh, host):
                found.add(host)
        return found

    def _judging(self, judged: Iterable[_Key], whole: set[HostId]) -> AcceptedEndpoints:
        too_many = {key for host in whole for key in self._beyond_limit(host)}
        accepted: dict[_Key, Endpoint | None] = {}
        aside: dict[_Key, str | None] = {}
        for key in judged:
            endpoint = self.published.endpoints.get(key)
            if endpoint is None:
                accepted[key] = aside[key] = None
            elif key in too_many:
                accepted[key] = None
                aside[key] = f"its host has more than {self.most_names} names, and no more count"
            else:
                accepted[key], aside[key] = self._judge(endpoint)
        for each, value in accepted.items():
            if value is not None and value == self.endpoints.get(each):
                accepted[each] = self.endpoints[each]  # followers compare by identity
        return replace(
            self,
            endpoints=self.endpoints.changed(accepted),
            set_aside=self.set_aside.changed(aside),
        )

    def _beyond_limit(self, host: HostId) -> Iterator[_Key]:
        of_host = self._hosts.get(host)
        if of_host is None or of_host.names <= self.most_names:
            return
        names = 0
        for container in sorted(of_host.containers):
            names += _names(self.published.endpoints.get((host, container)))
            if names > self.most_names:
                yield host, container

    def _judge(self, endpoint: Endpoint) -> tuple[Endpoint | None, str | None]:
        """Return an endpoint with the addresses that count; why some or all do not."""
        config = self.mesh.config
        if not endpoint.addresses:
            return None, None
        if config is None or config.level < NETWORKS_LEVEL:
            return None, f"the mesh is below level {NETWORKS_LEVEL}"
        boot_id = _boot_id(self.mesh, endpoint.host_id)
        if boot_id and endpoint.boot_id not in {"", boot_id}:
            return None, "it ran before its host was rebooted"
        refused = {each: self._refusal(endpoint.host_id, each) for each in endpoint.addresses}
        reasons = [f"{each.address}: {why}" for each, why in refused.items() if why]
        if not reasons:
            return endpoint, None
        kept = tuple(each for each, why in refused.items() if not why)
        return (replace(endpoint, addresses=kept) if kept else None), "; ".join(reasons[:3])

    def _refusal(self, host_id: HostId, place: EndpointAddress) -> str:
        """Return why an address of a host's container does not count, or ""."""
        leases = self.mesh.leases_of(host_id)
        lease = next((each for each in leases if place.address in each.subnet), None)
        if lease is None:
            return "in no lease of its host"
        if not place.mesh_network:
            return ""
        found = self.mesh.slices.get((host_id, place.mesh_network))
        if found is None or not within(found.subnet, lease.subnet):
            return f"its host has no part of mesh network {place.mesh_network}"
        if place.address not in found.subnet:
            return f"outside {found.subnet}, its host's part of mesh network {place.mesh_network}"
        world = World(config=self.mesh.config, networks=self.mesh.networks)
        return refusal_by_mesh(world, place.mesh_network, host_id, lease.host_name)


def _names(endpoint: Endpoint | None) -> int:
    """Return how many names an endpoint has, as it says."""
    if endpoint is None:
        return 0
    return 2 + sum(1 + len(each.aliases) for each in endpoint.addresses)


def _containers(hosts: SharedMap[HostId, _OfHost], host: HostId) -> frozenset[str]:
    found = hosts.get(host)
    return found.containers if found else frozenset()


def _terms(config: MeshConfig | None) -> tuple[object, ...]:
    """Return all of the config that every endpoint is judged by."""
    return (None,) if config is None else (config.level, config.declared_networks)


def _holder(lease: Lease | None) -> tuple[object, ...]:
    return (None,) if lease is None else (lease.host_id, lease.host_name)


def _boot_id(mesh: View, host_id: HostId) -> str:
    beat = mesh.heartbeats.get(host_id)
    return beat.boot_id if beat else ""
