"""Decide when to compare with the kernel, and keep the results."""

from __future__ import annotations

import time
from dataclasses import replace

from agent.daemon.reconcile.kernel_objects import ObjectsReport
from agent.daemon.reconcile.kernel_pass import KernelPass, RulesReport
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.timers import Timer, Timers
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.observer import Observer
from agent.kernel.netlink_monitor import KernelEvent
from agent.mesh.world import World
from agent.model import Route
from agent.reconcile.reconciler import Report
from agent.retry import Backoff, jittered

__all__ = ["Scheduler"]

_RETRY_FIRST_S = 1.5
_RETRY_MOST_S = 30.0
_SETTLE_S = 0.25
_ROUTES, _RULES = Timer.ROUTES, Timer.RULES


class Scheduler:
    """Runs the passes that are due. Used by the loop's thread only.

    Args:
        timers: The loop's own; ROUTES and RULES are used here.
        observer: Counts each pass.
        check_s: How often the rules are read without an event: legacy rules and sets send none.
    """

    def __init__(
        self,
        *,
        kernel: KernelPass,
        conditions: ConditionRegistry,
        timers: Timers,
        check_s: float,
        observer: Observer | None = None,
    ) -> None:
        self.kernel = kernel
        self._conditions = conditions
        self._timers = timers
        self._check_s = check_s
        self._due = {_ROUTES, _RULES}
        self._world_changed = False
        self._rules_from: object = None
        self._retries = {each: Backoff(_RETRY_FIRST_S, _RETRY_MOST_S) for each in (_ROUTES, _RULES)}
        self._rules_seen = False
        self._rules_wait = False
        self._routes_seen = False
        self._rule_repairs = 0
        self._observer = observer or Observer()
        self.report: Report[Route] = Report()
        self._complete = False

    @property
    def _failing(self) -> bool:
        return any(each.failing for each in self._retries.values())

    @property
    def settled(self) -> bool:
        """Return whether the last pass over each part left nothing undone."""
        done = self._rules_seen and not self._failing
        return done and self._complete

    @property
    def configured(self) -> bool:
        """Return whether the kernel refused nothing.

        Another program's route in place of a desired one does not count, nor do rules that open
        something and wait for Docker's first answer: Docker may be held back until this host is
        configured. Rules that close do not wait for it.
        """
        rules = self._rules_seen or self._rules_wait
        return rules and self._routes_seen and not self._failing

    def world_changed(self) -> None:
        """Compare objects, and rules if what they depend on has changed."""
        self._due.add(_ROUTES)
        self._world_changed = True

    def rules_changed(self, by: tuple[str, ...]) -> None:
        """Follow a write of rules by these programs.

        Docker writes in bursts, taking its jumps out and in again: wait a moment for the end.
        """
        self.kernel.rules_written_by(by)
        self._timers.set_sooner(_RULES, _SETTLE_S)

    def kernel_changed(self, event: KernelEvent) -> None:
        """Follow a change of routes, links or addresses."""
        self.kernel.objects.observe(event)
        self._due.add(_ROUTES)

    def adopt(self, check_s: float) -> None:
        """Change the interval of the rule check."""
        self._check_s = check_s
        self._timers.set_sooner(_RULES, check_s)

    def everything(self) -> None:
        """Compare everything at the next pass."""
        self.kernel.objects.look_again()
        self._due = {_ROUTES, _RULES}

    def fell_due(self, names: frozenset[Timer]) -> None:
        """Run the passes whose timers have fallen due."""
        self._due |= names & {_ROUTES, _RULES}

    def stand_down(self, *, wants_nothing: bool) -> None:
        """Stop comparing: there is no world to reconcile to.

        Args:
            wants_nothing: This host is known to have no routes.
        """
        self.report = Report(desired=0, installed=0) if wants_nothing else Report()
        self._complete = wants_nothing
        self.kernel.objects.forget()
        self._rules_seen = self._rules_wait = self._routes_seen = False
        for name in (_ROUTES, _RULES):
            self._conditions.replace(ConditionSource(name), ())
            self._timers.cancel(name)
        self._due = {_ROUTES, _RULES}

    def run(self, world: World, *, may_delete: bool, may_sweep: bool, docker_seen: bool) -> None:
        """Run what is due.

        Args:
            may_delete: Routes may go whose lease was seen in this run and is gone.
            may_sweep: Routes of an earlier run may go, too.
            docker_seen: Docker has listed its networks. Before that, installed rules stay: an
                unknown network must not be closed (promise 3). Where there are none, the lease
                is closed to outsiders.
        """
        due, self._due = self._due, set()
        if docker_seen and self._rules_wait:
            due.add(_RULES)
        # Routes first: they take a moment and rules do not. Meanwhile a new peer is refused,
        # as it was before.
        if _ROUTES in due:
            began_s = time.monotonic()
            report = self.kernel.build(world, may_delete=may_delete, may_sweep=may_sweep)
            self._after_objects(report, began_s)
            changed, self._world_changed = self._world_changed, False
            if self.kernel.objects.sources_failed or (changed and self._rules_differ(world)):
                due.add(_RULES)
        if _RULES in due and not docker_seen:
            self._after_closing(self.kernel.close(world))
        elif _RULES in due:
            began_s = time.monotonic()
            self._after_rules(self.kernel.rules(world), began_s)

    def _rules_differ(self, world: World) -> bool:
        """Return whether rules may differ from those of the last call.

        A pass over the rules reads them all: in a large mesh most changes are a peer's.
        """
        before, self._rules_from = self._rules_from, self.kernel.rules_depend_on(world)
        return before != self._rules_from

    def _after_closing(self, report: RulesReport) -> None:
        self._rules_wait = True
        if report.failed or self._retries[_RULES].failing:
            self._conditions.replace(ConditionSource.RULES, report.conditions)
        pause_s = self._pause_s(_RULES, failed=report.failed)
        self._timers.set(_RULES, pause_s or jittered(self._check_s, 0.1))

    def _after_rules(self, report: RulesReport, began_s: float) -> None:
        self._rules_seen, self._rules_wait = True, False
        drift = report.repairs > self._rule_repairs
        self._rule_repairs = max(report.repairs, self._rule_repairs)
        took_s = time.monotonic() - began_s
        self._observer.rules_passed(report.edits, drift=drift, took_s=took_s)
        # A single failure may be Docker writing at the same moment: report it when it lasts.
        lasting = not report.failed or self._retries[_RULES].failing
        if lasting:
            self._conditions.replace(ConditionSource.RULES, report.conditions)
        pause_s = self._pause_s(_RULES, failed=report.failed)
        self._timers.set(_RULES, min(pause_s or self._check_s, jittered(self._check_s, 0.1)))

    def _after_objects(self, report: ObjectsReport, began_s: float) -> None:
        took_s = time.monotonic() - began_s
        self._observer.objects_passed(report.by_kind, took_s)
        # Operations are already reported, so the state does not keep them.
        self.report = replace(report.routes, done=(), repaired=(), again_in_s=report.again_in_s)
        self._complete = report.complete
        self._routes_seen = True
        self._conditions.replace(ConditionSource.ROUTES, report.conditions)
        pause_s = self._pause_s(_ROUTES, failed=report.failed > 0)
        # One kind may be held back for long, and another could not be listed this time.
        pauses = [each for each in (report.again_in_s, pause_s) if each is not None]
        if pauses:
            self._timers.set(_ROUTES, min(pauses))

    def _pause_s(self, name: Timer, *, failed: bool) -> float | None:
        """Return the pause before the next try, None when there is nothing to retry."""
        if failed:
            return self._retries[name].next_s()
        self._retries[name].reset()
        return None
