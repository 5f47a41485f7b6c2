"""What an operator should know about the rules around ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from itertools import product
from typing import Final

from agent.kernel.firewall.parse import Clause, Ruleset, RuleSpec, Table, parse_rule
from agent.kernel.firewall.plan import entry_chain, is_ours
from agent.kernel.firewall.rules import DOCKER_CHAIN, DOCKER_USER, OURS
from agent.mesh.firewall import FirewallWants
from agent.model import Condition, Severity

__all__ = ["conditions_of", "contested", "stale_variant"]

_DEPTH: Final = 8
"""How deep an operator's own chains are followed."""
_SHUTS: Final = frozenset({"DROP", "REJECT"})


def conditions_of(ruleset: Ruleset, wants: FirewallWants) -> tuple[Condition, ...]:
    """Every condition that shows in the rules, in a stable order; not those of the wants."""
    return (
        *_backend(wants),
        *_docker_rules(ruleset, wants),
        *_operator_blocks(ruleset.table("filter"), wants),
    )


def _backend(wants: FirewallWants) -> Iterator[Condition]:
    if wants.docker_backend == "nftables":
        yield Condition(
            name="firewall-backend-nftables",
            severity=Severity.ERROR,
            cause="Docker uses its nftables firewall backend, whose DROP rules no iptables rule"
            " can lift: other hosts do not reach this host's containers",
            hint='set "firewall-backend": "iptables" in daemon.json and restart Docker',
        )


def _docker_rules(ruleset: Ruleset, wants: FirewallWants) -> Iterator[Condition]:
    """Docker's chains are gone, or nothing leads into them, as after ``iptables -F``."""
    if wants.docker_backend == "nftables":
        return
    tables = ruleset.table("filter"), ruleset.table("nat")
    lost = [
        f"{table.name} {base}"
        for table, base in zip(tables, ("FORWARD", "PREROUTING"), strict=True)
        if DOCKER_CHAIN in table.chains and not _reaches_docker(table, base)
    ]
    if lost:
        yield Condition(
            name="docker-rules-missing",
            severity=Severity.ERROR,
            cause=f"nothing leads from {' and '.join(lost)} into Docker's chains any more, as after"
            " iptables -F: published ports, isolation or masquerading of this host's Docker fail",
            hint="systemctl restart docker writes them again",
        )
    elif wants.networks and not any(DOCKER_CHAIN in table.chains for table in tables):
        yield Condition(
            name="docker-rules-missing",
            cause="Docker runs, and its chains are not in iptables",
            hint='systemctl restart docker, unless daemon.json has "iptables": false',
        )


def _reaches_docker(table: Table, base: str) -> bool:
    """Whether ``base`` leads into any chain of Docker's, directly."""
    targets = {parse_rule(rule).target for rule in table.rules(base) if "DOCKER" in rule}
    return any(target.startswith(DOCKER_CHAIN) and target != DOCKER_USER for target in targets)


def _operator_blocks(table: Table, wants: FirewallWants) -> Iterator[Condition]:
    """A rule ahead of ours that surely shuts mesh traffic off.

    Only what can be told from interface, addresses and connection state: a rule that also
    looks at ports or at anything else closes a part, which is the operator's right.
    """
    entry = entry_chain(table)
    ahead = _rules_ahead(table, "FORWARD", DOCKER_USER if entry == DOCKER_USER else "")
    if entry == DOCKER_USER:
        ahead = (*ahead, *_rules_ahead(table, DOCKER_USER, ""))
    for chain, rule in ahead:
        found = _shutting(table, chain, rule, wants, _DEPTH)
        if found is not None:
            yield Condition(
                name="operator-blocks-mesh",
                subject=found[0],
                severity=Severity.ERROR,
                cause=f"a rule ahead of ours shuts mesh traffic off: -A {found[0]} {found[1]}",
                hint=f"put ahead of it: iptables -I {chain} -i {wants.uplink} -s {wants.cidr}"
                f" -d {wants.lease} -j ACCEPT",
            )
            return


def _rules_ahead(table: Table, chain: str, until: str) -> tuple[tuple[str, str], ...]:
    """(chain, body) of what a packet meets in ``chain`` before our jump or ``until``."""
    ahead: list[tuple[str, str]] = []
    for rule in table.rules(chain):
        if is_ours(rule) or (until and parse_rule(rule).target == until):
            break
        ahead.append((chain, rule))
    return tuple(ahead)


def _shutting(
    table: Table, chain: str, rule: str, wants: FirewallWants, depth: int
) -> tuple[str, str] | None:
    """The (chain, rule) that ends mesh traffic when a packet meets ``rule``, or None."""
    spec = parse_rule(rule)
    if not _hits_mesh(spec, wants):
        return None
    if spec.target in _SHUTS:
        return chain, rule
    if depth and spec.target in table.chains and not spec.target.startswith((OURS, DOCKER_CHAIN)):
        for inner in table.rules(spec.target):
            found = _shutting(table, spec.target, inner, wants, depth - 1)
            if found is not None:
                return found
            inner_spec = parse_rule(inner)
            if inner_spec.target in {"ACCEPT", "RETURN"} and _hits_mesh(inner_spec, wants):
                return None
    return None


_Way = Mapping[str, str | IPv4Network]
"""A packet's path in a rule's words: what -i, -o, -s and -d are for it."""


def _hits_mesh(spec: RuleSpec, wants: FirewallWants) -> bool:
    """Whether new mesh traffic to or from some network surely meets every test of the rule."""
    return any(all(_holds(clause, way) for clause in spec.clauses) for way in _ways(wants))


def _ways(wants: FirewallWants) -> Iterator[_Way]:
    """The paths mesh traffic takes through this host, in and out."""
    opened = [network for network in wants.networks if not network.closed]
    for network in opened:
        for cidr in wants.cidrs:
            yield {"-i": wants.uplink, "-o": network.bridge, "-s": cidr, "-d": network.subnet}
            yield {"-i": network.bridge, "-o": wants.uplink, "-s": network.subnet, "-d": cidr}
    if not opened:
        for lease, cidr in product(wants.leases, wants.cidrs):
            yield {"-i": wants.uplink, "-s": cidr, "-d": lease}
            yield {"-o": wants.uplink, "-s": lease, "-d": cidr}


def _holds(clause: Clause, way: _Way) -> bool:
    if clause.module == "comment":
        return True
    if clause.option in {"--ctstate", "--state"}:
        return ("NEW" in clause.values) != clause.negated
    known = way.get(clause.option) if not clause.module else None
    if isinstance(known, IPv4Network):
        return _address_holds(clause, known)
    if isinstance(known, str):
        return _interface_matches(clause.values[0], known) != clause.negated
    return False


def _address_holds(clause: Clause, known: IPv4Network) -> bool:
    try:
        said = IPv4Network(clause.values[0])
    except (AddressValueError, NetmaskValueError, ValueError):
        return False
    return not said.overlaps(known) if clause.negated else known.subnet_of(said)


def _interface_matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def stale_variant(stale: Ruleset, variant: str) -> tuple[Condition, ...]:
    """Docker's chains stand in the variant it does not write to any more, still in force."""
    table = stale.table("filter")
    if DOCKER_CHAIN not in table.chains or not _reaches_docker(table, "FORWARD"):
        return ()
    return (
        Condition(
            name="firewall-stale-variant",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"Docker's rules also stand in iptables-{variant}, left from before iptables was"
            " switched, and are still in force: what they drop stays dropped",
            hint=f"iptables-{variant}-save shows them; remove them there, or reboot",
        ),
    )


def contested(is_so: bool) -> tuple[Condition, ...]:  # noqa: FBT001
    """Somebody undoes our repairs as fast as they are made."""
    if not is_so:
        return ()
    return (
        Condition(
            name="firewall-contested",
            cause="rules of ours were repaired twenty times within half a minute: another"
            " program keeps changing them, and they are repaired every 5 s only",
            hint="the log names the programs that write rules; one of two that want to be first"
            " in a chain must yield",
        ),
    )
