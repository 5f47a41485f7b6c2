"""A mesh of any size as etcd would tell of it, and the daemon's parts that follow it."""

from __future__ import annotations

import hashlib
import subprocess
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent.daemon import wiring as parts
from agent.daemon.reconcile.scheduler import Scheduler
from agent.daemon.state.inbox import Inbox
from agent.daemon.state.last_seen import LastSeen
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer, Timers
from agent.daemon.store.state_file import StateFile
from agent.daemon.store.view_cache import ViewCache
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.etcd.kv import Event, Record
from agent.kernel.facts import read_host_facts
from agent.kernel.uplink import choose_uplink
from agent.model import DockerState, Heartbeat, HostId, Lease, MeshConfig
from agent.registry.copy import CopyFile
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    HEARTBEATS,
    LEASES,
    MEMORY,
    Keys,
    encode_config,
    encode_heartbeat,
    encode_lease,
    encode_memory,
)
from agent.settings import load_settings

KEYS = Keys("/hostmesh")
CONFIG_KEY = b"/hostmesh/config"
CONFIG = MeshConfig(
    cidr=IPv4Network("10.0.0.0/8"),
    subnet_len=24,
    subnet_min=IPv4Address("10.0.0.0"),
    subnet_max=IPv4Address("10.255.255.0"),
)
PAGE = 500
GATEWAYS = 65_500
"""Node addresses that there are; more hosts than that share them."""


def prepare() -> None:
    """An uplink eth0 with 172.16.0.1/16, in an empty network namespace."""
    ip("link set lo up")
    ip("link add eth0 type veth peer name eth0-peer")
    ip("addr add 172.16.0.1/16 dev eth0")
    ip("link set eth0 up")
    ip("link set eth0-peer up")


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def identity(number: int) -> HostId:
    return HostId(hashlib.sha256(str(number).encode()).hexdigest()[:32])


def lease_of(number: int, shift: int = 0, gateways: int = GATEWAYS) -> Lease:
    """Host ``number``; 0 is this one, which shares its address with no other."""
    place = 1 + (number + shift) % gateways if number else 0
    return Lease(
        subnet=IPv4Network((int(CONFIG.cidr.network_address) + number * 256, 24)),
        node_address=IPv4Address(int(IPv4Address("172.16.0.1")) + place),
        backend="host-gw",
        host_id=identity(number),
        host_name=f"host{number}.example.net",
        claimed_s=1_700_000_000.0 + number,
        renewed_s=1_700_000_000.0 + number,
        ttl_s=86_400,
    )


def record(key: bytes, value: bytes, number: int) -> Record:
    return Record(key, value, 10 + number, 10 + number, 7_587_000_000 + number)


def lease_record(number: int, shift: int = 0, gateways: int = GATEWAYS) -> Record:
    made = lease_of(number, shift, gateways)
    return record(KEYS.of(LEASES, made.subnet), encode_lease(made), number)


def heartbeat_of(number: int) -> Heartbeat:
    made = lease_of(number)
    return Heartbeat(
        host_id=identity(number),
        host_name=made.host_name,
        node_address=made.node_address,
        subnet=made.subnet,
        docker=DockerState.READY,
        agent_version="0.1.0",
        boot_id=f"6f1e0c0e-0000-4000-8000-{number:012d}",
        started_s=1_700_000_000.0 + number,
    )


def heartbeat_record(number: int) -> Record:
    key = KEYS.of(HEARTBEATS, identity(number))
    return record(key, encode_heartbeat(heartbeat_of(number)), number)


def memory_record(number: int) -> Record:
    return record(KEYS.of(MEMORY, identity(number)), encode_memory(lease_of(number).subnet), number)


def load(peers: int, gateways: int) -> RecordStore:
    """The snapshot, page by page in the order of keys, as it comes from etcd."""
    records = RecordStore(KEYS, cluster_id=1, revision=10)
    records.load([record(CONFIG_KEY, encode_config(CONFIG), 0)])
    by_id = sorted(range(peers + 1), key=identity)
    for made, numbers in (
        (heartbeat_record, by_id),
        (memory_record, by_id),
        (lambda number: lease_record(number, 0, gateways), range(peers + 1)),
    ):
        for start in range(0, peers + 1, PAGE):
            records.load([made(number) for number in numbers[start : start + PAGE]])
    return records


def new_address(number: int, shift: int, gateways: int = GATEWAYS) -> Event:
    """Return the watch's event of a host with another node address."""
    changed = replace(lease_record(number, shift, gateways), mod_revision=1_000_000 + shift)
    return Event(changed.key, changed, changed.mod_revision)


class Agent:
    """The parts of the daemon that grow with the mesh, connected as agent.daemon.app does it."""

    def __init__(
        self, folder: Path, peers: int, gateways: int = GATEWAYS, routes: str = ""
    ) -> None:
        (folder / "agent.toml").write_text(f"[firewall]\nmanage = false\n[routes]\n{routes}\n")
        settings = load_settings(folder / "agent.toml", {}, {})
        timers, conditions = Timers(time.monotonic), ConditionRegistry(time.monotonic)
        self.scheduler = Scheduler(
            kernel=parts.kernel_pass(settings, StateFile(folder)),
            conditions=conditions,
            timers=timers,
            check_s=5,
        )
        self._settings = settings
        self._view_cache = ViewCache(CopyFile(folder / "copy.json"), Inbox(), timers)
        self._silence = LastSeen()
        self._records = load(peers, gateways)
        facts = read_host_facts()
        self.mesh = MeshState(
            host_id=identity(0),
            own=lease_of(0),
            host=facts,
            uplink=choose_uplink(facts, "eth0"),
        )
        self.see()

    def follow(self, event: Event) -> None:
        """Carry one event of the watch through the daemon's parts."""
        self._records.apply([event])
        self.see()

    def see(self) -> None:
        """Do with a view what the loop does."""
        view = self._records.view()
        before, self.mesh = self.mesh, self.mesh.with_view(view)
        self._silence = self._silence.follow(view, time.time())
        if self.mesh.steers_otherwise(before):
            self.scheduler.world_changed()
        self.run_passes()

    def run_passes(self) -> None:
        routes = self._settings.routes
        world = self.mesh.world(route_protocol=routes.protocol, route_table=routes.table)
        assert world is not None
        again = True
        while again:  # one pass writes for a limited time
            self.scheduler.run(world, may_delete=True, may_sweep=True, docker_seen=False)
            again = self.scheduler.report.again_in_s == 0
            self.scheduler.fell_due(frozenset({Timer.ROUTES} if again else ()))

    def compare_all(self) -> None:
        """The timer's full pass, and the copy."""
        self.scheduler.everything()
        self.run_passes()
        self._view_cache.finish(self.mesh)
