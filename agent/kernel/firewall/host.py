"""The host's firewall: one reading, one plan, one writing, whichever iptables it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from agent.errors import FirewallError
from agent.kernel.firewall.conditions import (
    conditions_of,
    contested,
    stale_variant,
    switched_variant,
)
from agent.kernel.firewall.damper import Damper
from agent.kernel.firewall.dockerd import variant_of
from agent.kernel.firewall.flows import Flows
from agent.kernel.firewall.legacy import LegacyWriter
from agent.kernel.firewall.nft import NftWriter
from agent.kernel.firewall.operator import Judgement, Way, judge
from agent.kernel.firewall.parse import Ruleset, parse_ruleset
from agent.kernel.firewall.plan import TableEdit, plan, plan_removal, restore_text
from agent.kernel.firewall.rules import DOCKER_CHAIN
from agent.kernel.firewall.show import shown
from agent.kernel.firewall.variant import Programs, Variant
from agent.kernel.ipset import PeerSet, SetChange
from agent.mesh.firewall import PEERS_SET, FirewallWants
from agent.model import Condition

__all__ = ["Firewall", "FirewallReport", "HostFirewall", "Writer", "open_firewall"]

_OTHER_EVERY_S: Final = 30.0
"""How often the variant is asked for again and the one not in use is looked at."""

_EDITS_TOLD: Final = 2
"""How many edits a log line names; ``agentctl diff`` and ``agentctl firewall show`` have all."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallReport:
    """What a look at the firewall found, and what was done about it.

    Attributes:
        variant: "nft" or "legacy": where ours are.
        differs: Something was not as wanted when this call looked.
        edits: What differed, in words; done, after ``apply``.
        conditions: What the operator should know.
        peers_added, peers_removed: Changes of the set of node addresses.
        freed_flows: Flows forgotten because they had been masqueraded.
        repairs: How often this object has put right what somebody else had changed.
        held_back: Nothing was done this time: somebody undoes every repair at once.
    """

    variant: str
    differs: bool
    edits: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    peers_added: int = 0
    peers_removed: int = 0
    freed_flows: int = 0
    repairs: int = 0
    held_back: bool = False


class Writer(Protocol):
    """One variant's tables."""

    variant: Variant

    def read(self) -> Ruleset:
        """All tables, whole or an error."""

    def write(self, edits: tuple[TableEdit, ...]) -> None:
        """Commit, each table whole or not at all."""

    def set_policy(self, policy: str) -> None:
        """FORWARD's policy in the filter table."""


class Firewall(Protocol):
    """What the daemon needs of the firewall. One thread at a time.

    Every method may raise DependencyMissing (no iptables), NotRoot or FirewallError.
    """

    def check(self, wants: FirewallWants) -> FirewallReport:
        """What :meth:`apply` would change. Changes nothing."""

    def apply(self, wants: FirewallWants) -> FirewallReport:
        """Make the firewall as wanted. Writes nothing when nothing differs."""

    def remove(self) -> FirewallReport:
        """Take out exactly what is ours, from both variants, and the set."""

    def show(self) -> str:
        """Our rules, their place among the others and their counters, for people."""

    def render(self, wants: FirewallWants) -> str:
        """What :meth:`apply` would feed to iptables-restore. Changes nothing."""

    def own_pids(self) -> frozenset[int]:
        """Processes of ours, for :class:`~agent.kernel.firewall.monitor.RuleMonitor`."""

    def set_forward_policy_drop(self) -> str:
        """Set FORWARD's policy to DROP, as Docker does before it switches forwarding on.

        Returns:
            The policy before, for :meth:`restore_forward_policy`.
        """

    def restore_forward_policy(self, previous: str) -> None:
        """Put FORWARD's policy back, if it still is the DROP that was set."""


class HostFirewall:
    """The firewall of this host's network namespace.

    Args:
        programs: The iptables programs.
        writers: One per variant.
        peers: The set of node addresses.
        flows: Connection tracking.
        variant: The variant to use; None to find where Docker's rules are.
        docker_variant: What the running dockerd writes with, None when it cannot be told.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        programs: Programs,
        writers: Mapping[Variant, Writer],
        peers: PeerSet,
        flows: Flows,
        variant: Variant | None = None,
        docker_variant: Callable[[], Variant | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._programs = programs
        self._writers = writers
        self._peers = peers
        self._flows = flows
        self._fixed = variant
        self._docker_variant = docker_variant
        self._dockers: Variant | None = None
        self._clock = clock
        self._chosen: Variant | None = None
        self._looked_at = 0.0
        self._other: Ruleset | None = None
        self._damper = Damper()
        self._applied: FirewallWants | None = None

    def own_pids(self) -> frozenset[int]:
        """See :class:`Firewall`."""
        return self._programs.own_pids()

    def check(self, wants: FirewallWants) -> FirewallReport:
        """See :class:`Firewall`."""
        writer, ruleset = self._read()
        return self._report(writer, ruleset, wants, self._peers.difference(wants.peers))

    def apply(self, wants: FirewallWants) -> FirewallReport:
        """See :class:`Firewall`.

        The set comes before the rules that name it, and ours leave the wrong variant last:
        at no moment is there a rule less than before.
        """
        writer, ruleset = self._read()
        change = self._peers.difference(wants.peers)
        report = self._report(writer, ruleset, wants, change)
        if not report.differs:
            self._applied = wants
            return report
        if change:
            self._peers.sync(wants.peers)
        edits = plan(ruleset, wants)
        drift = bool(edits) and wants == self._applied
        if drift and not self._damper.allows(self._clock()):
            return replace(report, held_back=True)
        freed = 0
        if edits:
            writer.write(edits)
            self._verify(writer, wants)
            if any(edit.table == "nat" for edit in edits):
                freed = self._flows.free_masqueraded(wants.leases, wants.cidrs)
        self._leave_other(writer.variant)
        self._applied = wants
        if drift:
            self._damper.repaired(self._clock())
        _log.info(
            "firewall-changed",
            variant=writer.variant,
            changes=len(report.edits),
            edits=report.edits[:_EDITS_TOLD],
            freed=freed,
        )
        return replace(
            report,
            peers_added=len(change.added),
            peers_removed=len(change.removed),
            freed_flows=freed,
            repairs=self._damper.total,
        )

    def remove(self) -> FirewallReport:
        """See :class:`Firewall`. Works on a host whose iptables was switched meanwhile."""
        done: list[str] = []
        chosen = self._choose()
        for variant in (chosen, chosen.other):
            if not self._programs.has(variant):
                continue
            edits = plan_removal(self._writers[variant].read())
            self._writers[variant].write(edits)
            done += [f"{variant}: {word}" for edit in edits for word in edit.words()]
        if self._peers.remove():
            done.append(f"ipset {PEERS_SET}: removed")
        self._chosen = self._other = self._applied = None
        if done:
            _log.info("firewall-removed", edits=tuple(done))
        return FirewallReport(variant=chosen, differs=bool(done), edits=tuple(done))

    def show(self) -> str:
        """See :class:`Firewall`."""
        writer, _ruleset = self._read()
        counted = parse_ruleset(self._programs.save(writer.variant, counters=True))
        return shown(counted, variant=writer.variant, peers=self._peers.members())

    def judge(self, way: Way) -> Judgement:
        """What becomes of a new ping on its way through this host. Changes nothing."""
        return judge(self._read()[1].table("filter"), way)

    def render(self, wants: FirewallWants) -> str:
        """See :class:`Firewall`."""
        _writer, ruleset = self._read()
        return restore_text(plan(ruleset, wants))

    def set_forward_policy_drop(self) -> str:
        """See :class:`Firewall`."""
        writer, ruleset = self._read()
        chain = ruleset.table("filter").chains.get("FORWARD")
        previous = chain.policy if chain is not None else "ACCEPT"
        if previous != "DROP":
            writer.set_policy("DROP")
            _log.info("forward-policy-set", policy="DROP", previous=previous)
        return previous

    def restore_forward_policy(self, previous: str) -> None:
        """See :class:`Firewall`."""
        if previous not in {"ACCEPT", "DROP"}:
            raise FirewallError(f"{previous!r} is no policy that FORWARD can have")
        writer, ruleset = self._read()
        chain = ruleset.table("filter").chains.get("FORWARD")
        if chain is not None and chain.policy == "DROP" and previous != "DROP":
            writer.set_policy(previous)
            _log.info("forward-policy-set", policy=previous, previous="DROP")

    def _report(
        self, writer: Writer, ruleset: Ruleset, wants: FirewallWants, change: SetChange
    ) -> FirewallReport:
        words = [word for edit in plan(ruleset, wants) for word in edit.words()]
        if change:
            words.append(
                f"ipset {PEERS_SET}: {len(change.added)} to add, {len(change.removed)} to remove"
            )
        other = self._other or Ruleset()
        stray = plan_removal(other)
        words += [f"{writer.variant.other}: {word}" for edit in stray for word in edit.words()]
        return FirewallReport(
            variant=writer.variant,
            differs=bool(words),
            edits=tuple(words),
            conditions=(
                *conditions_of(ruleset, wants),
                *stale_variant(other, writer.variant.other),
                *switched_variant(ruleset, writer.variant, self._dockers),
                *contested(self._damper.contested(self._clock())),
            ),
            repairs=self._damper.total,
        )

    def _read(self) -> tuple[Writer, Ruleset]:
        """The writer in use and its tables; the choice is looked at again every 30 s."""
        now = self._clock()
        if self._chosen is None or now - self._looked_at >= _OTHER_EVERY_S:
            self._chosen = self._choose()
            other = self._chosen.other
            self._other = self._writers[other].read() if self._programs.has(other) else None
            self._looked_at = now
        writer = self._writers[self._chosen]
        return writer, writer.read()

    def _choose(self) -> Variant:
        """The variant set, or that of dockerd's ``iptables``, or without a dockerd of ours.

        While alternatives were switched and Docker was not restarted since, its rules are in
        the other one still, and so ours must be.
        """
        self._dockers = self._docker_variant()
        if self._fixed is not None:
            return self._fixed
        wanted = self._dockers or self._programs.default_variant()
        if not self._programs.has(wanted):
            wanted = wanted.other
        if self._has_docker(wanted) or not self._programs.has(wanted.other):
            return wanted
        return wanted.other if self._has_docker(wanted.other) else wanted

    def _has_docker(self, variant: Variant) -> bool:
        return DOCKER_CHAIN in self._writers[variant].read().table("filter").chains

    def _verify(self, writer: Writer, wants: FirewallWants) -> None:
        """Look again after writing.

        Raises:
            FirewallError: It still differs: the program reported success and wrote
                something else, or somebody wrote at the same time.
        """
        left = plan(writer.read(), wants)
        if left:
            words = "; ".join(word for edit in left for word in edit.words())
            raise FirewallError(
                f"the firewall still differs after it was written: {words}",
                hint="another program may be writing iptables rules at the same time",
            )

    def _leave_other(self, variant: Variant) -> None:
        """Take ours out of the variant that is not in use."""
        if self._other is None:
            return
        edits = plan_removal(self._other)
        if edits:
            self._writers[variant.other].write(edits)
            self._other = self._writers[variant.other].read()


def open_firewall(
    variant: str = "auto", *, dockerd: Callable[[], int | None] = lambda: None
) -> HostFirewall:
    """The firewall of this host.

    Args:
        variant: "nft", "legacy", or "auto": where Docker's rules are.
        dockerd: The process id of the running dockerd, None when there is none.

    Raises:
        DependencyMissing: iptables is not installed.
        FirewallError: It does not say its version.
        ValueError: ``variant`` is none of the three.
    """
    programs = Programs()
    fixed = None if variant == "auto" else Variant(variant)
    programs.default_variant()
    writers: dict[Variant, Writer] = {
        Variant.NFT: NftWriter(programs),
        Variant.LEGACY: LegacyWriter(programs),
    }

    def docker_variant() -> Variant | None:
        pid = dockerd()
        return None if pid is None else variant_of(pid)

    return HostFirewall(
        programs=programs,
        writers=writers,
        peers=PeerSet(),
        flows=Flows(),
        variant=fixed,
        docker_variant=docker_variant,
    )
