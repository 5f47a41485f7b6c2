"""Follow the names of every host of the mesh: a change of one host costs that host. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from agent.mesh.liveness import probe_addresses
from agent.mesh.names.host_names import NamedHost, names_of_host
from agent.mesh.names.labels import host_label, label_of
from agent.mesh.networks import own_slices
from agent.mesh.world import World
from agent.model import HostId, Lease
from agent.model.endpoint import Endpoint, EndpointAddress
from agent.model.family import Network, network_order
from agent.model.names import OWN_LABEL, HostNames
from agent.sharedmap import SharedMap, changed_keys

__all__ = ["MeshNames", "NamesInput", "mesh_names"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_NEVER_STORED: Final = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesInput:
    """All that names depend on.

    Attributes:
        world: Leases, slices, and which hosts are dead.
        endpoints: Of other hosts, those that count (:mod:`agent.mesh.endpoints`).
        own: Of this host, as Docker says.
    """

    world: World
    endpoints: Mapping[tuple[HostId, str], Endpoint] = field(default_factory=SharedMap)
    own: tuple[Endpoint, ...] = ()


class MeshNames:
    """The names of every host that can be reached. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._input = NamesInput(world=World())
        self._own: tuple[Endpoint, ...] = ()
        self._leases: dict[HostId, dict[Network, Lease]] = {}
        self._endpoints: dict[HostId, dict[str, Endpoint]] = {}
        self._called: dict[str, set[HostId]] = {}
        """Hosts by the label that their name maps to."""
        self._labels: dict[HostId, str] = {}
        self.hosts: dict[HostId, HostNames] = {}
        """The names of each host."""

    def follow(self, now: NamesInput) -> Mapping[HostId, HostNames | None]:
        """Follow the mesh; return the names of each host where they changed, None for none."""
        before, self._input = self._input, now
        hosts = self._follow_leases(before.world, now.world)
        for host, container in changed_keys(before.endpoints, now.endpoints):
            _put(self._endpoints, host, container, now.endpoints.get((host, container)))
            hosts.add(host)
        own = tuple(_checked(now))
        if own != self._own:
            self._own = own
            hosts.add(now.world.host_id)
        hosts |= self._relabelled(hosts)
        changes: dict[HostId, HostNames | None] = {}
        for host in hosts:
            found = self._names(host)
            if found != self.hosts.get(host):
                changes[host] = found
                if found is None:
                    del self.hosts[host]
                else:
                    self.hosts[host] = found
        return changes

    def _follow_leases(self, before: World, now: World) -> set[HostId]:
        """Return the hosts whose leases changed, or whether they can be reached."""
        subnets = {*changed_keys(before.peers, now.peers), *before.own_subnets, *now.own_subnets}
        hosts: set[HostId] = set()
        for subnet in subnets:
            was, found = _lease(before, subnet), _lease(now, subnet)
            if was == found:
                continue
            for lease, kept in ((was, None), (found, found)):
                if lease is not None and lease.host_id is not None:
                    _put(self._leases, lease.host_id, subnet, kept)
                    hosts.add(lease.host_id)
        for subnet in before.dead_subnets ^ now.dead_subnets:
            lease = _lease(now, subnet)
            hosts.update([] if lease is None or lease.host_id is None else [lease.host_id])
        return hosts

    def _relabelled(self, hosts: Iterable[HostId]) -> set[HostId]:
        """Follow what hosts are called; return the hosts that share a label with one of them."""
        found: set[HostId] = set()
        for host in hosts:
            oldest = self._oldest(host)
            before, now = self._labels.pop(host, ""), label_of(oldest.host_name) if oldest else ""
            if before:
                self._called[before].discard(host)
                found |= self._called[before]
                if not self._called[before]:
                    del self._called[before]
            if now:
                self._labels[host] = now
                self._called.setdefault(now, set()).add(host)
                found |= self._called[now]
        return found

    def _oldest(self, host: HostId) -> Lease | None:
        found = self._leases.get(host, {}).values()
        return min(found, key=lambda each: (_age(each), network_order(each.subnet)), default=None)

    def _names(self, host: HostId) -> HostNames | None:
        world, oldest = self._input.world, self._oldest(host)
        dead = world.dead_subnets
        subnets = tuple(each for each in self._leases.get(host, {}) if each not in dead)
        if oldest is None or not subnets:
            return None
        named = NamedHost(
            host_id=host,
            label=self._label(host, oldest),
            address=probe_addresses(oldest)[0],
            subnets=subnets,
        )
        of_host = self._own if host == world.host_id else self._endpoints.get(host, {}).values()
        return names_of_host(named, of_host)

    def _label(self, host: HostId, oldest: Lease) -> str:
        called = self._labels.get(host, "")
        ranks = ((_age(lease), each) for each, lease in self._all_called(called))
        first = min(ranks, default=None)
        shared = called == OWN_LABEL or (first is not None and first[1] != host)
        return host_label(oldest.host_name, host, shared=shared)

    def _all_called(self, label: str) -> Iterator[tuple[HostId, Lease]]:
        for host in self._called.get(label, ()):
            oldest = self._oldest(host)
            if oldest is not None:
                yield host, oldest


def _age(lease: Lease) -> int:
    """Return etcd's revision at which a lease was made: no host can forge it."""
    return lease.create_revision or _NEVER_STORED


def _lease(world: World, subnet: Network) -> Lease | None:
    own = (each for each in (world.own, world.former) if each and each.subnet == subnet)
    return next(own, None) or world.peers.get(subnet)


def _put(index: dict[HostId, dict[_K, _V]], host: HostId, key: _K, value: _V | None) -> None:
    """Enter a value of a host, or take it out."""
    if value is not None:
        index.setdefault(host, {})[key] = value
    elif host in index:
        index[host].pop(key, None)
        if not index[host]:
            del index[host]


def _checked(now: NamesInput) -> Iterator[Endpoint]:
    """Yield this host's endpoints, in mesh networks only by slices that count.

    Other hosts judge the slice the same way: a label alone is no membership.
    """
    slices = {each.name: each.subnet for each in own_slices(now.world).slices}
    for endpoint in now.own:
        places = tuple(_place(each, slices) for each in endpoint.addresses)
        yield endpoint if places == endpoint.addresses else replace(endpoint, addresses=places)


def _place(place: EndpointAddress, slices: Mapping[str, Network]) -> EndpointAddress:
    subnet = slices.get(place.mesh_network)
    if not place.mesh_network or (subnet is not None and place.address in subnet):
        return place
    return replace(place, mesh_network="")


def mesh_names(now: NamesInput) -> Mapping[HostId, HostNames]:
    """Return the names of every host, computed at once."""
    found = MeshNames()
    found.follow(now)
    return found.hosts
