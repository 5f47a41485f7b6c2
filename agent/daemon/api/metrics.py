"""``GET /metrics``: what the agent counts and knows, in Prometheus' text form.

Imported on the first request. Labels come from fixed sets only: names of hosts and subnets
are for ``agentctl``, and a mesh of thousands must not become thousands of series on each host.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent import __version__
from agent.daemon.api.status import host_state, peers_of
from agent.daemon.names.servers import ServerSeen
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.counters import Counters
from agent.etcd.certificates import Certificate
from agent.mesh.check.result import CheckState, CheckSummary
from agent.mesh.liveness import is_dead
from agent.model import BACKENDS

__all__ = ["Reading", "render"]

_STATES = ("ready", "joining", "degraded", "waiting", "left")


@dataclass(frozen=True, kw_only=True)
class Reading(Collector):
    """All that the metrics are made of, at one moment.

    Attributes:
        watch_age_s: Seconds since etcd last answered, None if it never did.
        stale: etcd does not answer: heartbeats are not known.
        now_s: Unix time.
        certificates: For etcd, as last seen.
        servers: This host's name servers; none where the mesh has no names.
        check: The newest check of all peers since the agent started.
    """

    state: AgentState
    active: tuple[ActiveCondition, ...]
    counters: Counters
    watch_age_s: float | None
    stale: bool
    now_s: float
    certificates: tuple[Certificate, ...] = ()
    servers: tuple[ServerSeen, ...] = ()
    check: CheckSummary | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every family, always all of them: one that does not apply has no sample."""
        yield InfoMetricFamily(
            "hostmesh_build",
            "Versions of the agent and its Python",
            {"version": __version__, "python": platform.python_version()},
        )
        yield from _host(self)
        yield from _etcd(self)
        yield from _mesh(self)
        yield from _objects(self)
        yield from _containers(self.state.mesh)
        yield from _names(self.servers)
        yield from _check(self.check)
        yield from _work(self.counters)


def render(reading: Reading) -> tuple[bytes, str]:
    """Return the text and its content type."""
    return generate_latest(reading), CONTENT_TYPE_LATEST


def _host(reading: Reading) -> Iterator[Metric]:
    state = reading.state
    ready, _ = state.readiness
    yield GaugeMetricFamily(
        "hostmesh_ready", "1 when containers of this host are on the mesh", float(ready)
    )
    states = GaugeMetricFamily(
        "hostmesh_state", "1 for the state this host is in", labels=["state"]
    )
    current = host_state(state, reading.active)
    for each in _STATES:
        states.add_metric([each], float(each == current))
    yield states
    docker = GaugeMetricFamily("hostmesh_docker_ready", "1 when Docker has this host's subnet")
    docker.add_metric([], float(str(state.mesh.docker_state) == "ready"))
    yield docker
    conditions = GaugeMetricFamily(
        "hostmesh_conditions", "Active conditions", labels=["condition", "severity"]
    )
    counts = Counter((s.condition.name, str(s.condition.severity)) for s in reading.active)
    for (name, severity), count in sorted(counts.items()):
        conditions.add_metric([name, severity], float(count))
    yield conditions


def _etcd(reading: Reading) -> Iterator[Metric]:
    age = GaugeMetricFamily("hostmesh_watch_age_seconds", "Seconds since etcd last answered")
    if reading.watch_age_s is not None:
        age.add_metric([], reading.watch_age_s)
    yield age
    yield GaugeMetricFamily(
        "hostmesh_etcd_connected",
        "1 while etcd answers",
        float(not reading.state.contact_problem),
    )
    expiry = GaugeMetricFamily(
        "hostmesh_etcd_certificate_expiration_timestamp_seconds",
        "When a certificate for etcd ends, Unix time",
        labels=["role", "name"],
    )
    for certificate in reading.certificates:
        expiry.add_metric([certificate.role, certificate.name], certificate.not_after_s)
    yield expiry


def _mesh(reading: Reading) -> Iterator[Metric]:
    mesh = reading.state.mesh
    left = GaugeMetricFamily(
        "hostmesh_lease_left_seconds", "Until this host's lease ends if it is not renewed"
    )
    left_s = None if mesh.own is None else mesh.own.left_s(reading.now_s)
    if mesh.unheld:
        left_s = 0.0
    if left_s is not None:
        left.add_metric([], left_s)
    yield left
    peers = GaugeMetricFamily("hostmesh_peers", "Other hosts of the mesh", labels=["state"])
    beats = mesh.believed.heartbeats if mesh.believed and not reading.stale else None
    found = Counter(
        "unknown"
        if lease.host_id is None or beats is None
        else "alive"
        if lease.host_id in beats
        else "silent"
        for lease in peers_of(mesh)
    )
    for each in ("alive", "silent", "unknown"):
        peers.add_metric([each], float(found[each]))
    yield peers
    dead = sum(is_dead(each, mesh.silent) for each in mesh.lapsed)
    yield GaugeMetricFamily(
        "hostmesh_peers_unreachable", "Other hosts that answer no probe", float(dead)
    )
    yield InfoMetricFamily(
        "hostmesh_backend",
        "The backend by which this host sends; other: one that this version does not have",
        {"backend": mesh.sends_by if mesh.sends_by in BACKENDS else "other"}
        if mesh.sends_by
        else None,
    )
    routes = GaugeMetricFamily("hostmesh_routes", "Routes of the mesh here", labels=["state"])
    report = reading.state.report
    states = {"desired": report.desired, "installed": report.installed, "drift": report.differing}
    for state, count in states.items():
        if count is not None:
            routes.add_metric([state], float(count))
    yield routes


def _objects(reading: Reading) -> Iterator[Metric]:
    """Yield the kernel's objects; none while there is nothing to compare, as after a leave."""
    objects = GaugeMetricFamily(
        "hostmesh_objects",
        "The agent's objects in the kernel: routes, and a tunnel's links, addresses and entries",
        labels=["kind", "state"],
    )
    for kind, counts in sorted(dict(reading.counters.objects).items()):
        for state, count in zip(("desired", "installed"), counts, strict=True):
            if count is not None and reading.state.report.desired:
                objects.add_metric([kind, state], float(count))
    yield objects


def _containers(mesh: MeshState) -> Iterator[Metric]:
    """Yield what this host has on the mesh; no sample while it is not known."""
    containers = GaugeMetricFamily(
        "hostmesh_containers", "Running containers here that other hosts can reach"
    )
    if mesh.own_endpoints is not None:
        containers.add_metric([], float(len(mesh.own_endpoints)))
    yield containers
    networks = GaugeMetricFamily(
        "hostmesh_mesh_networks", "Mesh networks that this host has a published part of"
    )
    if mesh.believed is not None:
        own = sum(host == mesh.host_id for host, _ in mesh.believed.slices)
        networks.add_metric([], float(own))
    yield networks


def _names(servers: tuple[ServerSeen, ...]) -> Iterator[Metric]:
    running = GaugeMetricFamily(
        "hostmesh_dns_up", "1 while a name server of this host runs", labels=["server"]
    )
    names = GaugeMetricFamily("hostmesh_dns_names", "Names that it knows", labels=["server"])
    upstreams = GaugeMetricFamily(
        "hostmesh_dns_upstreams",
        "The host's own resolvers, as its name servers see them",
        labels=["server", "state"],
    )
    counted = CounterMetricFamily(
        "hostmesh_dns", "Queries of a name server by what became of them", labels=["server", "what"]
    )
    for each in servers:
        running.add_metric([str(each.address)], float(each.runs))
        names.add_metric([str(each.address)], float(each.names))
        failing = sum(fails for _, fails in each.upstreams)
        for state, number in (("answer", len(each.upstreams) - failing), ("fail", failing)):
            upstreams.add_metric([str(each.address), state], float(number))
        for what, count in each.counters.items():
            counted.add_metric([str(each.address), what], float(count))
    yield from (running, names, upstreams, counted)


def _check(check: CheckSummary | None) -> Iterator[Metric]:
    began = GaugeMetricFamily(
        "hostmesh_check_timestamp_seconds", "When the last check of all peers began, Unix time"
    )
    peers = GaugeMetricFamily(
        "hostmesh_check_peers", "Peers in the last check by its result", labels=["state"]
    )
    own = GaugeMetricFamily(
        "hostmesh_check_own_failed", "Tests of this host itself that failed in the last check"
    )
    if check is not None:
        began.add_metric([], check.began_s)
        for state in CheckState:
            peers.add_metric([str(state)], float(check.counts.get(state, 0)))
        own.add_metric([], float(len(check.own_failed)))
    yield from (began, peers, own)


def _work(counters: Counters) -> Iterator[Metric]:
    reconcile = HistogramMetricFamily(
        "hostmesh_reconcile_seconds", "How long a pass over the kernel took", labels=["part"]
    )
    for part, took in counters.pass_s.items():
        reconcile.add_metric([part], took.cumulative(), took.total)
    yield reconcile
    yield HistogramMetricFamily(
        "hostmesh_plan_operations",
        "Operations on routes that a pass did",
        buckets=counters.plan_size.cumulative(),
        sum_value=counters.plan_size.total,
    )
    repairs = CounterMetricFamily(
        "hostmesh_drift_repairs", "Drift that was put right", labels=["kind"]
    )
    # Always there, so that their first increase is seen; tunnels' kinds come with the first repair.
    kinds = {"route-missing", "route-modified", "route-extra", "rules", *list(counters.repairs)}
    for kind in sorted(kinds):
        repairs.add_metric([kind], float(counters.repairs[kind]))
    yield repairs
    events = CounterMetricFamily("hostmesh_events", "Events by kind", labels=["kind"])
    for kind, count in sorted(dict(counters.events).items()):  # the loop may add a kind meanwhile
        events.add_metric([kind], float(count))
    yield events
    yield CounterMetricFamily(
        "hostmesh_docker_restarts",
        "Restarts of dockerd by the agent",
        float(counters.docker_restarts),
    )
    yield GaugeMetricFamily(
        "hostmesh_start_time_seconds", "When the agent started, Unix time", counters.started_s
    )
