"""Conditions about the rules around the agent's. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.errors import HostmeshError
from agent.kernel.firewall.advice.operator_rules import operator_rules
from agent.kernel.firewall.advice.other_tables import rules_elsewhere, rules_in_other_variant
from agent.kernel.firewall.chains.rule import DOCKER_CHAIN, DOCKER_USER
from agent.kernel.firewall.parse import Ruleset, Table, parse_rule
from agent.mesh.firewall import DesiredFirewall
from agent.model import Condition, Severity
from agent.model.family import Family

__all__ = [
    "conditions_of",
    "contested",
    "misplaced",
    "other_variant",
    "switched_variant",
    "unlisted_chains",
    "unreadable_variant",
]


def conditions_of(
    ruleset: Ruleset, wants: DesiredFirewall, misplaced: tuple[Condition, ...] = ()
) -> tuple[Condition, ...]:
    """Every condition that shows in the rules, in a stable order; not those of the wants.

    Args:
        ruleset, wants: What is there and what is wanted.
        misplaced: Conditions that the agent's rules are not where Docker's are: then Docker's are
            not missing.
    """
    return (
        *_backend(wants),
        *_unseen_tables(ruleset, wants.family),
        *(misplaced or _docker_rules(ruleset, wants)),
        *operator_rules(ruleset.table("filter"), wants),
        *rules_elsewhere(ruleset, wants),
    )


def _backend(wants: DesiredFirewall) -> Iterator[Condition]:
    if wants.docker_backend == "nftables":
        yield Condition(
            name="firewall-backend-nftables",
            severity=Severity.ERROR,
            cause="Docker uses its nftables firewall backend, whose DROP rules no iptables rule"
            " can lift, and has no DOCKER-USER: other hosts do not reach this host's containers."
            " This version does not support it",
            hint='set "firewall-backend": "iptables" in daemon.json and restart Docker',
        )


def _unseen_tables(ruleset: Ruleset, family: Family) -> Iterator[Condition]:
    for name in ruleset.unseen:
        yield Condition(
            name="firewall-table-unreadable",
            subject=name,
            severity=Severity.INFO,
            cause=f"iptables cannot read table {name}, which another program wrote with nft; rules"
            " there that drop mesh traffic are not seen",
            hint=f"look for rules that drop mesh traffic: nft list table {family.nft} {name}",
        )


def _docker_rules(ruleset: Ruleset, wants: DesiredFirewall) -> Iterator[Condition]:
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
            cause=f"nothing leads from {' and '.join(lost)} into Docker's chains, as after"
            " iptables -F: published ports, isolation or masquerading of this host's Docker fail",
            hint="have Docker write its rules again: systemctl restart docker",
        )
    elif wants.networks and not any(DOCKER_CHAIN in table.chains for table in tables):
        yield Condition(
            name="docker-rules-missing",
            cause="Docker runs, and its chains are not in iptables",
            hint="have Docker write them: systemctl restart docker (unless daemon.json has"
            ' "iptables": false)',
        )


def _reaches_docker(table: Table, base: str) -> bool:
    """Whether ``base`` leads into any chain of Docker's, directly."""
    targets = {parse_rule(rule).target for rule in table.rules(base) if "DOCKER" in rule}
    return any(target.startswith(DOCKER_CHAIN) and target != DOCKER_USER for target in targets)


def misplaced(ruleset: Ruleset, other: Ruleset, variant: str) -> tuple[Condition, ...]:
    """Report that the setting names the variant in which Docker's rules are not."""
    here, there = (DOCKER_CHAIN in each.table("filter").chains for each in (ruleset, other))
    if here or not there:
        return ()
    dockers = "legacy" if variant == "nft" else "nft"
    return (
        Condition(
            name="firewall-variant-mismatch",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"firewall.variant is {variant}, and Docker's rules are in iptables-{dockers}:"
            " packets that they drop stay dropped",
            hint='set firewall.variant = "auto" in agent.toml and restart the agent',
        ),
    )


def other_variant(other: Ruleset, variant: str, wants: DesiredFirewall) -> tuple[Condition, ...]:
    """Report rules of the variant that is not in use that drop mesh traffic, Docker's first."""
    return _stale(other, variant) or tuple(rules_in_other_variant(other, variant, wants))


def _stale(other: Ruleset, variant: str) -> tuple[Condition, ...]:
    """Report Docker's chains in force in the variant that Docker no longer writes to."""
    table = other.table("filter")
    if DOCKER_CHAIN not in table.chains or not _reaches_docker(table, "FORWARD"):
        return ()
    return (
        Condition(
            name="firewall-stale-variant",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"Docker's rules are also in iptables-{variant}, from before iptables was"
            " switched, and still in force: packets that they drop stay dropped",
            hint=f"remove them there (iptables-{variant}-save shows them), or reboot",
        ),
    )


def switched_variant(ruleset: Ruleset, variant: str, dockers: str | None) -> tuple[Condition, ...]:
    """Report that iptables was switched under a running dockerd, which wrote to the other one.

    Args:
        ruleset: The tables of ``variant``, in which the agent's rules are.
        dockers: The variant that dockerd writes to now, None when it is not known.
    """
    table = ruleset.table("filter")
    if dockers in {None, variant} or DOCKER_CHAIN not in table.chains:
        return ()
    return (
        Condition(
            name="firewall-stale-variant",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"Docker's rules are in iptables-{variant}, and the iptables that Docker runs is"
            f" {dockers} now: rules of new containers and networks go to the other one",
            hint=f"restart Docker (systemctl restart docker), then remove its rules from"
            f" iptables-{variant}, or reboot",
        ),
    )


def unreadable_variant(error: HostmeshError | None, variant: str) -> tuple[Condition, ...]:
    """Report that the variant not in use cannot be read, or cleared of the agent's rules."""
    if error is None:
        return ()
    return (
        Condition(
            name="firewall-variant-unreadable",
            subject=variant,
            cause=f"iptables-{variant}, which is not in use, cannot be read, so that rules there"
            f" that drop mesh traffic are not seen: {error.message}",
            hint=error.hint
            or f"see whether it works: iptables-{variant}-save; the agent reads it again later",
        ),
    )


def unlisted_chains(error: HostmeshError | None) -> tuple[Condition, ...]:
    """Report that chains made with nft could not be listed; those known are from before."""
    if error is None:
        return ()
    return (
        Condition(
            name="firewall-table-unreadable",
            subject="nft",
            cause="chains made with nft cannot be listed, so that new ones that drop mesh traffic"
            f" are not seen: {error.message}",
            hint=error.hint or "list them: nft list chains",
        ),
    )


def contested(written_by: tuple[str, ...], *, is_so: bool) -> tuple[Condition, ...]:
    """Report that another program undoes repairs as fast as they are made.

    Args:
        written_by: Programs that wrote rules last, "name (pid)"; empty where not known.
        is_so: Repairs are held back.
    """
    if not is_so:
        return ()
    who = ", ".join(written_by)
    return (
        Condition(
            name="firewall-contested",
            cause="Hostmesh's rules were repaired twenty times within half a minute because another"
            " program keeps changing them; now they are repaired every 5 s"
            + (f"; last writer: {who}" if who else ""),
            hint="stop the other program, or have it leave the first place in the chain to"
            " Hostmesh; agentctl diff shows the changes, agentctl firewall show the chains",
        ),
    )
