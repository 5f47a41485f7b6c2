"""Decide which slices of other hosts count. Pure.

:class:`AcceptedSlices` follows the world: a change of one host's slices or leases costs that host.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final, TypeVar

from agent.mesh.networks.claims import is_allowed_here, refusal_by_mesh, spans_hosts
from agent.mesh.ranges import OverlapIndex
from agent.mesh.world import World
from agent.model import Condition, HostId, Lease, summarise
from agent.model.family import Network, meet, within
from agent.model.network import NetworkSlice
from agent.sharedmap import changed_keys

__all__ = ["AcceptedSlices", "SliceChanges", "accepted_slices"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_Key = tuple[HostId, str]
_Change = tuple[NetworkSlice | None, NetworkSlice | None]

SliceChanges = Mapping[_Key, _Change]
"""By host and network: the slice that counted before, and the one that counts now."""

_MOST_OF_HOST: Final = 1024


class AcceptedSlices:
    """The slices of other hosts that count on this host. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._world = World()
        self._leases: dict[HostId, dict[Network, Lease]] = {}
        self._names: dict[HostId, set[str]] = {}
        self._hosts: dict[str, set[HostId]] = {}
        """Of each name: the hosts that published a slice, whether it counts or not."""
        self._used: dict[HostId, dict[str, NetworkSlice]] = {}
        self._aside: dict[HostId, dict[str, str]] = {}
        self._summary: tuple[Condition, ...] | None = None

    def of(self, name: str) -> Mapping[HostId, NetworkSlice]:
        """Return the slices of one mesh network that count, by host."""
        found = ((host, self._used.get(host, {}).get(name)) for host in self._hosts.get(name, ()))
        return {host: each for host, each in found if each is not None}

    @property
    def set_aside(self) -> Mapping[_Key, str]:
        """Why slices do not count, by host and network.

        Those of networks that this host takes no part in are not among them.
        """
        return {(host, name): why for host, of in self._aside.items() for name, why in of.items()}

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions for the operator, bounded."""
        if self._summary is None:
            self._summary = summarise(
                self._condition(host, name, why)
                for (host, name), why in sorted(self.set_aside.items())
            )
        return self._summary

    def follow(self, world: World) -> SliceChanges:
        """Follow the world; return what counts now and did not, or counts no longer."""
        before, self._world = self._world, world
        hosts: set[HostId] = set()
        for subnet in changed_keys(before.peers, world.peers):
            leases = before.peers.get(subnet), world.peers.get(subnet)
            hosts.update(each.host_id for each in leases if each and each.host_id is not None)
            self._follow_lease(subnet, *leases)
        for host, name in changed_keys(before.slices, world.slices):
            _note(self._names, host, name, there=(host, name) in world.slices)
            _note(self._hosts, name, host, there=(host, name) in world.slices)
            hosts.add(host)
        records = changed_keys(before.networks, world.networks)
        hosts.update(chain.from_iterable(self._hosts.get(name, ()) for name in records))
        if _terms(before) != _terms(world):
            hosts.update(self._names)
        changes: dict[_Key, _Change] = {}
        for each in hosts:
            self._judge(each, changes)
        return changes

    def _follow_lease(self, subnet: Network, before: Lease | None, now: Lease | None) -> None:
        if before is not None and before.host_id is not None:
            of_host = self._leases[before.host_id]
            del of_host[subnet]
            if not of_host:
                del self._leases[before.host_id]
        if now is not None and now.host_id is not None:
            self._leases.setdefault(now.host_id, {})[subnet] = now

    def _judge(self, host: HostId, changes: dict[_Key, _Change]) -> None:
        """Judge the slices of one host, the older ones first."""
        before = self._used.get(host, {})
        used: dict[str, NetworkSlice] = {}
        aside: dict[str, str] = {}
        taken = OverlapIndex()
        for each in self._claims(host):
            name = each.network
            why = self._refusal(each, taken)
            if not why and len(used) == _MOST_OF_HOST:
                why = f"the host has {_MOST_OF_HOST} older ones, and no more count"
            if why:
                aside[name] = why
            else:
                taken.add(each.subnet)
                used[name] = each
        for name in before.keys() | used.keys():
            pair = before.get(name), used.get(name)
            if pair[0] != pair[1]:
                changes[host, name] = pair
        if aside or host in self._aside:  # a condition names the host as its lease does
            self._summary = None
        _put(self._used, host, used)
        _put(self._aside, host, aside)

    def _claims(self, host: HostId) -> list[NetworkSlice]:
        """Return the slices of one host that concern this one, the older ones first."""
        world = self._world
        if host == world.host_id or not spans_hosts(world):
            return []
        names = (each for each in self._names.get(host, ()) if is_allowed_here(world, each))
        found = (world.slices[host, each] for each in names)
        return sorted(found, key=lambda each: (each.create_revision, each.network))

    def _refusal(self, claim: NetworkSlice, taken: OverlapIndex) -> str:
        """Return why a slice of another host does not count, or ""."""
        world, subnet = self._world, claim.subnet
        leases = self._leases.get(claim.host_id, {}).values()
        lease = next((each for each in leases if within(subnet, each.subnet)), None)
        if lease is None:
            return f"{subnet} is in no lease of the host"
        if any(meet(subnet, own) for own in world.own_subnets):
            return f"{subnet} overlaps this host's own lease"
        # Leases of two hosts never overlap, so only the host's own slices can.
        older = taken.find(subnet)
        if older is not None:
            return f"{subnet} overlaps {older}, an older slice of the host"
        return refusal_by_mesh(world, claim.network, claim.host_id, lease.host_name)

    def _condition(self, host: HostId, name: str, why: str) -> Condition:
        leases = self._leases.get(host, {}).values()
        called = next((each.host_name for each in leases if each.host_name), host)
        return Condition(
            name="slice-set-aside",
            subject=f"{host}/{name}",
            cause=f"the slice of mesh network {name} that host {called} publishes does not count:"
            f" {why}",
            hint=f"see agentctl network inspect {name}; its record says which hosts take part",
        )


def _note(index: dict[_K, set[_V]], key: _K, value: _V, *, there: bool) -> None:
    """Enter a value under a key, or take it out."""
    if there:
        index.setdefault(key, set()).add(value)
    elif key in index:
        index[key].discard(value)
        if not index[key]:
            del index[key]


def _put(index: dict[_K, dict[str, _V]], key: _K, values: dict[str, _V]) -> None:
    if values:
        index[key] = values
    else:
        index.pop(key, None)


def _terms(world: World) -> tuple[object, ...]:
    """Return all that every slice is judged by, beside leases and records."""
    declared = world.config is not None and world.config.declared_networks
    return (
        world.host_id,
        spans_hosts(world),
        declared,
        world.allowed_networks,
        world.own_subnets,
    )


def accepted_slices(world: World) -> AcceptedSlices:
    """Return the slices of other hosts that count in ``world``, computed at once."""
    found = AcceptedSlices()
    found.follow(world)
    return found
