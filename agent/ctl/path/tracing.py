"""Follow a packet step by step through this host's kernel and firewall to the next host.

Steps on the next host are deduced from the mesh's leases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.ctl.context import Context
from agent.ctl.path.ends import End, LocalHost
from agent.ctl.path.mesh_containers import address_of, network_access
from agent.ctl.stale import age, state_of
from agent.docker.service.dockerd_process import DockerdFinder
from agent.errors import HostmeshError
from agent.kernel.diagnose.tunnel import Tunnel, tunnel_to
from agent.kernel.firewall import open_firewall
from agent.kernel.firewall.advice.nft_chains import dropping_chains
from agent.kernel.firewall.advice.nft_conditions import chains_in_the_way
from agent.kernel.firewall.advice.operator_rules import Judgement, Way
from agent.kernel.lookup import Decision, NeighbourState, decide, neighbour_on, tunnel_end
from agent.model import Link, Route
from agent.model.family import Address, Network, family_of, read_address, read_network
from agent.model.wireguard import WIREGUARD_LINK

__all__ = ["Step", "Tracer", "judge_rules"]

HERE = "here"
NEXT = "next"
OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
_VXLAN = "vxlan"


class Step(NamedTuple):
    """One step: ``host`` is "here" or "next", ``result`` "ok", "failed" or "unknown"."""

    host: str
    step: str
    result: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracer:
    """Follows a packet from one end to the other.

    Args:
        leases: Asks for the mesh's leases, as GET /v1/leases has them; may raise HostmeshError.
        containers: Asks for GET /v1/containers; may raise HostmeshError.
        tcp_port: Of the destination; 0 for a ping.
    """

    context: Context
    place: LocalHost
    source: End
    destination: End
    leases: Callable[[], list[Mapping[str, Any]]]
    containers: Callable[[], Mapping[str, Any]]
    tcp_port: int = 0

    def in_link(self) -> Link | None:
        """Return the link that the packet comes in by; None for this host's own or if not known."""
        if self.source.is_host:
            return None
        if self.source.link is not None:
            return self.source.link
        return self.place.link(decide(self.source.address).link)

    def decision(self) -> Decision:
        """Return the kernel's routing decision."""
        link = self.in_link()
        return decide(
            self.destination.address,
            source=self.source.address,
            in_link=link.index if link is not None else 0,
        )

    def links(self) -> list[str]:
        """Return the names of the links that the packet passes on this host, in order."""
        decision = self.decision()
        out = self.place.link(decision.link)
        if decision.local:
            out = self.place.link("lo") if self.source.is_host else None
        found = [self.in_link(), out, None if self.local else self.destination.link]
        return list(dict.fromkeys(link.name for link in found if link is not None))

    def tunnel(self) -> Tunnel | None:
        """Return the tunnel that the packet leaves by, or None."""
        return None if self.local else tunnel_to(self.destination.address)

    @property
    def local(self) -> bool:
        """The destination is this host itself."""
        return self.destination.is_host

    @property
    def bridged(self) -> bool:
        """Both ends are on one bridge, which passes packets without a route."""
        ends = (self.source, self.destination)
        return all(end.container for end in ends) and ends[0].link == ends[1].link is not None

    def steps(self) -> Iterator[Step]:
        """Yield every step in the order of the packet."""
        yield self._source()
        if self.bridged:
            bridge = self.source.link.name if self.source.link else "?"
            yield Step(HERE, "bridge", OK, f"{bridge} forwards it: no route, no next hop")
            yield self._arrival()
            return
        decision = self.decision()
        out = self.place.link(decision.link)
        yield self._route(decision, out)
        if decision.refusal:
            return
        if decision.local:
            yield Step(HERE, "arrival", OK, "for this host itself: INPUT decides")
            return
        if out is None:
            yield Step(HERE, "link", UNKNOWN, "the kernel names no link")
            return
        yield self._rules(out)
        yield _link(out)
        if self.destination.container is not None:
            yield self._arrival()
            return
        yield from self._beyond(decision.gateway or self.destination.address, out)

    def _beyond(self, gateway: Address, out: Link) -> Iterator[Step]:
        """The next hop on the link that the packet leaves by, and the host there."""
        if out.own and out.name == WIREGUARD_LINK:
            yield from self._beyond_wireguard(out)
            return
        found, step = _neighbour(gateway, out)
        yield step
        hop: Address | None = gateway
        if out.kind == _VXLAN and found is not None:
            hop, step = _tunnel(found.mac, out)
            yield step
        yield from self._next_host(hop)

    def _beyond_wireguard(self, out: Link) -> Iterator[Step]:
        """The peer of the device that the packet is encrypted for, and the host there."""
        if os.geteuid() != 0:
            yield Step(HERE, "tunnel", UNKNOWN, "needs root: the peers of the device are not known")
            return
        try:
            found = self.tunnel()
        except HostmeshError as error:
            yield Step(HERE, "tunnel", UNKNOWN, error.message)
            return
        key = "" if found is None else found.public_key
        if found is None or not key:
            text = f"{out.name} has no peer for {self.destination.address}"
            yield Step(HERE, "tunnel", FAILED, text)
            return
        if found.far is None:
            text = f"{out.name} knows no endpoint of peer {key}: it has to send first"
            yield Step(HERE, "tunnel", FAILED, text)
        else:
            text = f"in WireGuard for peer {key} to {found.far}, UDP port {found.far_port},"
            yield _outer(found.far, text)
        yield from self._next_host(None, key)

    def _source(self) -> Step:
        end, link = self.source, self.in_link()
        if end.container is not None:
            where = link.name if link else "an unknown bridge"
            network = end.network.name if end.network else "an unknown network"
            return Step(
                HERE, "source", OK,
                f"container {end.container.name}, {end.address} in network {network} on {where}",
            )  # fmt: skip
        if end.is_host and end.link is not None:
            return Step(HERE, "source", OK, f"{end.address} is this host's own, on {end.link.name}")
        by = f"it would come in by {link.name}" if link else "no route leads there"
        return Step(
            HERE, "source", OK if link else FAILED, f"{end.address} is not on this host: {by}"
        )

    def _route(self, decision: Decision, out: Link | None) -> Step:
        if decision.refusal:
            to = self.destination.address
            return Step(
                HERE, "route", FAILED, f"the kernel has no route to {to}: {decision.refusal}"
            )
        by = f" by {out.name}" if out is not None else ""
        via = f"via {decision.gateway}" if decision.gateway else "straight"
        if decision.local:
            via, by = "to this host", ""
        entry = f"; {_entry(decision.entry)}" if decision.entry is not None else ""
        return Step(HERE, "route", OK, f"{via}{by}{entry}")

    def _rules(self, out: Link) -> Step:
        link = self.in_link()
        if link is None and not self.source.is_host:
            return Step(HERE, "rules", UNKNOWN, "the link that it comes in by is not known")
        if link is None:
            return Step(HERE, "rules", OK, "this host's own packet does not pass FORWARD")
        way = Way(
            in_link=link.name,
            out_link=out.name,
            source=self.source.address,
            destination=self.destination.address,
            tcp_port=self.tcp_port,
        )
        try:
            return Step(HERE, "rules", *judge_rules(self.context, way))
        except HostmeshError as error:
            return Step(HERE, "rules", UNKNOWN, error.message)

    def _arrival(self) -> Step:
        end = self.destination
        name = end.container.name if end.container else "?"
        mac = f" at {end.mac}" if end.mac else ""
        return Step(HERE, "arrival", OK, f"container {name}{mac}")

    def _next_host(self, hop: Address | None, key: str = "") -> Iterator[Step]:
        """Yield steps on the host whose lease has the destination.

        Args:
            hop: The node address that the packet is sent to.
            key: WireGuard's public key of the host that can read it, in place of ``hop``.
        """
        try:
            leases = self.leases()
        except HostmeshError as error:
            yield Step(NEXT, "host", UNKNOWN, f"leases not known: {error.message}")
            return
        lease = next((each for each in leases if self._owns(each)), None)
        if lease is None:
            yield Step(NEXT, "host", UNKNOWN, f"{self.destination.address} is in no lease's subnet")
            return
        name, node = lease.get("host_name") or "a host without a name", lease.get("node_address")
        at = f"{name} at {node}, by its lease of {lease.get('subnet')}"
        if lease.get("own"):
            yield Step(
                NEXT,
                "host",
                FAILED,
                f"{at}, which is this host, but no link or container here has the address",
            )
            return
        direct = self.destination.address == read_address(str(node))
        published = lease.get("backend_data") or {}
        leads_there = published.get("PublicKey") == key if key else str(hop) == node
        if not leads_there and not direct:
            yield Step(NEXT, "host", FAILED, f"{at}; but the route leads to {key or hop}")
            return
        yield Step(NEXT, "host", OK, f"{at} (deduced)")
        yield _state(lease)
        if not direct:
            yield from self._access()
            port = f" --tcp {self.tcp_port}" if self.tcp_port else ""
            yield Step(
                NEXT, "rules", UNKNOWN,
                f"{name}'s firewall can only be checked on {name}; run there: agentctl trace"
                f" {self.source.address} {self.destination.address}{port}",
            )  # fmt: skip

    def _access(self) -> Iterator[Step]:
        """Yield what the networks of both ends let pass, as far as their hosts publish it."""
        try:
            document = self.containers()
        except HostmeshError as error:
            yield Step(NEXT, "network", UNKNOWN, f"containers not known: {error.message}")
            return
        to = address_of(document, self.destination.address)
        if to is not None:
            source = address_of(document, self.source.address)
            yield Step(NEXT, "network", *network_access(source, to, self.tcp_port))

    def _owns(self, lease: Mapping[str, Any]) -> bool:
        address = self.destination.address
        node = lease.get("node_address")
        return str(address) == node or address in read_network(str(lease.get("subnet")))


def _entry(route: Route) -> str:
    via = f" via {route.gateway}" if route.gateway else ""
    kind = route.kind.partition("+")[0]
    shown = "" if kind == "unicast" else f"{kind} "
    return f"{shown}{route.destination}{via} proto {route.protocol} table {route.table}"


def judge_rules(context: Context, way: Way) -> tuple[str, str]:
    """Test a new flow against this host's rules; return a step's result and text.

    Raises:
        HostmeshError: They cannot be read.
    """
    context.need_root("read the firewall's rules")
    settings = context.settings
    dockerd = DockerdFinder(settings.docker.socket).dockerd
    found = open_firewall(settings.firewall.variant, dockerd=dockerd).judge(way)
    return _with_nft(*_judged(found, way), way)


def _judged(found: Judgement, way: Way) -> tuple[str, str]:
    place = f"Hostmesh's rules are in {found.place}" if found.place else "no rules of Hostmesh"
    if found.verdict == "unsure":
        what = f"TCP to port {way.tcp_port}" if way.tcp_port else "a ping"
        return (OK if found.place else UNKNOWN), f"{place}; no rule clearly accepts or drops {what}"
    whose = "Hostmesh" if found.ours else "a rule before Hostmesh's"
    verb = {"shut": "drops it", "accepted": "accepts it", "left": "passes it to later rules"}
    text = f"{place}; {whose} {verb[found.verdict]}: {found.rule}"
    return (FAILED if found.verdict == "shut" else OK), text


def _with_nft(result: str, text: str, way: Way) -> tuple[str, str]:
    """Add chains of nft: an ACCEPT in iptables does not undo their DROP."""
    family = family_of(way.source)
    packet: dict[str, str | Network | bool] = {
        "-i": way.in_link,
        "-o": way.out_link,
        "-s": family.host(way.source),
        "-d": family.host(way.destination),
    }
    found = chains_in_the_way(dropping_chains(family), packet)
    if result == FAILED or not found:
        return result, text
    places = ", ".join(chain.place for chain in found)
    return (
        UNKNOWN,
        f"{text}; but nft's chain {places} may drop it: nft list chain {found[0].place}",
    )


def _link(link: Link) -> Step:
    result = OK if link.up else FAILED
    state = "up" if link.up else "down"
    return Step(HERE, "link", result, f"{link.name} is {state}, MTU {link.mtu}, {link.mac}")


def _neighbour(address: Address, link: Link) -> tuple[NeighbourState | None, Step]:
    try:
        found = neighbour_on(address, link.index)
    except HostmeshError as error:
        return None, Step(HERE, "neighbour", UNKNOWN, error.message)
    if found is None:
        text = f"no entry for {address} on {link.name} yet"
        return None, Step(HERE, "neighbour", UNKNOWN, text)
    mac = f" at {found.mac}" if found.mac else ""
    result = OK if found.state == "valid" else FAILED
    return found, Step(HERE, "neighbour", result, f"{address}{mac} on {link.name}, {found.state}")


def _tunnel(mac: str, link: Link) -> tuple[Address | None, Step]:
    """Where a tunnel's device sends frames for this MAC, and the way there."""
    try:
        end = tunnel_end(mac, link.index)
    except HostmeshError as error:
        return None, Step(HERE, "tunnel", UNKNOWN, error.message)
    if end is None:
        return None, Step(HERE, "tunnel", FAILED, f"{link.name} knows no host for {mac}")
    return end, _outer(end, f"in VXLAN to {end}")


def _outer(end: Address, text: str) -> Step:
    """Return the step of the outer packet's way."""
    try:
        way = decide(end)
    except HostmeshError as error:
        return Step(HERE, "tunnel", UNKNOWN, error.message)
    if way.refusal:
        return Step(HERE, "tunnel", FAILED, f"to {end}: {way.refusal}")
    via = f" via {way.gateway}" if way.gateway else ""
    return Step(HERE, "tunnel", OK, f"{text}{via} by {way.link}")


def _state(lease: Mapping[str, Any]) -> Step:
    if lease.get("alive") is False:
        return Step(NEXT, "agent", FAILED, state_of(lease))
    if lease.get("heartbeat") == "unknown":
        return Step(NEXT, "agent", UNKNOWN, f"etcd does not answer; state {state_of(lease)}")
    if lease.get("alive") is None:
        return Step(NEXT, "agent", UNKNOWN, "a flannel host has no heartbeat")
    docker = lease.get("docker")
    result = OK if docker == "ready" else UNKNOWN
    seen_s = lease.get("last_seen_s")
    ago = "" if seen_s is None else f" {age(seen_s)} ago"
    return Step(NEXT, "agent", result, f"Docker is {docker} (reported{ago})")
