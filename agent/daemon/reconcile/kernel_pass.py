"""The passes over the kernel: desired state of the world, compared with what is there, repaired.

Routes and rules are separate passes: a changed route costs no look at iptables, and the other
way round. Each reports its own failure as a condition and leaves the other alone; what failed
is tried again after a growing pause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.daemon.reconcile.firewalld_job import FirewalldJob
from agent.daemon.reconcile.ip_forward import IpForward
from agent.daemon.reconcile.kernel_objects import KernelObjects, ObjectsReport
from agent.daemon.reconcile.protocol_migration import ProtocolMigration
from agent.errors import DependencyMissing, FirewallError, HostmeshError, KernelError, StateError
from agent.kernel.firewall import Firewall
from agent.kernel.firewall.firewalld import Firewalld
from agent.mesh.firewall import DesiredFirewall
from agent.mesh.firewall.desired import desired_firewall, judged_networks, outside_links
from agent.mesh.world import World
from agent.model import Access, Condition, MeshConfig, Severity
from agent.reconcile.reconciler import PASS_S

__all__ = ["KernelPass", "RulesReport", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesReport:
    """The state of the firewall after a pass.

    Attributes:
        failed: It could not be made as wanted.
        edits: What was changed, in words.
        repairs: How often drift was repaired since the agent started.
    """

    failed: bool = False
    conditions: tuple[Condition, ...] = ()
    edits: tuple[str, ...] = ()
    repairs: int = 0


class KernelPass:
    """The only caller of the writers in agent.kernel.

    Args:
        migration: Takes over routes of a previous protocol number.
        firewall: None when settings say that the operator keeps the rules.
        forwarding: Switches net.ipv4.ip_forward on, once, with what that needs.
        firewalld: Keeps the mesh's sources there, where settings say so.
        access_limit: No Docker network of this host is opened wider than this.
    """

    def __init__(
        self,
        *,
        objects: KernelObjects,
        migration: ProtocolMigration,
        firewall: Firewall | None,
        forwarding: IpForward,
        firewalld: Firewalld | FirewalldJob,
        access_limit: Access = Access.OPEN,
    ) -> None:
        self.objects = objects
        self._migration = migration
        self._firewall = firewall
        self._forwarding = forwarding
        self._firewalld = firewalld
        self._access_limit = access_limit

    def limit_access(self, limit: Access) -> None:
        """Open no network of this host wider from the next pass on; the loop's thread only."""
        self._access_limit = limit

    def own_pids(self) -> frozenset[int]:
        """Return the processes that write rules for the agent: the rule monitor ignores these."""
        return self._firewall.own_pids() if self._firewall else frozenset()

    def rules_written_by(self, programs: tuple[str, ...]) -> None:
        """Note programs that wrote rules: a fight with one is reported with its name."""
        if self._firewall is not None:
            self._firewall.written_by(programs)

    def build(self, world: World, *, may_delete: bool, may_sweep: bool) -> ObjectsReport:
        """Make the keyed objects as ``world`` wants them.

        Args:
            may_delete: Objects may go whose lease was seen in this run and is gone.
            may_sweep: Objects of an earlier run may go, too (promises 3 and 4).
        """
        found = self.migrate_protocol(world.config)
        report = self.objects.run(world, may_delete=may_delete, may_sweep=may_sweep)
        failed = ((each.kind, each.error) for each in report.by_kind if each.error is not None)
        unlisted = (refused(f"{kind.name}s" if kind else "", error) for kind, error in failed)
        settling = not found and world.config is not None and not self._migration.settled
        return replace(
            report,
            conditions=(*found, *unlisted, *report.conditions),
            again_in_s=0.0 if settling else report.again_in_s,
        )

    def rules_depend_on(self, world: World) -> object:
        """Return all of ``world`` that rules depend on; equal values mean equal rules.

        Peers are members of sets, which :meth:`build` writes; firewalld's sources name them.
        """
        return (
            world.config,
            world.own_subnets,
            world.uplink,
            world.docker,
            judged_networks(world, self._access_limit),
            self.objects.ingress_links,
            self.objects.ingress(world) if self._firewalld.manage else None,
        )

    def migrate_protocol(self, config: MeshConfig | None) -> tuple[Condition, ...]:
        """Take over the routes of a previous ``routes.protocol``; return why that failed.

        Nothing is done while the mesh's config, which says where they can be, is unknown.
        """
        if config is None:
            return ()
        try:
            if self._migration.settle(config.cidrs, PASS_S):
                self.objects.look_again()
        except KernelError as error:
            return (refused("previous routes", error),)
        except StateError as error:
            return (_mark_not_kept(error),)
        return ()

    def rules(self, world: World) -> RulesReport:
        """Make rules, set and forwarding as ``world`` wants them."""
        report = RulesReport()
        parts: tuple[tuple[str, Callable[[World], RulesReport]], ...] = (
            ("forwarding", self._forward),
            ("firewalld", self._trust),
            ("firewall", self._filter),
        )
        for subject, part in parts:
            try:
                found = part(world)
            except HostmeshError as error:
                found = RulesReport(failed=True, conditions=(refused(subject, error),))
            report = RulesReport(
                failed=report.failed or found.failed,
                conditions=report.conditions + found.conditions,
                edits=report.edits + found.edits,
                repairs=report.repairs + found.repairs,
            )
        return report

    def close(self, world: World, *, dry_run: bool = False) -> RulesReport:
        """Close the lease to outsiders before Docker's first answer; other rules wait for it."""
        if self._firewall is None:
            return RulesReport()
        try:
            done = self._firewall.close(world.own_subnets, outside_links(world), dry_run=dry_run)
        except HostmeshError as error:
            return RulesReport(failed=True, conditions=(refused("firewall", error),))
        return RulesReport(edits=done.edits)

    @property
    def former_protocol(self) -> int | None:
        """Return the previous protocol number of routes not yet taken over, or None."""
        return self._migration.former

    def check_firewall(self, world: World, *, may_delete: bool = True) -> tuple[str, ...]:
        """Return a line for each change that :meth:`rules` would make."""
        if self._firewall is None or (wants := self._wants(world, self._firewall)) is None:
            return ()
        return self._firewall.check(wants, may_delete=may_delete).edits

    def show_firewall(self) -> str:
        """Return the agent's rules as installed, with their position; "" when not managed."""
        return self._firewall.show() if self._firewall else ""

    def render_firewall(self, world: World) -> str:
        """Return the input of :meth:`rules` for iptables-restore; "" when nothing differs."""
        if self._firewall is None or (wants := self._wants(world, self._firewall)) is None:
            return ""
        return self._firewall.render(wants)

    def remove(self, config: MeshConfig | None) -> tuple[str, ...]:
        """Remove the agent's rules and objects from the kernel; return lines of what was done.

        Routes go last: while the agent's rules are there, they let nothing new through.

        Args:
            config: Says where routes of a previous protocol number can be.

        Raises:
            KernelError: Something could not be removed; the rest was, run it again.
            StateError: That nothing is left could not be saved.
        """
        not_migrated = self.migrate_protocol(config)
        done: list[str] = []
        if self._firewall is not None:
            done += self._firewall.remove().edits
        done += self._forwarding.undo()
        results = self.objects.remove_all()
        problems = [result.problem for result in results if not result.ok]
        if problems:
            raise KernelError(
                f"{len(problems)} of {len(results)} routes could not be removed: {problems[0]}",
                hint="run agentctl cleanup again",
            )
        self._migration.forget()
        if results:
            done.append(f"removed {len(results)} routes")
        if not_migrated:
            raise KernelError(not_migrated[0].cause, hint=not_migrated[0].hint)
        return tuple(done)

    def remove_from_firewalld(self) -> tuple[str, ...]:
        """Remove the agent's sources from firewalld, which may hang: not on the loop's thread.

        Raises:
            HostmeshError: As :meth:`Firewalld.remove`.
        """
        return self._firewalld.remove()

    def _forward(self, world: World) -> RulesReport:
        if world.docker is not None and world.docker.reachable:
            self._forwarding.ensure()  # without Docker there is nothing to forward to
        return RulesReport()

    def _trust(self, world: World) -> RulesReport:
        """Run before the rules are read: their conditions then describe the result."""
        if self._firewall is None or not self._firewalld.manage:
            return RulesReport()
        wants = self._wants(world, self._firewall)
        if wants is None:
            return RulesReport()
        may = self.objects.permission
        may_remove = may.may_delete and may.may_sweep
        return RulesReport(edits=self._firewalld.apply(wants, may_remove=may_remove))

    def _wants(self, world: World, firewall: Firewall) -> DesiredFirewall | None:
        """Return what the rules should let pass; None to leave them as they are.

        After a start an agent that cannot set the backend up does not know by which links peers
        deliver: to close one would cut off what an earlier run has set up (promise 3).
        """
        ingress, objects = self.objects.ingress(world), self.objects
        wants = desired_firewall(world, self._access_limit, ingress, objects.tunnels)
        return wants if objects.usable or not firewall.closes_links(wants) else None

    def _filter(self, world: World) -> RulesReport:
        if self._firewall is None or (wants := self._wants(world, self._firewall)) is None:
            return RulesReport()
        done = self._firewall.apply(wants, self.objects.permission)
        return RulesReport(
            failed=done.failed,
            conditions=(*wants.conditions, *done.conditions),
            edits=done.edits,
            repairs=done.repairs,
        )


def _mark_not_kept(error: StateError) -> Condition:
    return Condition(
        name="state-not-written",
        cause=error.message,
        hint=f"{error.hint}; until then do not change routes.protocol, or routes of the previous"
        " number stay behind",
    )


def refused(subject: str, error: HostmeshError) -> Condition:
    """Return the condition of a failed operation; it stays until the operation succeeds."""
    of_rules = isinstance(error, FirewallError | DependencyMissing)
    name = "firewall-refused" if of_rules else "kernel-refused"
    return Condition(
        name=name,
        subject=subject,
        severity=Severity.ERROR,
        cause=error.message,
        hint=error.hint or "it is tried again with increasing pauses",
    )
