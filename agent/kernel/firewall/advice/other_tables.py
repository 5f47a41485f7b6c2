"""Rules that drop mesh traffic in tables where the agent has no chain. Pure.

The agent's chains accept in raw and filter. That undoes no DROP in another table, in the other
iptables variant, or in OUTPUT: each is a condition that quotes the rule.
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
    """Yield at most one condition for each chain that the agent has no rules in."""
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
                hint=f"delete it, or exclude the mesh with ! -d {wants.cidr}",
            )


def rules_in_other_variant(
    other: Ruleset, variant: str, wants: DesiredFirewall
) -> Iterator[Condition]:
    """Yield at most one condition: packets that the variant not in use drops stay dropped.

    Args:
        other: Its tables, in which no rules of Docker's are in force.
        variant: Its name.
        wants: The traffic that should pass.
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
        cause=f"a rule that Hostmesh cannot come before drops mesh traffic: {quoted}",
        hint=f"delete the rule, or exclude the mesh ({wants.cidr}) in it; no ACCEPT undoes a DROP"
        " of another table or of the other iptables",
    )


def _shut(table: Table, chain: str, packets: Iterator[Packet]) -> Fate | None:
    """Return the rule that surely drops some of the packets; None when none does."""
    for packet in packets:
        fate = Walk(table, packet).through(chain, DEPTH)
        if fate is not None and fate.end is End.SHUT:
            return fate
    return None


def _policy(table: Table, name: str) -> str:
    """Return the policy that drops everything, "" where it does not or some rule may accept."""
    chain = table.chains.get(name)
    if chain is None or chain.policy != "DROP":
        return ""
    targets = {parse_rule(body).target for body in chain.rules}
    may_accept = "ACCEPT" in targets or any(target in table.chains for target in targets)
    return "" if may_accept else f"-P {name} DROP"


def _quoted(fate: Fate) -> str:
    return f"-A {fate.chain} {fate.body}"
