"""The agent's state: one value, replaced whole by the loop's thread and read by any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.deletion_grace import DeletionGrace
from agent.daemon.state.events import Endpoints
from agent.daemon.state.freshness import Freshness
from agent.daemon.state.last_seen import LastSeen
from agent.daemon.state.mesh_state import MeshState
from agent.kernel.netlink_monitor import KernelEvent
from agent.mesh.liveness import probe_addresses
from agent.mesh.world import World
from agent.model import Bounds, Condition, HostFacts, MeshConfig, Route
from agent.model.family import Address, Network, address_order
from agent.reconcile.reconciler import Report
from agent.settings import EtcdSettings, Settings

__all__ = ["AgentState", "StaleFacts", "StateCell", "closed_endpoints", "count_routes"]

_ETCD_PORT: Final = 2379


def count_routes(report: Report[Route]) -> str:
    """Return how many of the desired routes are installed, in words."""
    if report.desired is None:
        return "routes not known"
    if report.installed is None:
        return f"{report.desired} routes desired, not known which are in place"
    return f"{report.installed} of {report.desired} routes"


@dataclass(frozen=True, slots=True)
class StaleFacts:
    """The facts of the host that must be read again.

    A container that starts or stops makes and unmakes a link that no route leads by: that costs a
    list of the links. A list of all routes costs 50 ms where a mesh is large, and a second where
    the host is a router with a full table.

    Attributes:
        links: Links and addresses.
        everything: Others' routes, too.
    """

    links: bool = True
    everything: bool = True

    def noticed(self, event: KernelEvent, facts: HostFacts | None) -> StaleFacts:
        """Follow what the monitor saw since the look that found ``facts``."""
        if not event.concerns_host:
            return self
        everything = facts is None or event.ways or event.may_have_taken(_by_routes(facts))
        return StaleFacts(links=True, everything=self.everything or everything)


def _by_routes(facts: HostFacts) -> frozenset[str]:
    """Return links of foreign routes: the kernel deletes these with the link, without an event."""
    return frozenset(route.link for route in facts.foreign_routes if route.link is not None)


def closed_endpoints(
    etcd: EtcdSettings, config: MeshConfig | None, addresses: Iterable[Address]
) -> tuple[tuple[Address, int], ...]:
    """Return the addresses and ports of etcd that containers of this host are kept from."""
    by_mesh = config is not None and config.etcd_closed
    if etcd.containers == "allow" or (etcd.containers == "mesh" and not by_mesh):
        return ()
    ports = {urlsplit(each).port or _ETCD_PORT for each in etcd.endpoints} or {_ETCD_PORT}
    return tuple(
        (address, port)
        for address in sorted(addresses, key=address_order)
        for port in sorted(ports)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """The state of the agent at one moment.

    Attributes:
        settings: Those in use.
        kept: CIDRs outside ``mesh.within`` that stay valid since this host's copy has them.
        look: The facts of the host that must be read again.
        conditions: By source; but those of the passes over the kernel.
        names_served: A name server of this host answers containers; None: not looked yet.
        contact_problem: Why etcd cannot be reached, "" while it can.
        lease_ended: The own lease's time is over by the clock, and etcd does not say otherwise.
        passed: The last passes over routes and rules left nothing undone.
        configured: Kernel and daemon.json are as far as they can be brought.
    """

    mesh: MeshState
    settings: Settings = field(default_factory=Settings)
    endpoints: Endpoints = field(default_factory=Endpoints)
    kept: tuple[Network, ...] = ()
    look: StaleFacts = field(default_factory=StaleFacts)
    grace: DeletionGrace = field(default_factory=DeletionGrace)
    last_seen: LastSeen = field(default_factory=LastSeen)
    conditions: Mapping[ConditionSource, tuple[Condition, ...]] = field(default_factory=dict)
    report: Report[Route] = field(default_factory=Report)
    names_served: bool | None = None
    contact_problem: str = "not connected yet"
    lease_ended: bool = False
    passed: bool = False
    configured: bool = False

    def with_conditions(
        self, source: ConditionSource, conditions: tuple[Condition, ...]
    ) -> AgentState:
        """Replace the conditions of ``source``."""
        if self.conditions.get(source, ()) == conditions:
            return self
        return replace(self, conditions={**self.conditions, source: conditions})

    def world(self) -> World | None:
        """Return the world to reconcile to, None while too little is known."""
        routes = self.settings.routes
        world = self.mesh.world(route_protocol=routes.protocol, route_table=routes.table)
        if world is None:
            return None
        closed = closed_endpoints(self.settings.etcd, world.config, self.endpoints.addresses)
        allowed = self.settings.networks.allow
        return replace(world, closed_endpoints=closed, allowed_networks=allowed)

    def may_delete(self, now_s: float) -> bool:
        """Return whether routes of leases that are gone may go: the view is believed."""
        return self.mesh.complete and not self.contact_problem and self.grace.calm(now_s)

    def may_sweep(self, now_s: float) -> bool:
        """Return whether routes of an earlier run may go, too."""
        return self.may_delete(now_s) and self.grace.sweep(now_s)

    @property
    def bounds(self) -> Bounds:
        """Return the bounds of a config; the one in use is not refused for an address it holds."""
        mesh = self.mesh
        return Bounds(
            allowed=self.settings.mesh.bounds().allowed,
            kept=self.kept,
            needed=mesh.host.needed if mesh.host else (),
            in_force=mesh.config.cidrs if mesh.config else (),
        )

    @property
    def probed(self) -> frozenset[Address]:
        """Return addresses of hosts without a heartbeat, which are probed."""
        if self.mesh.left or not self.settings.routes.probe:
            return frozenset()
        return frozenset(chain.from_iterable(map(probe_addresses, self.mesh.lapsed)))

    def freshness(self, contact_s: float | None) -> Freshness:
        """Return how old the newest view is.

        Args:
            contact_s: Unix time at which etcd last answered, None if it never did.
        """
        mesh = self.mesh
        view = mesh.newest
        if view is not None and view.cached:
            return Freshness(stale=True, as_of_s=mesh.seen_s or None, cached=True)
        stale = view is not None and bool(self.contact_problem)
        return Freshness(stale=stale, as_of_s=contact_s)

    @property
    def lease_problem(self) -> str:
        """Return why this host does not safely hold its subnet; "" while it does."""
        mesh = self.mesh
        if mesh.own is None:
            return ""
        if mesh.unheld:
            return f"the lease of {mesh.own.subnet} is not held: {mesh.unheld}"
        if self.lease_ended:
            return f"the lease of {mesh.own.subnet} has ended, not renewed: {self.contact_problem}"
        return ""

    @property
    def readiness(self) -> tuple[bool, str]:
        """Return whether containers of this host are on the mesh, and why not."""
        mesh = self.mesh
        if mesh.left:
            return False, "the host has left the mesh"
        if mesh.own is None:
            return False, "no subnet is held yet" + (f": {mesh.unheld}" if mesh.unheld else "")
        if self.lease_problem:
            return False, self.lease_problem
        if not mesh.docker_in_place:
            return False, f"Docker does not have {mesh.own.subnet} yet ({mesh.docker_state})"
        if not self.passed:
            unknown = self.report.failed and self.report.installed is None
            listed = "which routes are in place is not known: they could not be listed"
            return False, listed if unknown else "routes or rules are not all in place"
        return True, "ready"

    @property
    def summary(self) -> str:
        """Return one line for ``systemctl status``."""
        mesh = self.mesh
        if mesh.left:
            return "left the mesh; agentctl join brings it back"
        if mesh.own is None:
            return "waiting for a subnet"
        source = "from etcd" if mesh.complete else "from this host's copy"
        return f"{mesh.own.subnet}, {count_routes(self.report)}, {source}"


class StateCell:
    """Holds the newest state. Only the loop's thread replaces it.

    Attributes:
        now: The newest state.
    """

    def __init__(self, first: AgentState) -> None:
        self.now = first
