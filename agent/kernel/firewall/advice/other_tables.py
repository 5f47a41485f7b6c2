"""Rules of others that shut mesh traffic off where ours never see it. Pure.

Ours accept in raw and filter. A DROP in another table, in the other iptables variant, or on the way
out of this host itself is not undone by that: each is told, with the rule quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from agent.kernel.firewall.advice.operator_rules import DEPTH, End, Fate, Packet, Walk, mesh_packets
from agent.kernel.firewall.parse import Ruleset, Table, parse_rule
from agent.mesh.firewall import DesiredFirewall
from agent.model import Condition, Severity

__all__ = ["rules_elsewhere", "rules_in_other_variant"]

_FORWARDED: Final = (
    ("mangle", "PREROUTING"),
    ("mangle", "FORWARD"),
    ("security", "FORWARD"),
    ("mangle", "POSTROUTING"),
)
_OUTGOING: Final = (("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"))


def rules_elsewhere(ruleset: Ruleset, wants: DesiredFirewall) -> Iterator[Condition]:
    """At most one condition for each chain beside those that ours stand in."""
    for table, chain in _FORWARDED:
        fate = _shut(ruleset.table(table), chain, mesh_packets(wants))
        if fate is not None:
            yield _blocks(f"{table} {chain}", f"-t {table} {_quoted(fate)}", wants)
    outgoing: tuple[Packet, ...] = tuple(
        {"-o": up, "-d": cidr} for up, cidr in product(wants.carrying, wants.cidrs)
    )
    for table, chain in _OUTGOING:
        fate = _shut(ruleset.table(table), chain, iter(outgoing))
        if fate is not None:
            yield Condition(
                name="operator-blocks-mesh",
                subject=f"{table} {chain}",
                cause="a rule keeps this host itself, not its containers, from containers of other"
                f" hosts: -t {table} {_quoted(fate)}",
                hint=f"let it spare the mesh: ! -d {wants.cidr}",
            )


def rules_in_other_variant(
    other: Ruleset, variant: str, wants: DesiredFirewall
) -> Iterator[Condition]:
    """At most one condition: what the variant that ours are not in drops stays dropped.

    Args:
        other: Its tables, in which no Docker's rules are in force.
        variant: Its name.
        wants: What should pass.
    """
    for name, chain in (("filter", "FORWARD"), *_FORWARDED):
        table = other.table(name)
        fate = _shut(table, chain, mesh_packets(wants))
        quoted = _quoted(fate) if fate is not None else _policy(table, chain)
        if quoted:
            yield _blocks(
                f"iptables-{variant} {name} {chain}",
                f"iptables-{variant} -t {name} {quoted}",
                wants,
            )
            return


def _blocks(subject: str, quoted: str, wants: DesiredFirewall) -> Condition:
    return Condition(
        name="operator-blocks-mesh",
        subject=subject,
        severity=Severity.ERROR,
        cause=f"a rule that ours cannot come before shuts mesh traffic off: {quoted}",
        hint=f"remove it or let it spare the mesh, {wants.cidr}: an ACCEPT undoes no DROP of"
        " another table or of the other iptables",
    )


def _shut(table: Table, chain: str, packets: Iterator[Packet]) -> Fate | None:
    """The rule that surely drops some of the packets; None when none does."""
    for packet in packets:
        fate = Walk(table, packet).through(chain, DEPTH)
        if fate is not None and fate.end is End.SHUT:
            return fate
    return None


def _policy(table: Table, name: str) -> str:
    """How the chain's policy drops everything, "" where it does not or some rule may accept."""
    chain = table.chains.get(name)
    if chain is None or chain.policy != "DROP":
        return ""
    targets = {parse_rule(body).target for body in chain.rules}
    may_accept = "ACCEPT" in targets or any(target in table.chains for target in targets)
    return "" if may_accept else f"-P {name} DROP"


def _quoted(fate: Fate) -> str:
    return f"-A {fate.chain} {fate.body}"
