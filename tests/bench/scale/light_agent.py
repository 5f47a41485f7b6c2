"""A host of a large mesh: the shipped agent in a network namespace, as a thread beside others.

Nothing of the agent is replaced: HostAgent puts its parts together, as hostmesh-agent does. The
host has no Docker, and the operator keeps its firewall. Its namespace has one cable to the
namespace of the process, which is a router to etcd and to the other hosts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from agent.daemon.app import HostAgent
from agent.daemon.core.reload import Source
from agent.daemon.state import events
from agent.daemon.state.agent_state import AgentState
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.settings import EtcdSettings, LeaseSettings, load_settings
from tests.etcd.support import etcdlab
from tests.netns.netlab import Host

__all__ = ["CALL_TIMEOUT_S", "ETCD", "HEARTBEAT_TTL_S", "Goal", "LightAgent", "cables"]

ETCD = "172.16.0.1"
"""Address of etcd, and of the router between the hosts."""
HEARTBEAT_TTL_S = LeaseSettings().heartbeat_ttl_s
CALL_TIMEOUT_S = EtcdSettings().call_timeout_s
_FIRST = IPv4Address("172.16.1.0")
_ROUTER = "02:00:00:00:00:01"
_PREFIX = 12


@dataclass(frozen=True)
class Goal:
    """The state in which a host has arrived.

    Attributes:
        routes: So many are in the kernel, the one of the whole CIDR among them.
        revision: The host has seen the mesh as it was at this revision of etcd, or later.
        endpoints: It knows so many containers of others.
    """

    routes: int = 0
    revision: int = 0
    endpoints: int = 0

    def is_met(self, state: AgentState) -> bool:
        mesh = state.mesh
        if mesh.own is None or not mesh.own.etcd_lease_id or mesh.believed is None:
            return False
        others = mesh.peer_endpoints
        return (
            (state.report.installed or 0) >= self.routes
            and not mesh.believed.cached
            and mesh.believed.revision >= self.revision
            and (not self.endpoints or len(others.endpoints) >= self.endpoints)
        )


class LightAgent:
    """One host with its agent.

    Args:
        number: From 0 on.
        folder: Of the hosts; one that has this host's state is that of a host that was rebooted.
        etcd: Endpoints.
        patience: Factor of the time limits which a host that waits for a processor would miss.
    """

    def __init__(self, number: int, folder: Path, etcd: tuple[str, ...], patience: int) -> None:
        self.number = number
        self.folder = folder / f"host{number}"
        self.address = _FIRST + number
        self.host = Host(f"host{number}")
        self.started_s = self.leased_s = self.met_s = 0.0
        self._agent: HostAgent | None = None
        self._settings = self.folder / "agent.toml"
        self.folder.mkdir(exist_ok=True)
        (self.folder / "state").mkdir(exist_ok=True)
        (self.folder / "state" / "host-id").write_text(etcdlab.host(number))
        endpoints = ", ".join(f'"{each}"' for each in etcd)
        self._settings.write_text(
            f"[etcd]\nendpoints = [{endpoints}]\ncall_timeout_s = {CALL_TIMEOUT_S * patience}\n"
            f"[lease]\nheartbeat_ttl_s = {HEARTBEAT_TTL_S * patience}\n"
            f'[host]\nname = "host{number}"\nuplink = "eth0"\n'
            f'[agent]\nstate_dir = "{self.folder}/state"\nrun_dir = "{self.folder}/run"\n'
            '[docker]\nmanage = false\nsocket = "/run/no-docker-here/docker.sock"\n'
            "[firewall]\nmanage = false\n"
        )

    def plug(self) -> None:
        """Set up the end of the cable that lies in the host's namespace."""
        self.host.batch(
            [
                f"address add {self.address}/{_PREFIX} dev eth0",
                f"neighbour add {ETCD} lladdr {_ROUTER} nud permanent dev eth0",
                "link set eth0 up",
                f"route add default via {ETCD} dev eth0",
            ]
        )

    def start(self) -> None:
        """Start the agent."""
        self.started_s = time.monotonic()
        self.host.thread(self._run)

    def _run(self) -> None:
        load = partial(load_settings, self._settings, {}, {})
        self._agent = agent = HostAgent(load(), Source(load, lambda _settings: None))
        agent.run()

    @property
    def state(self) -> AgentState | None:
        """Return the agent's state, None before it has one."""
        return self._agent._cell.now if self._agent else None

    @property
    def excuse(self) -> str:
        """Return the agent's line for systemctl status, and its conditions."""
        if self._agent is None:
            return "the agent does not run"
        found = (each.condition for each in self._agent._conditions.all())
        return "; ".join([self._agent._cell.now.summary, *(f"{c.name}: {c.cause}" for c in found)])

    def look(self, goal: Goal) -> None:
        """Note when the host got its lease, and when it arrived at the goal."""
        state = self.state
        if state is None:
            return
        own = state.mesh.own
        if not self.leased_s and own is not None and own.etcd_lease_id:
            self.leased_s = time.monotonic()
        if not self.met_s and goal.is_met(state):
            self.met_s = time.monotonic()

    def run_containers(self, count: int, changed: int = -1, healthy: bool = True) -> None:
        """Say, as Docker's follower would, which containers run.

        Args:
            changed: The number of one whose health is another now.
        """
        state = self.state
        assert self._agent is not None
        assert state is not None
        assert state.mesh.own is not None
        subnet, found = state.mesh.own.subnet, []
        for index in range(count):
            health = Health.NONE
            if index == changed:
                health = Health.HEALTHY if healthy else Health.UNHEALTHY
            place = EndpointAddress(
                network="bridge", address=subnet[2 + index], aliases=(f"service{index}",)
            )
            found.append(
                Endpoint(
                    host_id=state.mesh.host_id,
                    container_id=f"{self.number:08x}{index:08x}" + "c" * 48,
                    name=f"shop-service{index}-{self.number}",
                    project="shop",
                    service=f"service{index}",
                    health=health,
                    addresses=(place,),
                )
            )
        self._agent._inbox.post(events.EndpointsSeen(tuple(found)))


def cables(agents: Sequence[LightAgent], generation: int) -> list[str]:
    """Return ip's commands for the router's ends of the cables."""
    found = []
    for each in agents:
        mine = f"v{generation}-{each.number}"
        peer = f"02:01:00:00:{each.number >> 8:02x}:{each.number & 255:02x}"
        ends = f"{mine} address {_ROUTER} type veth peer name eth0 address {peer}"
        found += [
            f"link add {ends} netns {each.host.thread_id}",
            f"link set {mine} up",
            f"route replace {each.address}/32 dev {mine} src {ETCD}",
            f"neighbour replace {each.address} lladdr {peer} nud permanent dev {mine}",
        ]
    return found
