"""Every chain of the agent's, in the order in which tables are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from agent.kernel.firewall.chains import (
    clamp,
    forward,
    inbound,
    input_,
    names,
    networks,
    postrouting,
    prerouting,
    senders,
    tunnels,
)
from agent.mesh.firewall import DesiredFirewall, Ingress

__all__ = ["CHAINS", "Chains", "OwnChain", "entries", "needed_tables", "our_chains", "tables"]

Chains = Mapping[str, tuple[str, ...]]
"""Rule bodies of one table, by chain."""


@dataclass(frozen=True, slots=True)
class OwnChain:
    """One chain.

    Attributes:
        render: Return its rules; where there are none it is not made, nor a jump to it.
        base: The built-in chain that leads into it; "" for one that others of the agent's lead to.
        always: Every mesh needs rules of it.
    """

    table: str
    name: str
    render: Callable[[DesiredFirewall], tuple[str, ...]]
    base: str = ""
    always: bool = True


CHAINS: Final[tuple[OwnChain, ...]] = (
    OwnChain("raw", prerouting.NAME, prerouting.render, base="PREROUTING"),
    OwnChain("raw", senders.NAME, senders.render),
    OwnChain("raw", tunnels.NAME, tunnels.render),
    OwnChain("filter", forward.NAME, forward.render, base="FORWARD"),
    OwnChain("filter", inbound.NAME, inbound.render),
    OwnChain("filter", networks.NAME, networks.render, always=False),
    OwnChain("filter", names.NAME, names.render),
    OwnChain("filter", input_.NAME, input_.render, base="INPUT"),
    OwnChain("mangle", clamp.NAME, clamp.render, base="FORWARD", always=False),
    OwnChain("nat", postrouting.NAME, postrouting.render, base="POSTROUTING"),
)


def tables() -> tuple[str, ...]:
    """Return the tables that the chains are in, in the order in which they are written."""
    return tuple(dict.fromkeys(each.table for each in CHAINS))


def needed_tables() -> frozenset[str]:
    """Return the tables that every mesh needs."""
    return frozenset(each.table for each in CHAINS if each.always)


def entries(table: str) -> Mapping[str, str]:
    """Return the chains of a table that built-in chains lead into, by built-in chain."""
    return {each.base: each.name for each in CHAINS if each.table == table and each.base}


def our_chains(wants: DesiredFirewall) -> Mapping[str, Chains]:
    """Return rule bodies by table and chain."""
    # Members of sets are no rules: without them what was asked before is found at once.
    none: frozenset[Any] = frozenset()
    ingress = tuple(Ingress(name, none) for name in wants.interfaces)
    return _our_chains(replace(wants, ingress=ingress, published=none, senders=none))


@lru_cache(maxsize=4)
def _our_chains(wants: DesiredFirewall) -> Mapping[str, Chains]:
    """Cached: most passes ask for the same again."""
    found: dict[str, dict[str, tuple[str, ...]]] = {table: {} for table in tables()}
    for each in CHAINS:
        rules = each.render(wants)
        if rules:
            found[each.table][each.name] = rules
    return found
