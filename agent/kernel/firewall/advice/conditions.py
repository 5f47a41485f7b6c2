"""What an operator should know about the rules around ours. Pure."""

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
        misplaced: Why ours do not stand where Docker's rules are: then those are not missing.
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
            " It would need allow-direct-routing and bridge-accept-fwmark, and marks that this"
            " version does not set",
            hint='set "firewall-backend": "iptables" in daemon.json and restart Docker',
        )


def _unseen_tables(ruleset: Ruleset, family: Family) -> Iterator[Condition]:
    for name in ruleset.unseen:
        yield Condition(
            name="firewall-table-unreadable",
            subject=name,
            severity=Severity.INFO,
            cause=f"iptables cannot read table {name}, which another program wrote: rules there"
            " which drop mesh traffic stay unseen",
            hint=f"nft list table {family.nft} {name} shows it; Hostmesh needs nothing of it",
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


def misplaced(ruleset: Ruleset, other: Ruleset, variant: str) -> tuple[Condition, ...]:
    """The setting names the variant in which Docker's rules are not; "auto" would not choose it."""
    here, there = (DOCKER_CHAIN in each.table("filter").chains for each in (ruleset, other))
    if here or not there:
        return ()
    dockers = "legacy" if variant == "nft" else "nft"
    return (
        Condition(
            name="firewall-variant-mismatch",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"firewall.variant is {variant}, and Docker's rules stand in iptables-{dockers}:"
            " what they drop stays dropped",
            hint='set firewall.variant = "auto" in agent.toml and restart the agent',
        ),
    )


def other_variant(other: Ruleset, variant: str, wants: DesiredFirewall) -> tuple[Condition, ...]:
    """What the variant that ours are not in does to mesh traffic: Docker's rules first."""
    return _stale(other, variant) or tuple(rules_in_other_variant(other, variant, wants))


def _stale(other: Ruleset, variant: str) -> tuple[Condition, ...]:
    """Docker's chains stand in the variant it does not write to any more, still in force."""
    table = other.table("filter")
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


def switched_variant(ruleset: Ruleset, variant: str, dockers: str | None) -> tuple[Condition, ...]:
    """Iptables was switched under a running dockerd: its rules stand where it writes no more.

    Args:
        ruleset: The tables of ``variant``, in which ours are.
        dockers: The variant that dockerd writes to now, None when it cannot be told.
    """
    table = ruleset.table("filter")
    if dockers in {None, variant} or DOCKER_CHAIN not in table.chains:
        return ()
    return (
        Condition(
            name="firewall-stale-variant",
            subject=variant,
            severity=Severity.ERROR,
            cause=f"Docker's rules stand in iptables-{variant}, and the iptables that Docker runs"
            f" is {dockers} by now: rules of new containers and networks go astray",
            hint=f"systemctl restart docker, then remove Docker's rules from iptables-{variant}"
            " or reboot",
        ),
    )


def unreadable_variant(error: HostmeshError | None, variant: str) -> tuple[Condition, ...]:
    """The variant that ours are not in cannot be looked at, or cannot be rid of ours."""
    if error is None:
        return ()
    return (
        Condition(
            name="firewall-variant-unreadable",
            subject=variant,
            cause=f"iptables-{variant}, in which ours are not, cannot be looked at, so that rules"
            f" there which drop mesh traffic stay unseen: {error.message}",
            hint=error.hint
            or f"iptables-{variant}-save says the same; ours stand, and it is"
            " looked at again by itself",
        ),
    )


def unlisted_chains(error: HostmeshError | None) -> tuple[Condition, ...]:
    """Chains that nft made could not be listed: what is known of them is from before."""
    if error is None:
        return ()
    return (
        Condition(
            name="firewall-table-unreadable",
            subject="nft",
            cause=f"chains made by nft cannot be listed, so that new ones which drop mesh traffic"
            f" stay unseen: {error.message}",
            hint=error.hint or "nft list chains shows them",
        ),
    )


def contested(written_by: tuple[str, ...], *, is_so: bool) -> tuple[Condition, ...]:
    """Somebody undoes our repairs as fast as they are made.

    Args:
        written_by: Who wrote rules last, "name (pid)"; empty where the kernel does not tell.
        is_so: Repairs are held back.
    """
    if not is_so:
        return ()
    who = ", ".join(written_by)
    return (
        Condition(
            name="firewall-contested",
            cause="rules of ours were repaired twenty times within half a minute:"
            " another program keeps changing them, and they are repaired every 5 s only"
            + (f"; last seen to write: {who}" if who else ""),
            hint="one of two that want to be first in a chain must yield; agentctl diff shows what"
            " is changed, agentctl firewall show between which rules",
        ),
    )
