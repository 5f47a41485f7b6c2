"""Answer requests of the control socket, from the newest state or by a command to the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from agent.daemon.api.connection import Paths, Text
from agent.daemon.api.leases import leases_document
from agent.daemon.api.mesh_handlers import newest_view
from agent.daemon.api.routes import routes_document
from agent.daemon.api.status import host_state, status_document
from agent.daemon.names.servers import look_at_servers
from agent.daemon.reconcile.kernel_objects import Plans
from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.events import Apply
from agent.daemon.state.freshness import Freshness
from agent.daemon.state.inbox import Inbox
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.history import events_document
from agent.daemon.telemetry.observer import Observer
from agent.docker.report import RestartOutlook
from agent.errors import CannotTell, HostmeshError, UsageError
from agent.etcd.certificates import Certificate
from agent.mesh.check.result import CheckSummary
from agent.mesh.liveness import dead_subnets
from agent.mesh.peer_rules import PeerRules
from agent.mesh.ways import own_device, ways
from agent.model import Condition, Route
from agent.registry.flannel_ttl import FlannelTtls
from agent.settings.text import whole_number

__all__ = ["RequestHandlers"]

Document = Mapping[str, Any]
_VERSION = 1
_NEED_RESTART = frozenset(
    {
        "docker-operator-key",
        "docker-restart-pending",
        "docker-rolled-back",
        "leave-not-finished",
    }
)
_ID_DIGITS = 18
_UNHEALTHY_S = 60.0
"""A loop that did not answer a command for that long is stuck."""


@dataclass(slots=True, kw_only=True)
class RequestHandlers:
    """The functions behind the paths. Runs in the control socket's threads.

    Args:
        etcd_source: Which etcd this is, and who named it.
        last_contact_s: Monotonic seconds when etcd last answered, 0 if never.
        certificates: For etcd, as last seen.
        docker_outlook: What a restart of dockerd would do to containers now.
        last_check: The newest check of all peers since the agent started.
    """

    inbox: Inbox
    cell: StateCell
    kernel: KernelPass
    conditions: ConditionRegistry
    time_left: FlannelTtls
    host_name: str
    etcd_source: Callable[[], Document]
    last_contact_s: Callable[[], float]
    certificates: Callable[[], tuple[Certificate, ...]]
    docker_outlook: Callable[[], RestartOutlook]
    last_check: Callable[[], CheckSummary | None]
    observer: Observer

    def paths(self) -> Paths:
        """Return every path of the socket."""
        return Paths(
            read={
                "/v1/status": self.status,
                "/v1/leases": self.leases,
                "/v1/diff": self.diff,
                "/v1/routes": self.route_list,
                "/v1/firewall": self.firewall,
                "/v1/docker": self.docker,
                "/healthz": self.health,
                "/readyz": self.readiness,
                "/metrics": self.metrics,
            },
            query={"/v1/events": self.events},
        )

    def open_paths(self) -> Paths:
        """Return the paths that any client may read over TCP."""
        return Paths(
            read={
                "/metrics": self.metrics,
                "/healthz": self.health,
                "/readyz": self.readiness,
            },
        )

    def metrics(self) -> Text:
        """``GET /metrics``: Prometheus' text form."""
        from agent.daemon.api.metrics import Reading, render  # noqa: PLC0415 # 5 MB that many never need

        contact_s, config = self.last_contact_s(), self.cell.now.mesh.config
        return Text(
            *render(
                Reading(
                    state=self.cell.now,
                    active=self.conditions.all(),
                    counters=self.observer.counters,
                    watch_age_s=time.monotonic() - contact_s if contact_s else None,
                    stale=self.freshness().stale,
                    now_s=time.time(),
                    certificates=self.certificates(),
                    servers=look_at_servers() if config and config.has_names else (),
                    check=self.last_check(),
                )
            )
        )

    def events(self, query: Mapping[str, str]) -> Document:
        """``GET /v1/events?after=ID``: oldest first."""
        after = whole_number(query.get("after", "0"), digits=_ID_DIGITS)
        if after is None:
            raise UsageError("after must be the id of an event")
        history = self.observer.history
        if history is None:
            raise CannotTell("no events are kept: see events-not-kept in the agent's log")
        return events_document(history.events(), after=after)

    def status(self) -> Document:
        """``GET /v1/status``."""
        return status_document(
            self.cell.now,
            self.conditions.all(),
            host_name=self.host_name,
            etcd_source=self.etcd_source(),
            last_contact_s=self.last_contact_s(),
            now_s=time.monotonic(),
            freshness=self.freshness(),
            wall_s=time.time(),
            counters=self.observer.counters,
        )

    def freshness(self) -> Freshness:
        """Return how old the newest view is."""
        contact_s = self.last_contact_s()
        ago_s = time.monotonic() - contact_s
        return self.cell.now.freshness(time.time() - ago_s if contact_s else None)

    def leases(self) -> Document:
        """``GET /v1/leases``: of the newest view, the alarming one included."""
        view = newest_view(self.cell)
        mesh = self.cell.now.mesh
        may_ask = not (view.cached or self.cell.now.contact_problem)
        world = self.cell.now.world()
        return leases_document(
            view,
            mesh.host_id,
            time.time(),
            last_heartbeat_s=self.cell.now.last_seen.last_heartbeat_s,
            left_s=self.time_left.of(view.leases, may_ask=may_ask),
            freshness=self.freshness(),
            ways={} if world is None else ways(world),
            device=None if world is None else own_device(world),
            dead=dead_subnets(mesh.lapsed, mesh.silent),
        )

    def diff(self) -> Document:
        """``GET /v1/diff``: the operations of the next pass."""
        return self.inbox.ask(self._diff)

    def _diff(self, _apply: Apply) -> Document:
        world = self.cell.now.world()
        if world is None:
            return self._unknown("this host holds no subnet, so there is nothing to compare with")
        rules_of_peers = PeerRules.of(world)
        if isinstance(rules_of_peers, Condition):
            return self._unknown(rules_of_peers.cause)
        try:
            may_delete = self.cell.now.may_sweep(time.monotonic())
            plans = self.kernel.objects.plan(world, may_delete=may_delete)
            rules = self.kernel.check_firewall(world, may_delete=may_delete)
        except HostmeshError as error:
            return self._unknown(error.message)
        documents = _plans_document(plans)
        equal = not (any(documents.values()) or rules)
        return {
            "version": _VERSION,
            "state": "equal" if equal else "drift",
            **self.freshness().document(time.time()),
            **documents,
            "firewall": list(rules),
        }

    def _unknown(self, reason: str) -> Document:
        return {
            "version": _VERSION,
            "state": "unknown",
            **self.freshness().document(time.time()),
            "reason": reason,
            "operations": [],
            "conflicts": [],
            "held": [],
            "firewall": [],
        }

    def route_list(self) -> Document:
        """``GET /v1/routes``: the mesh's routes on this host, desired and installed."""
        return self.inbox.ask(self._route_list)

    def _route_list(self, _apply: Apply) -> Document:
        world = self.cell.now.world()
        if world is None:
            raise CannotTell(
                "this host holds no subnet, so it has no routes", hint="agentctl status"
            )
        return routes_document(
            world,
            self.kernel.objects.compare(world)[Route],
            source="agent",
            freshness=self.freshness().document(time.time()),
        )

    def firewall(self) -> Document:
        """``GET /v1/firewall``."""
        return self.inbox.ask(self._firewall)

    def _firewall(self, _apply: Apply) -> Document:
        world = self.cell.now.world()
        restore = None if world is None else self.kernel.render_firewall(world).splitlines()
        rules = self.kernel.show_firewall().splitlines()
        return {"version": _VERSION, "rules": rules, "restore": restore}

    def health(self) -> tuple[int, Document]:
        """``GET /healthz``: whether the loop runs."""
        try:
            self.inbox.ask(lambda _apply: None, timeout_s=_UNHEALTHY_S / 6)
        except HostmeshError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"healthy": False, "reason": error.message}
        return HTTPStatus.OK, {"healthy": True}

    def readiness(self) -> tuple[int, Document]:
        """``GET /readyz``: whether containers of this host are on the mesh, and why not."""
        ready, reason = self.cell.now.readiness
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        state = host_state(self.cell.now, self.conditions.all())
        return status, {"ready": ready, "reason": reason, "state": state}

    def docker(self) -> Document:
        """``GET /v1/docker``: pending changes, and the effect of a restart on containers."""
        outlook = self.docker_outlook()
        pending = [
            each.condition.cause
            for each in self.conditions.all()
            if each.condition.name in _NEED_RESTART
        ]
        return {
            "version": _VERSION,
            "state": str(self.cell.now.mesh.docker_state),
            "pending": pending[0] if pending else None,
            "running": list(outlook.running),
            "stay_down": list(outlook.stay_down),
            "live_restore": outlook.live_restore,
        }


def _plans_document(plans: Plans) -> Document:
    return {
        "operations": [
            {
                "action": str(each.kind),
                "kind": kind.name,
                "destination": kind.subject(each.object),
                "reason": str(each.reason),
                "route": str(each.object),
            }
            for kind, plan in plans
            for each in plan.operations
        ],
        "conflicts": [
            {
                "destination": kind.subject(each.wanted),
                "wanted": str(each.wanted),
                "foreign": str(each.foreign),
            }
            for kind, plan in plans
            for each in plan.conflicts
        ],
        "held": [
            {"destination": kind.subject(each), "route": str(each)}
            for kind, plan in plans
            for each in plan.held
        ],
    }
