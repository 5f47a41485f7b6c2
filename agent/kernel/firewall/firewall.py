"""The host's firewall: read, compare and write, with whichever iptables the host has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from agent.errors import FirewallError
from agent.kernel.firewall.advice.conditions import (
    contested,
)
from agent.kernel.firewall.advice.operator_rules import Judgement, Way, judge
from agent.kernel.firewall.conntrack import Flows
from agent.kernel.firewall.edits import (
    TableEdit,
    closing_edits,
    not_closed,
    restore_text,
    table_edits,
)
from agent.kernel.firewall.ipsets import Ipsets
from agent.kernel.firewall.legacy import LegacyWriter
from agent.kernel.firewall.nft import NftWriter
from agent.kernel.firewall.parse import Ruleset, parse_ruleset
from agent.kernel.firewall.report import FirewallReport, report_of
from agent.kernel.firewall.show import shown
from agent.kernel.firewall.variant.choice import Reading, VariantChoice, Writer
from agent.kernel.firewall.variant.dockerd import Dockerd
from agent.kernel.firewall.variant.iptables import Iptables, Variant
from agent.mesh.firewall import DesiredFirewall, PublishedPort
from agent.model.family import IPV4, Family, Network
from agent.model.objects import SetMember
from agent.reconcile.damping import Damper, Limits
from agent.reconcile.reconciler import Permission, Reconciler

__all__ = ["Firewall", "open_firewall"]

MAY_DELETE: Final = Permission(may_delete=True)

_WRITES: Final = 3
"""How often one pass writes while another program does."""

_FLOW_LOOKS: Final = 5
"""In how many passes at most flows are searched, where one pass does not reach their end."""

_DOCKER_STARTS_S: Final = 30.0
"""A dockerd that young may still be writing its own rules."""

_EDITS_LOGGED: Final = 2
"""How many edits a log line names; ``agentctl diff`` and ``agentctl firewall show`` have all."""
_REPAIRS: Final = Limits(
    burst=20, window_s=30.0, first_pause_s=5.0, longest_pause_s=5.0, over_s=25.0
)
"""Docker that restarts, or makes the networks of a Compose project, stays below the burst."""

_log = structlog.get_logger(__name__)


class Firewall:
    """The firewall of this host's network namespace. One thread at a time.

    Every method may raise DependencyMissing (no iptables), NotRoot or FirewallError.

    Args:
        programs: The iptables programs.
        writers: One per variant.
        sets: Those that the agent's rules name.
        flows: Connection tracking.
        variant: The variant to use; None to find where Docker's rules are.
        dockerd: Returns the running dockerd, None when there is none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        programs: Iptables,
        writers: Mapping[Variant, Writer],
        sets: Ipsets,
        flows: Flows,
        variant: Variant | None = None,
        dockerd: Callable[[], Dockerd | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._programs = programs
        self._choice = VariantChoice(
            programs=programs,
            writers=writers,
            fixed=variant,
            dockerd=dockerd,
            clock=clock,
        )
        self._sets = sets
        self._flows = flows
        self._dockerd = dockerd
        self._clock = clock
        self._damper = Damper(_REPAIRS)
        self._written_by: tuple[str, ...] = ()
        self._applied: DesiredFirewall | None = None
        self._set_repairs = 0
        self._closed = False
        # An earlier run of the agent may have ended between a repair of NAT and this.
        self._flow_looks_left = _FLOW_LOOKS
        self._slices: Mapping[str, frozenset[Network]] = {}
        """Of the closed networks: a flow to one that is new may be masqueraded still."""

    def own_pids(self) -> frozenset[int]:
        """Return the agent's last processes, whose changes the rule monitor leaves out."""
        return self._programs.own_pids()

    def written_by(self, programs: tuple[str, ...]) -> None:
        """Remember which programs wrote rules just now; a condition may name them."""
        self._written_by = programs or self._written_by

    def check(self, wants: DesiredFirewall, *, may_delete: bool = True) -> FirewallReport:
        """Return what :meth:`apply` would change. Changes nothing.

        Args:
            may_delete: Whether sources may be shut out.
        """
        sets = self._sets.difference(wants, may_delete=may_delete)
        return self._report(self._choice.read(), wants, sets)

    @property
    def ingress(self) -> Reconciler[SetMember]:
        """Sources that may come in, and slices, for the pass over routes."""
        return self._sets.ingress

    def want_sources(self, wants: DesiredFirewall, slices: Iterable[SetMember] = ()) -> None:
        """Desire exactly these sources and slices, where no pass over routes does it."""
        self._sets.want_sources(wants, slices)

    def closes_links(self, wants: DesiredFirewall) -> bool:
        """Return whether :meth:`apply` would shut out all that comes by one of the links."""
        return bool(self._sets.unwanted_links(wants))

    def apply(self, wants: DesiredFirewall, permission: Permission = MAY_DELETE) -> FirewallReport:
        """Make the firewall as wanted. Writes nothing when nothing differs.

        Sets come before the rules that name them, and the wrong variant is cleared last: at no
        moment is there a rule less than before.

        Args:
            permission: Which sources may be shut out; closing a port needs none.
        """
        if self._closed:
            # The variant was chosen before Docker ran. The other one is cleared below.
            self._choice.again()
        reading = self._choice.read()
        self._closed = False
        sets = self._sets.settle(wants, permission)
        found = self._report(reading, wants, sets.edits)
        conditions = (*found.conditions, *sets.conditions)
        report = replace(found, conditions=conditions, failed=not sets.complete)
        edits = table_edits(reading.ruleset, wants)
        drift = wants == self._applied and not self._docker_starts()
        if edits and drift and not self._damper.allows(self._clock()):
            return replace(report, held_back=True)
        if edits:
            self._write(reading.writer, edits, partial(table_edits, wants=wants))
        moved = self._choice.leave_other()
        removed, in_use = self._sets.sweep(wants)
        self._applied = wants
        if drift and edits:
            self._damper.repaired(self._clock())
        self._set_repairs += drift and sets.repaired and not edits
        freed = self._free_flows(wants)
        if edits or sets.edits or moved or removed:
            self._log_change(report, freed, self._written_by if drift else ())
        return replace(
            report,
            conditions=(*report.conditions, *in_use),
            freed_flows=freed,
            repairs=self._damper.total + self._set_repairs,
        )

    @staticmethod
    def _log_change(report: FirewallReport, freed: int, drift_by: tuple[str, ...]) -> None:
        _log.info(
            "firewall-changed",
            variant=report.variant,
            changes=len(report.edits),
            edits=report.edits[:_EDITS_LOGGED],
            freed=freed,
            **({"drift_by": drift_by} if drift_by else {}),
        )

    def _docker_starts(self) -> bool:
        """Whether Docker is writing its own rules ahead of the agent's: that is no drift."""
        dockerd = self._dockerd()
        return dockerd is not None and dockerd.age_s < _DOCKER_STARTS_S

    def close(
        self, leases: tuple[Network, ...], interfaces: tuple[str, ...], *, dry_run: bool = False
    ) -> FirewallReport:
        """Shut strangers out of ``leases``, and open nothing, before Docker has answered.

        Rules of an earlier run that are in force stay. Which iptables a Docker that starts will
        use is not known. Both are in force, so that a DROP in the one that the host has by
        default holds in either case.

        Args:
            interfaces: Every one by which a packet from outside may come.
        """
        reading = self._choice.read()
        self._closed = True
        leases = not_closed(reading.other.ruleset, leases)
        planned = partial(closing_edits, leases=leases, interfaces=interfaces)
        edits = planned(reading.ruleset) if leases else ()
        if edits and not dry_run:
            self._write(reading.writer, edits, planned)
            _log.info("firewall-closed", variant=reading.variant, subnets=list(map(str, leases)))
        words = tuple(line for edit in edits for line in edit.described())
        return FirewallReport(variant=reading.variant, differs=bool(edits), edits=words)

    def remove(self) -> FirewallReport:
        """Remove exactly the agent's rules, from both variants, and its sets."""
        variant, words = self._choice.remove_all()
        done = list(words)
        done += self._sets.remove()
        self._applied = None
        if done:
            _log.info("firewall-removed", edits=tuple(done))
        return FirewallReport(variant=variant, differs=bool(done), edits=tuple(done))

    def show(self) -> str:
        """Return the agent's rules, their place among the others and their counters, for people."""
        variant = self._choice.read().variant
        counted = parse_ruleset(self._programs.save(variant, counters=True))
        return shown(counted, variant=variant, sets=self._sets.show())

    def judge(self, way: Way) -> Judgement:
        """Return what happens to a new flow on its way through this host. Changes nothing."""
        table = self._choice.read().ruleset.table("filter")
        port = PublishedPort(way.destination, "tcp", way.tcp_port)
        published = bool(way.tcp_port) and self._sets.publishes(port)
        return judge(table, way, self._sets.sources(), published=published)

    def render(self, wants: DesiredFirewall) -> str:
        """Return the input that :meth:`apply` would give iptables-restore. Changes nothing."""
        return restore_text(table_edits(self._choice.read().ruleset, wants))

    def set_forward_policy_drop(self) -> str:
        """Set FORWARD's policy to DROP, as Docker does before it switches forwarding on.

        Returns:
            The policy before, for :meth:`restore_forward_policy`.
        """
        reading = self._choice.read()
        chain = reading.ruleset.table("filter").chains.get("FORWARD")
        previous = chain.policy if chain is not None else "ACCEPT"
        if previous != "DROP":
            reading.writer.set_policy("DROP")
            _log.info("forward-policy-set", policy="DROP", previous=previous)
        return previous

    def restore_forward_policy(self, previous: str) -> None:
        """Put FORWARD's policy back, if it still is the DROP that was set."""
        if previous not in {"ACCEPT", "DROP"}:
            raise FirewallError(f"{previous!r} is no policy that FORWARD can have")
        reading = self._choice.read()
        chain = reading.ruleset.table("filter").chains.get("FORWARD")
        if chain is not None and chain.policy == "DROP" and previous != "DROP":
            reading.writer.set_policy(previous)
            _log.info("forward-policy-set", policy=previous, previous="DROP")

    def _report(
        self, reading: Reading, wants: DesiredFirewall, sets: tuple[str, ...]
    ) -> FirewallReport:
        report = report_of(reading, wants, sets)
        fight = contested(self._written_by, is_so=self._damper.is_fight(self._clock()))
        return replace(
            report,
            conditions=(*report.conditions, *fight),
            repairs=self._damper.total + self._set_repairs,
        )

    def _write(
        self,
        writer: Writer,
        edits: tuple[TableEdit, ...],
        planned: Callable[[Ruleset], tuple[TableEdit, ...]],
    ) -> None:
        """Write, read again, and repeat for what another program changed at the same moment.

        Raises:
            FirewallError: Refused, or it still differs: the program reported success and wrote
                something else, or another program writes without pause.
        """
        for _ in range(_WRITES):
            if any(edit.table == "nat" for edit in edits):
                self._flow_looks_left = _FLOW_LOOKS
            writer.write(edits)
            edits = planned(writer.read())
            if not edits:
                return
        words = "; ".join(line for edit in edits for line in edit.described())
        raise FirewallError(
            f"the firewall still differs after it was written {_WRITES} times: {words}",
            hint="another program may be writing iptables rules at the same time",
        )

    def _free_flows(self, wants: DesiredFirewall) -> int:
        """Delete flows that were masqueraded before NAT was right, now or in later passes."""
        slices = self._sets.slices({each.slices for each in wants.networks if each.closed} - {""})
        if slices != self._slices:
            self._slices, self._flow_looks_left = slices, _FLOW_LOOKS
        if not self._flow_looks_left:
            return 0
        look = self._flows.free_masqueraded(wants, slices)
        self._flow_looks_left = 0 if look.complete else self._flow_looks_left - 1
        if look.freed or not look.complete:
            _log.info("firewall-flows-freed", freed=look.freed, left=look.left)
        return look.freed


def open_firewall(
    variant: str = "auto",
    *,
    dockerd: Callable[[], Dockerd | None] = lambda: None,
    family: Family = IPV4,
) -> Firewall:
    """Return the firewall of this host.

    Args:
        variant: "nft", "legacy", or "auto": where Docker's rules are.
        family: Of the addresses in its rules.
        dockerd: Returns the running dockerd, None when there is none.

    Raises:
        DependencyMissing: iptables is not installed.
        FirewallError: It does not say its version.
        ValueError: ``variant`` is none of the three.
    """
    programs = Iptables(family=family)
    fixed = None if variant == "auto" else Variant(variant)
    if fixed is None or not programs.has(fixed):
        programs.default_variant()
    return Firewall(
        programs=programs,
        writers={Variant.NFT: NftWriter(programs), Variant.LEGACY: LegacyWriter(programs)},
        sets=Ipsets(family),
        flows=Flows(),
        variant=fixed,
        dockerd=dockerd,
    )
