"""Compute the edits that make a ruleset hold the agent's chains and jumps. Pure.

A second pass after a first one finds nothing to do, whatever state the first one found: jumps
missing, doubled, moved, changed or in the wrong chain, rules changed, chains of an older version.
Rules of other programs are neither changed nor moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.kernel.firewall.chains import forward
from agent.kernel.firewall.chains.declared import Chains, entries, our_chains
from agent.kernel.firewall.chains.rule import DOCKER_USER, OURS, jump_to
from agent.kernel.firewall.parse import Ruleset, Table, parse_rule, unreadable
from agent.mesh.firewall import DesiredFirewall
from agent.model.family import Network

__all__ = [
    "JumpEdit",
    "TableEdit",
    "closing_edits",
    "entry_chain",
    "not_closed",
    "removal_edits",
    "restore_text",
    "table_edits",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpEdit:
    """Remove every jump of the agent's from a foreign chain, and perhaps insert one.

    Attributes:
        chain: The foreign chain.
        delete: Bodies to delete, as printed; equal ones as often as they occur.
        insert_at: Position of the new jump among the foreign rules alone, from 0; None
            when the chain is to hold none.
        body: The new jump, "" with ``insert_at`` None.
    """

    chain: str
    delete: tuple[str, ...]
    insert_at: int | None = None
    body: str = ""

    @property
    def described(self) -> str:
        """Describe the edit for people."""
        if self.insert_at is None:
            return f"remove the jump to Hostmesh from {self.chain}"
        if not self.delete:
            return f"add the jump to Hostmesh to {self.chain} as rule {self.insert_at + 1}"
        return f"move the jump to Hostmesh in {self.chain} back to rule {self.insert_at + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEdit:
    """The changes of one table, in one commit.

    Attributes:
        fill: Chains of the agent's to write whole, with their rules.
        jumps: Foreign chains in which jumps of the agent's change.
        drop: Chains of the agent's to remove.
    """

    table: str
    fill: Mapping[str, tuple[str, ...]]
    jumps: tuple[JumpEdit, ...]
    drop: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.fill or self.jumps or self.drop)

    def described(self) -> tuple[str, ...]:
        """Describe it for people, a line per change."""
        return (
            *(f"{self.table}: write chain {chain}" for chain in self.fill),
            *(f"{self.table}: {jump.described}" for jump in self.jumps),
            *(f"{self.table}: remove chain {chain}" for chain in self.drop),
        )


def entry_chain(table: Table, base: str = "FORWARD") -> str:
    """Return the foreign chain that the agent's jump belongs in.

    For FORWARD that is DOCKER-USER while FORWARD leads there, and FORWARD itself where there is
    no Docker or where ``iptables -F`` took Docker's jumps.
    """
    if base != "FORWARD" or DOCKER_USER not in table.chains:
        return base
    leads = any(
        spec.target == DOCKER_USER and spec.unconditional
        for spec in map(parse_rule, table.rules(base))
    )
    return DOCKER_USER if leads else base


def table_edits(ruleset: Ruleset, wants: DesiredFirewall) -> tuple[TableEdit, ...]:
    """Return the edits that make ``ruleset`` hold exactly what is wanted; none when it does.

    Raises:
        FirewallError: iptables cannot read a table in which something is wanted.
    """
    chains = our_chains(wants)
    for name in ruleset.unseen:
        if chains.get(name):
            raise unreadable(name)
    strays: dict[str, Chains] = {table: {} for table in ruleset.tables if table not in chains}
    edits = (
        _table_edit(ruleset.table(name), wanted) for name, wanted in {**chains, **strays}.items()
    )
    return tuple(edit for edit in edits if edit)


def closing_edits(
    ruleset: Ruleset, leases: tuple[Network, ...], interfaces: Iterable[str]
) -> tuple[TableEdit, ...]:
    """Return the edits that close ``leases`` until Docker has said which networks there are.

    Rules of an earlier run that are in force stay, and keep open what they open. They may be of
    other leases, so rules that are missing for these come behind them. Rules that only close are
    written again: the interfaces may have become known since.
    """
    wanted = forward.closing(leases, interfaces)
    table = ruleset.table("filter")
    there = table.rules(forward.NAME)
    if in_force(ruleset) and _opens(there) and not _same(there, wanted):
        if not not_closed(ruleset, leases):
            return ()
        known = [parse_rule(rule) for rule in there]
        wanted = (*there, *(rule for rule in wanted if parse_rule(rule) not in known))
    kept = {chain: table.rules(chain) for chain in _chains_of_ours(table)}
    edit = _table_edit(table, {**kept, forward.NAME: wanted})
    return (edit,) if edit else ()


def _opens(rules: tuple[str, ...]) -> bool:
    """Whether some rule does more than close."""
    return any(parse_rule(rule).target not in {"RETURN", "DROP"} for rule in rules)


def in_force(ruleset: Ruleset) -> bool:
    """Whether something leads to HOSTMESH-FORWARD, and it is not empty."""
    table = ruleset.table("filter")
    leads = any(
        is_ours(rule, forward.NAME)
        for chain in _foreign_chains(table)
        for rule in table.rules(chain)
    )
    return leads and bool(table.rules(forward.NAME))


def not_closed(ruleset: Ruleset, leases: tuple[Network, ...]) -> tuple[Network, ...]:
    """Return the leases that no rule in force shuts strangers out of."""
    if not in_force(ruleset):
        return leases
    there = [parse_rule(rule) for rule in ruleset.table("filter").rules(forward.NAME)]
    return tuple(
        lease
        for lease, rule in zip(leases, forward.shut_out(leases), strict=True)
        if parse_rule(rule) not in there
    )


def removal_edits(ruleset: Ruleset) -> tuple[TableEdit, ...]:
    """Return the edits that remove exactly the agent's chains and jumps."""
    return tuple(edit for each in ruleset.tables.values() if (edit := _table_edit(each, {})))


def _table_edit(table: Table, wanted: Mapping[str, tuple[str, ...]]) -> TableEdit:
    """Return the edit that makes a table hold these own chains, jumps to them, and no others."""
    targets = {
        entry_chain(table, base): name
        for base, name in entries(table.name).items()
        if name in wanted
    }
    jumps = (
        _jump_edit(table, chain, targets.get(chain, ""))
        for chain in dict.fromkeys((*targets, *_foreign_chains(table)))
    )
    return TableEdit(
        table=table.name,
        fill={
            chain: rules
            for chain, rules in wanted.items()
            if chain not in table.chains or not _same(table.rules(chain), rules)
        },
        jumps=tuple(edit for edit in jumps if edit is not None),
        drop=tuple(chain for chain in _chains_of_ours(table) if chain not in wanted),
    )


def _jump_edit(table: Table, chain: str, target: str) -> JumpEdit | None:
    """Return how jumps in a foreign chain change; ``target`` is "" when none belongs there."""
    rules = table.rules(chain)
    ours = tuple(rule for rule in rules if is_ours(rule))
    if not target:
        return JumpEdit(chain=chain, delete=ours) if ours else None
    foreign = tuple(rule for rule in rules if not is_ours(rule))
    at, body = _place(chain, foreign), jump_to(target)
    wanted = (*foreign[:at], body, *foreign[at:])
    if _same(rules, wanted):
        return None
    return JumpEdit(chain=chain, delete=ours, insert_at=at, body=body)


def _place(chain: str, foreign: tuple[str, ...]) -> int:
    """Return where among the foreign rules the jump belongs.

    First, except in DOCKER-USER: there behind the operator's own rules, and before the
    RETURN at its end that engines before 28.3 write, behind which nothing is reached.
    """
    if chain != DOCKER_USER:
        return 0
    for index, rule in enumerate(foreign):
        spec = parse_rule(rule)
        if spec.target == "RETURN" and spec.unconditional:
            return index
    return len(foreign)


def is_ours(rule: str, target: str = OURS) -> bool:
    """Whether a rule leads into a chain whose name begins so, by default any of the agent's."""
    return target in rule and parse_rule(rule).target.startswith(target)


def _same(rules: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether two lists of bodies mean the same, in the same order."""
    return rules == wanted or (
        len(rules) == len(wanted)
        and all(
            one == other or parse_rule(one) == parse_rule(other)
            for one, other in zip(rules, wanted, strict=True)
        )
    )


def _chains_of_ours(table: Table) -> tuple[str, ...]:
    return tuple(chain for chain in table.chains if chain.startswith(OURS))


def _foreign_chains(table: Table) -> tuple[str, ...]:
    return tuple(chain for chain in table.chains if not chain.startswith(OURS))


def restore_text(edits: tuple[TableEdit, ...]) -> str:
    """Return the edits as input of ``iptables-restore --noflush``, which commits table by table.

    Declaring a chain makes it or empties it, so a foreign one is never declared. Jumps are
    deleted by their text, never by number: another rule may have the number by now.
    """
    return "".join(_table_text(edit) for edit in edits)


def _table_text(edit: TableEdit) -> str:
    lines = [f"*{edit.table}"]
    lines += [f":{chain} - [0:0]" for chain in (*edit.fill, *edit.drop)]
    lines += [f"-A {chain} {rule}" for chain, rules in edit.fill.items() for rule in rules]
    for jump in edit.jumps:
        lines += [f"-D {jump.chain} {rule}" for rule in jump.delete]
        if jump.insert_at is not None:
            lines.append(f"-I {jump.chain} {jump.insert_at + 1} {jump.body}")
    lines += [f"-X {chain}" for chain in edit.drop]
    return "\n".join([*lines, "COMMIT", ""])
