"""Show the agent's rules in their place among the others, with their counters."""

from __future__ import annotations

from agent.kernel.firewall.chains.declared import entries, tables
from agent.kernel.firewall.chains.rule import OURS
from agent.kernel.firewall.edits import entry_chain, is_ours
from agent.kernel.firewall.parse import Chain, Ruleset

__all__ = ["shown"]


def shown(ruleset: Ruleset, *, variant: str, sets: tuple[str, ...]) -> str:
    """Return several lines. Numbers are packets and bytes, in iptables-save's form.

    Args:
        ruleset: Read with counters.
        variant: The iptables variant that was read.
        sets: Lines about the agent's sets.
    """
    lines = [f"iptables-{variant}"]
    for name in tables():
        table = ruleset.table(name)
        places = ((base, entry_chain(table, base)) for base in entries(name))
        for chain in dict.fromkeys(chain for place in places for chain in place):
            lines += _foreign(name, table.chains.get(chain))
        for chain_name, chain_found in table.chains.items():
            if chain_name.startswith(OURS):
                lines += _ours(name, chain_found)
    return "\n".join([*lines, *sets]) + "\n"


def _foreign(table: str, chain: Chain | None) -> list[str]:
    """Show every rule of a foreign chain, with a star at the agent's."""
    if chain is None:
        return []
    policy = "" if chain.policy == "-" else f" (policy {chain.policy})"
    lines = [f"{table} {chain.name}{policy}"]
    for number, (rule, count) in enumerate(_counted(chain), start=1):
        lines.append(f"  {number:>3} {'*' if is_ours(rule) else ' '} {count} {rule}")
    return lines


def _ours(table: str, chain: Chain) -> list[str]:
    return [
        f"{table} {chain.name}",
        *(f"      * {count} {rule}" for rule, count in _counted(chain)),
    ]


def _counted(chain: Chain) -> list[tuple[str, str]]:
    counts = [f"[{packets}:{size}]" for packets, size in chain.counters]
    counts += [""] * (len(chain.rules) - len(counts))
    return list(zip(chain.rules, counts, strict=True))
