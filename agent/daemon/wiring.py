"""Build parts that the daemon, ``--once`` and an offline leave share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from agent.daemon.membership.docker_restart_lock import DockerRestartLock
from agent.daemon.reconcile.firewalld_job import FirewalldJob
from agent.daemon.reconcile.ip_forward import IpForward
from agent.daemon.reconcile.kernel_objects import KernelObjects
from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.daemon.reconcile.protocol_migration import ProtocolMigration
from agent.daemon.state.mesh_state import MeshState, former_lease
from agent.daemon.store.state_file import StateFile
from agent.docker.manager import DockerManager
from agent.docker.service.dockerd_process import DockerdFinder
from agent.etcd.client import EtcdClient
from agent.kernel.firewall import Firewall, open_firewall
from agent.kernel.firewall.firewalld import Firewalld
from agent.kernel.hostchecks import host_conditions
from agent.kernel.sysctl import Sysctls
from agent.kernel.tables.routes import RouteTable
from agent.kernel.wireguard.parts import WireGuardParts
from agent.model import Condition, HostId, Lease, Uplink
from agent.registry.claiming.locks import MeshLocks
from agent.registry.copy import Copy
from agent.registry.registry import Registry
from agent.settings import Settings

__all__ = [
    "check_host",
    "copied_lease",
    "docker_manager",
    "firewall_of",
    "first_mesh_state",
    "host_name",
    "kernel_pass",
    "release_lease",
]


def host_name(settings: Settings) -> str:
    """Return what peers and operators call this host."""
    return settings.host.name or socket.gethostname()


def firewall_of(settings: Settings) -> Firewall | None:
    """Return the host's firewall; None when the operator keeps the rules.

    Raises:
        DependencyMissing: There is no iptables.
    """
    if not settings.firewall.manage:
        return None
    dockerd = DockerdFinder(settings.docker.socket).dockerd
    return open_firewall(settings.firewall.variant, dockerd=dockerd)


def kernel_pass(
    settings: Settings, state: StateFile, on_late: Callable[[], None] | None = None
) -> KernelPass:
    """Return the kernel's writers for these settings.

    Args:
        on_late: Called when firewalld has done later what a pass did not wait for; None: every
            pass waits.

    Raises:
        DependencyMissing: Rules are to be kept and there is no iptables.
    """
    firewall = firewall_of(settings)
    routes = settings.routes
    firewalld = Firewalld(record=state, manage=settings.firewall.firewalld == "manage")
    table = RouteTable(routes.protocol, routes.table)
    sources = firewall.ingress if firewall else None
    wireguard = WireGuardParts.of(settings.agent.state_dir, settings.wireguard.start_command)
    return KernelPass(
        objects=KernelObjects(table, routes.protocol, time.monotonic, sources, wireguard),
        migration=ProtocolMigration(table, routes.protocol, state),
        firewall=firewall,
        forwarding=IpForward(sysctls=Sysctls(), firewall=firewall, state=state),
        firewalld=FirewalldJob(firewalld, on_late) if on_late else firewalld,
        access_limit=settings.firewall.access,
    )


def release_lease(registry: Registry, own: HostId, boot_id: str) -> tuple[str, ...]:
    """Release the lease; return a line of what was done.

    Raises:
        EtcdError: It could not be done now.
    """
    subnet = registry.release(own, boot_id)
    return (f"released {subnet}",) if subnet is not None else ()


def docker_manager(settings: Settings, client: EtcdClient, own: HostId) -> DockerManager:
    """Return the host's Docker, restarted only under the mesh's restart lock."""
    stopping = threading.Event()
    turns = MeshLocks(client, settings.etcd.prefix, own, host_name(settings))
    turn = DockerRestartLock(turns, stopping)
    return DockerManager(
        settings.docker, settings.agent.state_dir, restart_lock=turn, stopping=stopping
    )


def check_host(uplink: Uplink, ingress: tuple[str, ...]) -> tuple[Condition, ...]:
    """Return conditions for services and sysctls that undo or hinder the agent's work."""
    found = (Sysctls().reverse_path_condition(uplink, mixed=len(ingress) > 1), *host_conditions())
    return tuple(each for each in found if each is not None)


def first_mesh_state(own: HostId, copy: Copy | None, *, left: bool) -> MeshState:
    """Return the state before the first event: that of this host's own copy."""
    mesh = MeshState(host_id=own, left=left)
    if copy is None or left:
        return mesh
    lease = copied_lease(own, copy)
    return replace(
        mesh,
        believed=copy.view,
        seen_s=copy.saved_s,
        config=copy.view.config,
        own=lease,
        former=former_lease(copy.view, lease),
    )


def copied_lease(own: HostId, copy: Copy | None) -> Lease | None:
    """Return the own lease in the copy: not that of the host whose disk was cloned."""
    lease = copy.lease if copy else None
    return lease if lease is not None and lease.host_id == own else None
