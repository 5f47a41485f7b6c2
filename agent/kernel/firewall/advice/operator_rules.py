"""Rules of others that new traffic meets ahead of ours: does it get to ours at all? Pure.

A packet of each kind that matters is walked through FORWARD to where ours belongs: first of all,
or in DOCKER-USER behind the operator's own rules. Only what can be told from
interface, addresses and connection state counts: a rule that also looks at ports or at anything
else decides about a part, which is the operator's right.
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
"""A new packet's path in a rule's words: what -i, -o, -s and -d are for it, and whether it is in
a set ("--match-set NAME src")."""


class End(enum.Enum):
    """How a walk ends before our chain."""

    SHUT = enum.auto()
    ACCEPTED = enum.auto()
    RETURNED = enum.auto()


_ENDS: Final = {
    "DROP": End.SHUT, "REJECT": End.SHUT, "ACCEPT": End.ACCEPTED, "RETURN": End.RETURNED,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fate:
    """What the rule ``-A chain body`` does to a packet that would have come to ours."""

    end: End
    chain: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A new ping through this host: the links it comes in and goes out by, its addresses."""

    in_link: str
    out_link: str
    source: Address
    destination: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What becomes of it, as far as rules say it for sure.

    Attributes:
        place: Where the jump to our chain stands ("DOCKER-USER, rule 2"); "" without one.
        verdict: "shut", "accepted", "left" (what follows ours decides) or "unsure".
        rule: The rule that decides, as iptables-save writes it; "" when none surely does.
        ours: The rule is one of ours.
    """

    place: str
    verdict: str
    rule: str = ""
    ours: bool = False


def judge(table: Table, way: Way, sets: Mapping[str, Iterable[Network]]) -> Judgement:
    """Walk a new ping through the rules ahead of ours and then through ours.

    Args:
        sets: Members of those ingress sets that rules of ours name.
    """
    family = family_of(way.source)
    packet: Packet = {
        "-i": way.in_link,
        "-o": way.out_link,
        "-s": family.host(way.source),
        "-d": family.host(way.destination),
        "-p": family.icmp,
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
    """What our rules surely do to it; None when none of them surely does anything."""
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
    """At most one condition for each: mesh traffic shut off, traffic led past ours."""
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
        cause=f"a rule ahead of ours shuts mesh traffic off: -A {fate.chain} {fate.body}",
        hint=f"let it spare the mesh: {spared} (hosts and their containers); ours drop what"
        " strangers may not reach",
    )


def _bypasses(fate: Fate, interface: object, wants: DesiredFirewall) -> Condition:
    return Condition(
        name="operator-bypasses-mesh",
        subject=fate.chain,
        cause=f"a rule ahead of ours leads traffic past them, so that neither access to Docker"
        f" networks nor strangers are Hostmesh's to decide: -A {fate.chain} {fate.body}",
        hint=f"narrow it, so that traffic by {interface} to {wants.lease} goes on to ours",
    )


def mesh_packets(wants: DesiredFirewall) -> Iterator[Packet]:
    """Mesh traffic through this host, in and out."""
    opened = [network for network in wants.networks if not network.closed]
    for up, network, cidr in product(wants.carrying, opened, wants.cidrs):
        yield {"-i": up, "-o": network.bridge, "-s": cidr, "-d": network.subnet}
        yield {"-i": network.bridge, "-o": up, "-s": network.subnet, "-d": cidr}
    if not opened:
        for up, lease, cidr in product(wants.carrying, wants.leases, wants.cidrs):
            yield {"-i": up, "-s": cidr, "-d": lease}
            yield {"-o": up, "-s": lease, "-d": cidr}


def _guarded_packets(wants: DesiredFirewall) -> Iterator[tuple[Packet, bool]]:
    """What ours must see to let it in or keep it out, and whether it would be let in whole."""
    anywhere = wants.family.at(0, 0)
    for up, network in product(wants.carrying, wants.networks):
        way: Packet = {"-i": up, "-o": network.bridge, "-d": network.subnet}
        whole = network.access is Access.OPEN and not network.closed
        yield {**way, "-s": anywhere}, False
        for cidr in wants.cidrs:
            yield {**way, "-s": cidr}, whole


def _fate(table: Table, packet: Packet) -> Fate | None:
    """What keeps ``packet`` from our chain; None when it gets there, or nothing tells."""
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
        """Walk one chain. None: it came to ours (``reached``) or went on behind the chain."""
        for body in self._table.rules(chain):
            spec = parse_rule(body)
            if chain == DOCKER_USER and spec.target == "RETURN" and spec.unconditional:
                break  # ours stands before it, or will
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
