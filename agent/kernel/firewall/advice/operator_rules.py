"""Rules that new traffic meets ahead of the agent's: does it reach the agent's chain? Pure.

One packet of each kind that matters is walked through FORWARD to the agent's jump: first of all, or
in DOCKER-USER behind the operator's rules. Only tests of interface, addresses and connection state
count. A rule that tests anything else, such as ports, decides about a part of the traffic; that is
the operator's right.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import product
from typing import Final

from agent.kernel.firewall.chains import forward
from agent.kernel.firewall.chains.rule import DOCKER_CHAIN, DOCKER_USER, OURS
from agent.kernel.firewall.edits import entry_chain, is_ours
from agent.kernel.firewall.parse import Clause, RuleSpec, Table, parse_rule
from agent.mesh.firewall import DesiredFirewall, set_name
from agent.model import Access, Condition, Severity
from agent.model.family import Address, Network, family_of, within

__all__ = [
    "DEPTH",
    "End",
    "Fate",
    "Judgement",
    "Packet",
    "Walk",
    "Way",
    "judge",
    "mesh_packets",
    "operator_rules",
]

DEPTH: Final = 8
"""How deep an operator's own chains are followed."""

Packet = Mapping[str, str | Network | bool]
"""A new packet as rules test it: its -i, -o, -s and -d, and whether it is in a set
("--match-set NAME src")."""


class End(enum.Enum):
    """How a walk ends before the agent's chain."""

    SHUT = enum.auto()
    ACCEPTED = enum.auto()
    RETURNED = enum.auto()


_ENDS: Final = {
    "DROP": End.SHUT, "REJECT": End.SHUT, "ACCEPT": End.ACCEPTED, "RETURN": End.RETURNED,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fate:
    """Effect of the rule ``-A chain body`` on a packet on its way to the agent's chain."""

    end: End
    chain: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The first packet of a flow through this host: its links in and out, its addresses.

    Attributes:
        tcp_port: Of the destination; 0 for a ping.
    """

    in_link: str
    out_link: str
    source: Address
    destination: Address
    tcp_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Outcome of a packet, as far as rules decide it for sure.

    Attributes:
        place: Where the jump to the agent's chain is ("DOCKER-USER, rule 2"); "" without one.
        verdict: "shut", "accepted", "left" (the rules behind decide) or "unsure".
        rule: The rule that decides, as iptables-save writes it; "" when none surely does.
        ours: The rule is in a chain of the agent's.
    """

    place: str
    verdict: str
    rule: str = ""
    ours: bool = False


def judge(
    table: Table, way: Way, sets: Mapping[str, Iterable[Network]], *, published: bool = False
) -> Judgement:
    """Walk a packet through the rules ahead of the agent's and then through the agent's.

    Args:
        sets: Members of the sets of sources and slices.
        published: The destination publishes the port.
    """
    family = family_of(way.source)
    packet: Packet = {
        "-i": way.in_link,
        "-o": way.out_link,
        "-s": family.host(way.source),
        "-d": family.host(way.destination),
        "-p": "tcp" if way.tcp_port else family.icmp,
        f"--dport {way.tcp_port}": bool(way.tcp_port),
        f"--match-set {set_name('published', family)} dst,dst": published,
        **{
            f"--match-set {name} {side}": any(address in member for member in members)
            for name, members in sets.items()
            for side, address in (("src", way.source), ("dst", way.destination))
        },
    }
    entry = entry_chain(table)
    rules = table.rules(entry)
    at = next((number for number, body in enumerate(rules, 1) if is_ours(body)), None)
    place = "" if at is None else f"{entry}, rule {at}"
    fate = _fate(table, packet)
    if fate is None and place:
        fate = _within_ours(table, forward.NAME, packet, DEPTH)
    if fate is None:
        return Judgement(place=place, verdict="unsure")
    verdict = {End.SHUT: "shut", End.ACCEPTED: "accepted", End.RETURNED: "left"}[fate.end]
    rule = f"-A {fate.chain} {fate.body}"
    return Judgement(place=place, verdict=verdict, rule=rule, ours=fate.chain.startswith(OURS))


def _within_ours(table: Table, chain: str, packet: Packet, depth: int) -> Fate | None:
    """Return what the agent's rules surely do to a packet; None when none surely does anything."""
    for body in table.rules(chain):
        spec = parse_rule(body)
        if not _hits(spec, packet):
            continue
        if spec.target in _ENDS:
            return Fate(_ENDS[spec.target], chain, body)
        if depth and spec.target.startswith(OURS):
            found = _within_ours(table, spec.target, packet, depth - 1)
            if found is not None and found.end is not End.RETURNED:
                return found
    return None


def operator_rules(table: Table, wants: DesiredFirewall) -> Iterator[Condition]:
    """Yield at most one condition for dropped mesh traffic, and one for traffic led past."""
    for packet in mesh_packets(wants):
        fate = _fate(table, packet)
        if fate is not None and fate.end is End.SHUT:
            yield _blocks(fate, wants)
            break
    for packet, passes in _guarded_packets(wants):
        fate = _fate(table, packet)
        if fate is None or fate.end is End.SHUT or (passes and fate.end is End.ACCEPTED):
            continue
        yield _bypasses(fate, packet["-i"], wants)
        break


def _blocks(fate: Fate, wants: DesiredFirewall) -> Condition:
    sets = (set_name("in", wants.family, up) for up in wants.carrying)
    spared = " ".join(f"-m set ! --match-set {name} src" for name in sets)
    return Condition(
        name="operator-blocks-mesh",
        subject=fate.chain,
        severity=Severity.ERROR,
        cause=f"a rule ahead of Hostmesh's drops mesh traffic: -A {fate.chain} {fate.body}",
        hint=f"delete the rule (iptables -D {fate.chain} {fate.body}) or exclude the mesh with"
        f" {spared}; outsiders stay blocked",
    )


def _bypasses(fate: Fate, interface: object, wants: DesiredFirewall) -> Condition:
    return Condition(
        name="operator-bypasses-mesh",
        subject=fate.chain,
        cause=f"a rule ahead of Hostmesh's leads traffic past it, so that access to Docker networks"
        f" and outsiders are not checked: -A {fate.chain} {fate.body}",
        hint=f"narrow the rule, so that traffic by {interface} to {wants.lease} passes on to"
        " Hostmesh's chain",
    )


def mesh_packets(wants: DesiredFirewall) -> Iterator[Packet]:
    """Yield mesh traffic through this host, in and out."""
    opened = [network for network in wants.networks if network.slices or not network.closed]
    for up, network, cidr in product(wants.carrying, opened, wants.cidrs):
        yield {"-i": up, "-o": network.bridge, "-s": cidr, "-d": network.subnet}
        yield {"-i": network.bridge, "-o": up, "-s": network.subnet, "-d": cidr}
    if not opened:
        for up, lease, cidr in product(wants.carrying, wants.leases, wants.cidrs):
            yield {"-i": up, "-s": cidr, "-d": lease}
            yield {"-o": up, "-s": lease, "-d": cidr}


def _guarded_packets(wants: DesiredFirewall) -> Iterator[tuple[Packet, bool]]:
    """Yield traffic that the agent's chain must see, and whether all of it would be let in."""
    anywhere = wants.family.at(0, 0)
    for up, network in product(wants.carrying, wants.networks):
        way: Packet = {"-i": up, "-o": network.bridge, "-d": network.subnet}
        whole = network.access is Access.OPEN and not network.closed
        yield {**way, "-s": anywhere}, False
        for cidr in wants.cidrs:
            yield {**way, "-s": cidr}, whole


def _fate(table: Table, packet: Packet) -> Fate | None:
    """Return what keeps a packet from the agent's chain; None when nothing surely does."""
    if entry_chain(table) != DOCKER_USER:
        return None
    walk = Walk(table, packet)
    found = walk.through("FORWARD", DEPTH)
    return None if walk.reached else found


class Walk:
    """One packet on its way through the filter table."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self.reached = False

    def through(self, chain: str, depth: int) -> Fate | None:
        """Walk one chain. None: it reached the agent's jump (``reached``) or passed the chain."""
        for body in self._table.rules(chain):
            spec = parse_rule(body)
            if chain == DOCKER_USER and spec.target == "RETURN" and spec.unconditional:
                break  # the agent's jump is before it, or will be
            if is_ours(body) or not _hits(spec, self._packet):
                continue
            if spec.target in {"DROP", "REJECT"}:
                return Fate(End.SHUT, chain, body)
            if spec.target == "ACCEPT":
                return Fate(End.ACCEPTED, chain, body)
            if spec.target == "RETURN":
                return Fate(End.RETURNED, chain, body) if chain == DOCKER_USER else None
            if depth and self._is_operators(spec.target):
                found = self.through(spec.target, depth - 1)
                if found is not None or self.reached:
                    return found
        self.reached = chain == DOCKER_USER
        return None

    def _is_operators(self, target: str) -> bool:
        docker = target.startswith(DOCKER_CHAIN) and target != DOCKER_USER
        return target in self._table.chains and not docker


def _hits(spec: RuleSpec, packet: Packet) -> bool:
    """Whether every such packet surely meets every test of the rule."""
    return all(_holds(clause, packet) for clause in spec.clauses)


def _holds(clause: Clause, packet: Packet) -> bool:
    if clause.module == "comment":
        return True
    if clause.option in {"--ctstate", "--state"}:
        return ("NEW" in clause.values) != clause.negated
    known = packet.get(
        " ".join((clause.option, *clause.values)) if clause.module else clause.option
    )
    if isinstance(known, bool):
        return known != clause.negated
    if isinstance(known, str):
        return _interface_matches(clause.values[0], known) != clause.negated
    return known is not None and _address_holds(clause, known)


def _address_holds(clause: Clause, known: Network) -> bool:
    try:
        said = ip_network(clause.values[0])
    except ValueError:
        return False
    inside = within(known, said)
    return not (inside or within(said, known)) if clause.negated else inside


def _interface_matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern
