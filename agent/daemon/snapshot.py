"""What the control socket's readers see of the loop: one value, replaced whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.daemon.freshness import Freshness
from agent.daemon.known import Known
from agent.model import Route
from agent.reconcile.reconciler import Report

__all__ = ["Snapshot", "count_routes"]


def count_routes(report: Report[Route]) -> str:
    """Return how many of the desired routes are installed, in words."""
    if report.desired is None:
        return "routes not known"
    if report.installed is None:
        return f"{report.desired} routes desired, not known which are in place"
    return f"{report.installed} of {report.desired} routes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the control socket's readers see: replaced whole after each round, never changed.

    Attributes:
        contact_problem: Why etcd cannot be reached, "" while it can.
        lease_ended: The own lease's time is over by the clock, and etcd does not say otherwise.
        passed: The last passes over routes and rules left nothing undone.
        configured: Kernel and daemon.json are as far as they can be brought.
    """

    known: Known
    report: Report[Route] = field(default_factory=Report)
    contact_problem: str = "not connected yet"
    lease_ended: bool = False
    passed: bool = False
    configured: bool = False

    def freshness(self, contact_s: float | None) -> Freshness:
        """Return how old the newest view is.

        Args:
            contact_s: Unix time at which etcd last answered, None if it never did.
        """
        known = self.known
        view = known.alarming or known.believed
        if view is not None and view.cached:
            return Freshness(stale=True, as_of_s=known.seen_s or None, cached=True)
        stale = view is not None and bool(self.contact_problem)
        return Freshness(stale=stale, as_of_s=contact_s)

    @property
    def lease_problem(self) -> str:
        """Why others may not count on the subnet being this host's; "" while they may."""
        known = self.known
        if known.own is None:
            return ""
        if known.unheld:
            return f"the lease of {known.own.subnet} is not held: {known.unheld}"
        if self.lease_ended:
            return f"the lease of {known.own.subnet} has ended, not renewed: {self.contact_problem}"
        return ""

    @property
    def summary(self) -> str:
        """One line for ``systemctl status``."""
        known = self.known
        if known.left:
            return "left the mesh; agentctl join brings it back"
        if known.own is None:
            return "waiting for a subnet"
        source = "from etcd" if known.complete else "from this host's copy"
        return f"{known.own.subnet}, {count_routes(self.report)}, {source}"
