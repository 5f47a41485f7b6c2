"""Gather from the agent's documents which peers there are, and what should answer there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.errors import CannotTell, HostmeshError
from agent.model.family import Address, Network, read_address, read_network

__all__ = ["Facts", "PeerFacts", "Target", "read_facts"]

_CANDIDATES: Final = 2
"""At most this many containers of a peer are asked in each network: one may drop pings."""
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A name and the addresses that it should have, one of them at least."""

    name: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """A lease of another host, with its containers and names.

    Attributes:
        lease: Of GET /v1/leases.
        networks: Containers there, by mesh network; the first ones are asked.
        names: Of the host, and of its container.
    """

    lease: Document
    networks: Mapping[str, tuple[Target, ...]]
    names: tuple[Target, ...]

    @property
    def name(self) -> str:
        """The host's name, for messages."""
        return str(self.lease.get("host_name") or self.lease.get("node_address"))

    @property
    def subnet(self) -> Network:
        """Its lease's."""
        return read_network(str(self.lease["subnet"]))

    @property
    def node_address(self) -> Address:
        """By which peers reach it."""
        return read_address(str(self.lease["node_address"]))

    @property
    def container(self) -> Address | None:
        """The container that its heartbeat names."""
        found = self.lease.get("container")
        return read_address(str(found)) if found else None

    @property
    def docker0(self) -> Address:
        """The address of its docker0: the first of its lease."""
        return self.subnet.network_address + 1

    @property
    def device(self) -> Address | None:
        """The address of its tunnel's device, None where no tunnel leads there."""
        return self.subnet.network_address if self.lease.get("direct") is False else None

    @property
    def mtu(self) -> int:
        """The largest packet that should pass whole, 0 where it is not known."""
        return int(self.lease.get("mtu") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that a check starts from.

    Attributes:
        own: This host's lease.
        own_names: This host's own name.
        stale: etcd does not answer: heartbeats are not known.
        names_problem: Why no names can be asked for, "" if they can.
        complete: A name that is not known does not exist.
    """

    own: Document
    peers: tuple[PeerFacts, ...]
    own_names: tuple[Target, ...] = ()
    stale: bool = False
    names_problem: str = ""
    complete: bool = False

    @property
    def subnet(self) -> Network:
        """The subnet of this host."""
        return read_network(str(self.own["subnet"]))


def read_facts(ask: Callable[[str], Document]) -> Facts:
    """Gather the facts.

    Args:
        ask: Returns a document of the control socket; may raise HostmeshError.

    Raises:
        CannotTell: This host holds no subnet.
        HostmeshError: The leases cannot be had.
    """
    leases = ask("/v1/leases")
    mine = sorted((each for each in leases["leases"] if each["own"]), key=lambda e: e["moving"])
    if not mine:
        raise CannotTell(
            "this host holds no subnet, so there is nothing to check from", hint="agentctl status"
        )
    own = mine[0]
    try:
        names = ask("/v1/names")
    except HostmeshError as error:
        return facts_of(leases, own, {}, names_problem=error.message)
    problem = "" if names.get("domain") else "the mesh has no names"
    found = facts_of(leases, own, names, names_problem=problem)
    return found if names.get("domain") else _without_names(found, ask)


def _without_names(facts: Facts, ask: Callable[[str], Document]) -> Facts:
    """Take the containers of mesh networks from etcd where this host has no names of them."""
    try:
        networks = ask("/v1/networks")["networks"]
        shared = any(part["own"] for each in networks for part in each["parts"])
        listed = ask("/v1/containers")["containers"] if shared else ()
    except HostmeshError:
        return facts
    places: dict[tuple[str, str], list[Target]] = defaultdict(list)
    for each in listed:
        for place in each["addresses"]:
            if place["mesh_network"] and not each["own"] and each["health"] in {"none", "healthy"}:
                address = read_address(place["address"])
                key = each["host_id"], place["mesh_network"]
                places[key].append(Target(each["name"], (address,)))
    return _with_networks(facts, places)


def facts_of(leases: Document, own: Document, names: Document, *, names_problem: str) -> Facts:
    """Return the facts that the two documents have."""
    domain = str(names.get("domain") or "")
    own_names: dict[str, list[Target]] = defaultdict(list)
    of_container: dict[tuple[str, str], Target] = {}
    places: dict[tuple[str, str], list[Target]] = defaultdict(list)
    for listed in names.get("names", ()) if domain else ():
        if listed["shadowed_by"] is not None:
            continue
        for host_id, target, spots in _by_host(listed, domain):
            if listed["kind"] == "own":
                own_names[host_id].append(target)
            elif listed["kind"] == "host":
                of_container.update({(host_id, each["address"]): target for each in spots})
            elif listed["kind"] == "network":
                healthy = [each for each in spots if each["healthy"]]
                for each in healthy[:1]:
                    address = (read_address(each["address"]),)
                    places[host_id, each["mesh_network"]].append(Target(listed["name"], address))
    peers = []
    for lease in leases["leases"]:
        if not lease["own"]:
            host_id, container = str(lease["host_id"]), str(lease.get("container"))
            named = of_container.get((host_id, container))
            peers.append(
                PeerFacts(
                    lease=lease,
                    networks={},
                    names=(*own_names.get(host_id, ()), *((named,) if named else ())),
                )
            )
    facts = Facts(
        own=own,
        peers=tuple(peers),
        own_names=tuple(own_names.get(str(own["host_id"]), ())),
        stale=leases.get("stale") is True,
        names_problem=names_problem,
        complete=names.get("complete") is True,
    )
    return _with_networks(facts, places)


def _by_host(listed: Document, domain: str) -> Iterator[tuple[str, Target, Sequence[Document]]]:
    """Yield each host that has a name, with the addresses that it may lead to."""
    every = tuple(read_address(each["address"]) for each in listed["addresses"])
    by_host: dict[str, list[Document]] = defaultdict(list)
    for each in listed["addresses"]:
        by_host[each["host_id"]].append(each)
    for host_id, spots in by_host.items():
        yield host_id, Target(f"{listed['name']}.{domain}", every), spots


def _with_networks(facts: Facts, places: Mapping[tuple[str, str], Sequence[Target]]) -> Facts:
    by_host: dict[str, dict[str, tuple[Target, ...]]] = defaultdict(dict)
    for (host_id, network), targets in places.items():
        by_host[host_id][network] = tuple(targets[:_CANDIDATES])
    return replace(
        facts,
        peers=tuple(
            replace(each, networks=by_host.get(str(each.lease["host_id"]), {}))
            for each in facts.peers
        ),
    )
