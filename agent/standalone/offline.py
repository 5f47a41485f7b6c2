"""The control socket's documents while no agent answers, with ``"source": "host"``.

They are made by the same functions as the agent's, of what etcd or this host's copy, the kernel and
Docker say, as far as the user may read that. What could not be read is a condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from agent.daemon.api.containers import containers_document, counts_by_network
from agent.daemon.api.leases import leases_document
from agent.daemon.api.names import names_document, read_snapshot
from agent.daemon.api.networks import networks_document
from agent.daemon.api.routes import routes_document
from agent.daemon.api.status import status_document
from agent.daemon.checks.documents import checks_document
from agent.daemon.checks.last_check import LastCheck
from agent.daemon.membership.endpoint_finder import source_of
from agent.daemon.membership.leave import not_finished
from agent.daemon.state.agent_state import AgentState
from agent.daemon.store.host_lock import holder_of
from agent.daemon.store.state_file import SavedState, StateFile
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.history import events_document, read_events
from agent.daemon.wiring import firewall_of, host_name
from agent.dns.snapshot import names_folder
from agent.errors import CannotTell, HostmeshError
from agent.etcd.discovery import client_for
from agent.kernel.tables.routes import RouteTable
from agent.mesh.desired import desired_objects
from agent.mesh.object_kinds import route_kind
from agent.mesh.world import World
from agent.model import Condition, Route, Severity
from agent.model.endpoint import Endpoint
from agent.model.family import Network
from agent.reconcile.reconciler import Report
from agent.reconcile.tracker import DeltaTracker, compare
from agent.registry.checks import read_checks
from agent.registry.endpoints.reading import read_endpoints
from agent.registry.flannel_ttl import FlannelTtls
from agent.registry.own.identity import known_host_id
from agent.registry.records import Keys
from agent.settings import Settings
from agent.standalone.inspection import NOT_NEEDED, inspect_host, view_offline

__all__ = ["DOCUMENTS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """The host without its agent, and its routes compared with the kernel's.

    Attributes:
        state: As the loop would have it after one round.
        world: None when too little is known.
        tracker: Compares its routes with the kernel's; None when they could not be listed.
    """

    state: AgentState
    world: World | None
    tracker: DeltaTracker[Route] | None
    conditions: tuple[Condition, ...]


def _compare(settings: Settings) -> _Comparison:
    """Inspect this host and compare its routes. What could not be read is a condition."""
    saved = _saved_state(settings)
    seen = inspect_host(settings, left=saved.left)
    mesh = seen.mesh
    conditions = [_not_running(settings), *seen.conditions]
    if saved.leaving:
        conditions += not_finished(
            ("no agent runs to go on with it",),
            hint="systemctl start hostmesh-agent, or agentctl leave",
        )
    conditions += mesh.conditions()
    routes = settings.routes
    world = mesh.world(route_protocol=routes.protocol, route_table=routes.table)
    tracker, report = _routes(world, settings, conditions, wants_nothing=mesh.wants_nothing)
    return _Comparison(
        state=AgentState(mesh=mesh, report=report, contact_problem=seen.contact_problem),
        world=world,
        tracker=tracker,
        conditions=tuple(conditions),
    )


def offline_status(settings: Settings) -> Mapping[str, Any]:
    """``GET /v1/status`` without an agent: state "stopped", "silent", or "left"."""
    seen = _compare(settings)
    now_s = time.monotonic()
    document = dict(
        status_document(
            seen.state,
            tuple(ActiveCondition(each, now_s) for each in seen.conditions),
            host_name=host_name(settings),
            etcd_source=source_of(settings),
            last_contact_s=0.0 if seen.state.contact_problem else now_s,
            now_s=now_s,
            freshness=seen.state.freshness(seen.state.mesh.seen_s or None),
            wall_s=time.time(),
            source="host",
        )
    )
    document["agent_version"] = document["level"] = None
    silent = holder_of(settings.agent.run_dir) is not None
    stays_out = seen.state.mesh.left
    document["state"] = "left" if stays_out else "silent" if silent else "stopped"
    # Without an agent it is unknown when they began.
    document["conditions"] = [{**each, "since_s_ago": None} for each in document["conditions"]]
    return document


def offline_routes(settings: Settings) -> Mapping[str, Any]:
    """``GET /v1/routes`` without an agent.

    Raises:
        CannotTell: There is no lease, no view or no list of routes to compare.
    """
    seen = _compare(settings)
    if seen.world is None or seen.tracker is None:
        reasons = "; ".join(each.cause for each in seen.conditions[1:]) or "it holds no subnet"
        raise CannotTell(
            f"the routes that this host should have are not known: {reasons}",
            hint="agentctl status",
        )
    return routes_document(
        seen.world,
        seen.tracker,
        source="host",
        freshness=seen.state.freshness(None).document(time.time()),
    )


def offline_firewall(settings: Settings) -> Mapping[str, Any]:
    """``GET /v1/firewall`` without an agent: the installed rules.

    Raises:
        DependencyMissing, NotRoot, FirewallError: They cannot be read.
    """
    firewall = firewall_of(settings)
    rules = firewall.show().splitlines() if firewall is not None else []
    return {"version": 1, "rules": rules, "restore": None}


def offline_leases(settings: Settings) -> Mapping[str, Any]:
    """Return ``GET /v1/leases`` without an agent; its "remarks" say why it is not etcd's.

    Raises:
        HostmeshError: Neither etcd nor this host's copy can be had; the error is etcd's.
    """
    seen = view_offline(settings)
    left_s: Mapping[Network, float] = {}
    if not seen.view.cached and any(each.ttl_s is None for each in seen.view.leases):
        with closing(client_for(settings)) as client:
            left_s = FlannelTtls(client.time_to_live_s).of(seen.view.leases)
    document = leases_document(
        seen.view, known_host_id(settings), time.time(), left_s=left_s, freshness=seen.freshness
    )
    return {**document, "remarks": seen.remarks}


def offline_networks(settings: Settings) -> Mapping[str, Any]:
    """Return ``GET /v1/networks`` without an agent, as :func:`offline_leases` does."""
    seen = view_offline(settings)
    counts = None if seen.problem else counts_by_network(seen.view, _endpoints(settings))
    document = networks_document(
        seen.view, known_host_id(settings), time.time(), counts=counts, freshness=seen.freshness
    )
    return {**document, "remarks": seen.remarks}


def offline_containers(settings: Settings) -> Mapping[str, Any]:
    """Return ``GET /v1/containers`` without an agent.

    Raises:
        HostmeshError: etcd cannot be read: this host's own copy has no containers.
    """
    seen = view_offline(settings)
    if seen.problem is not None:
        raise seen.problem
    return containers_document(
        seen.view,
        _endpoints(settings),
        known_host_id(settings),
        time.time(),
        freshness=seen.freshness,
    )


def _endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    with closing(client_for(settings)) as client:
        return read_endpoints(client, Keys(settings.etcd.prefix))


def offline_events(settings: Settings) -> Mapping[str, Any]:
    """Return ``GET /v1/events`` from the agent's files. Raises StateError."""
    return events_document(read_events(settings.agent.state_dir))


def _saved_state(settings: Settings) -> SavedState:
    """Return what the agent saved; nothing where this user may not read it."""
    try:
        return StateFile(settings.agent.state_dir).now
    except HostmeshError:
        return SavedState()


def _routes(
    world: World | None, settings: Settings, conditions: list[Condition], *, wants_nothing: bool
) -> tuple[DeltaTracker[Route] | None, Report[Route]]:
    desired = None if world is None else desired_objects(world)
    routes = {} if desired is None else desired.of(Route)
    count = len(routes) if world is not None or wants_nothing else None
    table = RouteTable(settings.routes.protocol, settings.routes.table)
    table.limit_foreign(world.config.cidrs if world and world.config else None)
    try:
        listing = table.list_all()
    except HostmeshError as error:
        refused = Condition(
            name="kernel-refused", cause=error.message, hint=error.hint or NOT_NEEDED
        )
        conditions.append(refused)
        return None, Report(desired=count)
    finally:
        table.close()
    if count is None:
        return None, Report()
    kind = route_kind(settings.routes.protocol)
    tracker = compare(kind, routes, listing)
    found = desired.conditions if desired is not None else ()
    conditions += [*found, *tracker.plan(may_delete=False).conditions(kind)]
    return tracker, Report(
        desired=count,
        installed=count - tracker.missing_count,
        differing=tracker.differing_count,
    )


def _not_running(settings: Settings) -> Condition:
    pid = holder_of(settings.agent.run_dir)
    if pid is not None:
        return Condition(
            name="agent-not-answering",
            severity=Severity.ERROR,
            cause=f"hostmesh-agent runs (pid {pid}) and does not answer; routes and rules stay as"
            " it left them",
            hint="agentctl bugreport tells where it hangs; systemctl restart hostmesh-agent is safe"
            " at any time",
        )
    return Condition(
        name="agent-not-running",
        severity=Severity.ERROR,
        cause="hostmesh-agent does not run; routes and rules stay as it left them",
        hint="systemctl status hostmesh-agent; journalctl -u hostmesh-agent -n 20",
    )


def offline_names(settings: Settings) -> Mapping[str, Any]:
    """``GET /v1/names`` of the name servers' files."""
    return {
        **names_document(read_snapshot(names_folder(settings.agent.state_dir))),
        "source": "host",
    }


def offline_check(settings: Settings) -> Mapping[str, Any]:
    """``GET /v1/check`` of the file that the last check left."""
    return LastCheck(settings.agent.run_dir).document()


def offline_checks(settings: Settings) -> Mapping[str, Any]:
    """Return ``GET /v1/checks`` without an agent.

    Raises:
        HostmeshError: etcd cannot be read.
    """
    seen = view_offline(settings)
    if seen.problem is not None:
        raise seen.problem
    now_s = time.time()
    with closing(client_for(settings)) as client:
        published = read_checks(client, Keys(settings.etcd.prefix))
    own = known_host_id(settings)
    return checks_document(
        seen.view, own, published, now_s, freshness=seen.freshness.document(now_s)
    )


DOCUMENTS: Final[Mapping[str, Callable[[Settings], Mapping[str, Any]]]] = MappingProxyType(
    {
        "/v1/status": offline_status,
        "/v1/leases": offline_leases,
        "/v1/networks": offline_networks,
        "/v1/containers": offline_containers,
        "/v1/names": offline_names,
        "/v1/check": offline_check,
        "/v1/checks": offline_checks,
        "/v1/routes": offline_routes,
        "/v1/firewall": offline_firewall,
        "/v1/events": offline_events,
    }
)
"""The control socket's documents that can be made without the agent."""
