"""A mesh of any size as the agent would describe it: its own document functions, made-up hosts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from agent.daemon.api.connection import Paths
from agent.daemon.api.containers import containers_document, counts_by_network
from agent.daemon.api.leases import leases_document
from agent.daemon.api.networks import networks_document
from agent.daemon.api.server import TcpServer
from agent.daemon.api.status import status_document
from agent.daemon.checks.documents import checks_document
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.freshness import Freshness
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.counters import Counters
from agent.daemon.telemetry.history import HistoryEvent, events_document
from agent.daemon.ui.paths import page_paths
from agent.mesh.check.document import check_document
from agent.mesh.check.result import (
    CheckState,
    CheckSummary,
    CheckTest,
    HostCheck,
    PeerCheck,
    TestResult,
    Verdict,
    WorstPeer,
)
from agent.mesh.ways import OwnDevice, Way
from agent.model import (
    Condition,
    DockerState,
    Heartbeat,
    HostId,
    HostSummary,
    Lease,
    MeshConfig,
    Uplink,
    View,
)
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.model.family import Network
from agent.model.network import MeshNetwork, NetworkSlice
from agent.reconcile.reconciler import Report

__all__ = ["SampleAgent"]

CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=20,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.240.0"),
    backend="wireguard",
    level=3,
)
SITES = ("fra", "ams", "lon", "nyc", "sgp", "syd")
SERVICES = ("web", "api", "db", "cache", "queue", "search", "mail", "metrics", "auth", "images")


@dataclass
class SampleAgent:
    """The agent of host 0 in a mesh of ``hosts`` hosts.

    Attributes:
        down: Hosts without heartbeat that answer no probe.
        failing: Hosts whose container path does not answer.
        stale_s: For how long etcd has been away, 0: not at all.
        names: Names of some hosts, in place of "fra1".
    """

    hosts: int
    containers: int = 4
    sites: int = 2
    down: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    stale_s: float = 0.0
    names: dict[int, str] = field(default_factory=dict)
    container_names: dict[int, str] = field(default_factory=dict)
    outdated: set[int] = field(default_factory=set)
    reported: dict[int, tuple[str, ...]] = field(default_factory=dict)
    happened: list[tuple[str, str, str]] = field(default_factory=list)
    started_s: float = field(default_factory=time.time)

    def name(self, number: int) -> str:
        """Return a host's name."""
        return self.names.get(number, f"{SITES[number % self.sites]}{number // self.sites + 1}")

    def subnet(self, number: int) -> IPv4Network:
        """Return a host's subnet."""
        return IPv4Network((int(CONFIG.cidr.network_address) + (number << 12), 20))

    def lease(self, number: int) -> Lease:
        """Return a host's lease."""
        return Lease(
            subnet=self.subnet(number),
            node_address=IPv4Address(f"192.0.{2 + number // 250}.{1 + number % 250}"),
            backend=CONFIG.backend,
            host_id=identity(number),
            host_name=self.name(number),
            claimed_s=self.started_s - 3 * 86_400,
            renewed_s=time.time(),
            ttl_s=86_400,
            link=SITES[number % self.sites],
            mtu=1500,
        )

    def view(self) -> View:
        """Return the mesh."""
        leases = tuple(self.lease(number) for number in range(self.hosts))
        return View(
            cluster_id=1,
            revision=int(time.time()),
            config=CONFIG,
            leases=leases,
            heartbeats={
                identity(number): replace(
                    heartbeat(lease),
                    agent_version="0.1.1" if number in self.outdated else "0.2.0",
                    summary=HostSummary(
                        conditions=self.reported.get(number, ()), containers=self.containers
                    ),
                )
                for number, lease in enumerate(leases)
                if number not in self.down
            },
            networks={"web": MeshNetwork(name="web"), "data": MeshNetwork(name="data", length=24)},
            slices={
                (identity(number), network): NetworkSlice(
                    host_id=identity(number),
                    network=network,
                    subnet=next(self.subnet(number).subnets(new_prefix=24)),
                    since_s=self.started_s,
                )
                for number in range(min(self.hosts, 6))
                for network in ("web",)
            },
        )

    def state(self) -> AgentState:
        """Return the state of the agent's loop."""
        view, own = self.view(), self.lease(0)
        mesh = MeshState(
            host_id=identity(0),
            believed=view,
            config=CONFIG,
            own=own,
            uplink=Uplink(
                index=2,
                name="eth0",
                mtu=1500,
                node_address=IPv4Address("192.0.2.1"),
                on_link=IPv4Network("192.0.2.0/24"),
            ),
            silent=frozenset(view.leases[number].node_address for number in self.down),
        )
        routes = self.hosts - 1
        return AgentState(
            mesh=mesh,
            report=Report(desired=routes, installed=routes, differing=0),
            contact_problem="etcd does not answer" if self.stale_s else "",
        )

    @property
    def freshness(self) -> Freshness:
        """Return how old the view is."""
        return Freshness(stale=bool(self.stale_s), as_of_s=time.time() - self.stale_s)

    def status(self) -> dict[str, Any]:
        """``GET /v1/status``."""
        now_s = time.monotonic()
        dead = [
            Condition(
                name="peer-dead",
                subject=self.name(number),
                cause=f"{self.name(number)} has no heartbeat and answers no probe, so"
                f" {self.subnet(number)} is unreachable",
                hint="nothing to do if it is rebooting; gone for good: agentctl remove"
                f" {self.name(number)}",
            )
            for number in sorted(self.down)
        ]
        document = dict(
            status_document(
                self.state(),
                tuple(ActiveCondition(each, now_s - 90) for each in [*self.conditions, *dead]),
                host_name=self.name(0),
                etcd_source={"endpoints": [], "source": "settings", "told_by": None},
                last_contact_s=now_s - self.stale_s,
                now_s=now_s,
                wall_s=time.time(),
                freshness=self.freshness,
                counters=Counters(started_s=self.started_s),
            )
        )
        document["state"] = "ready"
        document["docker"] = {**document["docker"], "state": "ready", "version": "28.5.1"}
        document["mesh"] = {
            **document["mesh"], "device": "hm-wg", "device_mtu": 1440, "container_mtu": 1440,
        }  # fmt: skip
        return document

    def leases(self) -> dict[str, Any]:
        """``GET /v1/leases``."""
        ways: dict[Network, Way] = {
            self.subnet(number): (
                Way("eth0", direct=True, mtu=1500)
                if number % self.sites == 0
                else Way("hm-wg", direct=False, mtu=1440)
            )
            for number in range(1, self.hosts)
        }
        found: dict[str, Any] = leases_document(
            self.view(),
            identity(0),
            time.time(),
            last_heartbeat_s={identity(number): time.time() - 29 for number in self.down},
            freshness=self.freshness,
            ways=ways,
            device=OwnDevice("hm-wg", 1440, 1440),
        )
        return found

    def endpoints(self) -> list[Endpoint]:
        """Return the containers of all hosts."""
        return [
            self.endpoint(number, each)
            for number in range(self.hosts)
            for each in range(self.containers)
        ]

    def endpoint(self, number: int, each: int) -> Endpoint:
        """Return one container of a host."""
        count = number * self.containers + each
        service = SERVICES[count % len(SERVICES)]
        web = number < 6 and each == 0
        base = int(self.subnet(number).network_address)
        address = base + 2 if web else base + 0x800 + each + 2
        return Endpoint(
            host_id=identity(number),
            container_id=sha256(str(count).encode()).hexdigest(),
            name=self.container_names.get(count, f"shop-{service}-{count + 1}"),
            project="shop",
            service=service,
            health=Health.UNHEALTHY if count % 97 == 50 else Health.HEALTHY,
            addresses=(
                EndpointAddress(
                    network="web" if web else "bridge",
                    mesh_network="web" if web else "",
                    address=IPv4Address(address),
                ),
            ),
        )

    def networks(self) -> dict[str, Any]:
        """``GET /v1/networks``."""
        view = self.view()
        counts = counts_by_network(view, self.endpoints())
        return networks_document(
            view, identity(0), time.time(), counts=counts, freshness=self.freshness
        )

    def running(self) -> dict[str, Any]:
        """``GET /v1/containers``."""
        return containers_document(
            self.view(), self.endpoints(), identity(0), time.time(), freshness=self.freshness
        )

    def check(self) -> dict[str, Any]:
        """``GET /v1/check``."""
        peers = tuple(self._peer(number) for number in range(1, self.hosts))
        own = (TestResult(test=CheckTest.NAMES, verdict=Verdict.OK, text="both servers answer"),)
        found = HostCheck(
            host_id=identity(0), began_s=time.time() - 240, took_s=1.4, own=own, peers=peers
        )
        return check_document(found, time.time())

    def _peer(self, number: int) -> PeerCheck:
        lease = self.lease(number)
        path = TestResult(test=CheckTest.PATH, verdict=Verdict.OK, text="a container answers")
        host = TestResult(test=CheckTest.HOST, verdict=Verdict.OK, text="answers a ping")
        state = CheckState.OK
        rtt_s: float | None = self.rtt_s(0, number)
        if number in self.down:
            state, rtt_s = CheckState.DOWN, None
            host = replace(host, verdict=Verdict.FAILED, text="no answer", hint="agentctl status")
        if number in self.failing:
            state, rtt_s = CheckState.FAILED, None
            path = replace(
                path,
                verdict=Verdict.FAILED,
                text=f"no answer from {lease.subnet[2050]} by container web, its host answers",
                hint=f"on {lease.host_name}: agentctl doctor; from here: agentctl ping"
                f" {lease.host_name}",
            )
        mtu = TestResult(test=CheckTest.MTU, verdict=Verdict.OK, text="1440 bytes pass whole")
        return PeerCheck(
            host_id=lease.host_id,
            host_name=lease.host_name,
            subnet=lease.subnet,
            node_address=lease.node_address,
            state=state,
            rtt_s=rtt_s,
            tests=(host, path, mtu),
        )

    def rtt_s(self, one: int, other: int) -> float:
        """Return the time between two hosts: short within a site."""
        apart = abs(one % self.sites - other % self.sites)
        return float(0.000_24 + 0.000_04 * ((one * 7 + other * 13) % 9) + 0.0074 * apart**2)

    def checks(self) -> dict[str, Any]:
        """``GET /v1/checks``."""
        bad = self.down | self.failing
        published = {
            identity(number): CheckSummary(
                host_id=identity(number),
                began_s=time.time() - 300 - number,
                counts={CheckState.OK: self.hosts - 1 - len(bad), CheckState.DOWN: len(bad)},
                worst=tuple(
                    WorstPeer(
                        subnet=self.subnet(other),
                        state=CheckState.DOWN if other in bad else CheckState.OK,
                        rtt_s=None if other in bad else self.rtt_s(number, other),
                    )
                    for other in self._worst_of(number)
                ),
            )
            for number in range(self.hosts)
            if number not in self.down
        }
        freshness = self.freshness.document(time.time())
        return checks_document(
            self.view(), identity(0), published, time.time(), freshness=freshness
        )

    def _worst_of(self, number: int) -> list[int]:
        bad = self.down | self.failing
        others = [each for each in range(self.hosts) if each != number]
        others.sort(key=lambda other: (other not in bad, -self.rtt_s(number, other)))
        return others[:32]

    def events(self, _query: object = None) -> dict[str, Any]:
        """``GET /v1/events``."""
        at_s = self.started_s - 30 * len(self.happened)
        return events_document(
            [
                HistoryEvent(number + 1, at_s + 30 * number, kind, subject, text)
                for number, (kind, subject, text) in enumerate(self.happened)
            ]
        )

    def paths(self) -> Paths:
        """Return the page's paths of this agent."""
        documents = Paths(
            read={
                "/v1/status": self.status,
                "/v1/leases": self.leases,
                "/v1/networks": self.networks,
                "/v1/containers": self.running,
                "/v1/check": self.check,
                "/v1/checks": self.checks,
            }
        )
        return page_paths(documents, self.events)

    def serve(self, port: int = 0) -> TcpServer:
        """Serve the page on loopback."""
        server = TcpServer("ui", ("127.0.0.1", port), self.paths(), by_address=True)
        server.start()
        return server


def identity(number: int) -> HostId:
    """Return a host's id."""
    return HostId(f"{number + 1:032x}")


def heartbeat(lease: Lease) -> Heartbeat:
    """Return the heartbeat of a lease's owner."""
    assert lease.host_id is not None
    return Heartbeat(
        host_id=lease.host_id,
        host_name=lease.host_name,
        node_address=lease.node_address,
        subnet=lease.subnet,
        docker=DockerState.READY,
        agent_version="0.2.0",
        boot_id="b",
        started_s=0.0,
        container=IPv4Address(int(lease.subnet.network_address) + 0x802),
        level=3,
    )
