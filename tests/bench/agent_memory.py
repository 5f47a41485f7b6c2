"""Resident memory of the whole agent with 10, 1,000 and 65,000 peers.

    .venv/bin/python tests/bench/agent_memory.py [PEERS ...]

Each count is measured in a process of its own, in an empty network namespace (root). What is
measured is what the daemon holds: everything that ``agent.daemon.compose`` imports, the records
as etcd would send them (lease, heartbeat and memory of each host), the view of them, what the
loop knows, desired and actual routes of a real kernel, and the host's own copy, written once.
Threads and sockets to etcd and Docker are not there: they do not grow with the mesh.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agent.daemon import compose
from agent.daemon.conditions import ConditionRegistry
from agent.daemon.copying import Copying
from agent.daemon.known import Known
from agent.daemon.passes import Passes
from agent.daemon.silence import Silence
from agent.daemon.state import StateFile
from agent.daemon.timers import Timers
from agent.kernel.facts import choose_uplink, read_host_facts
from agent.leases import wire
from agent.leases.copy import CopyFile
from agent.leases.fold import Records
from agent.leases.keys import Keys
from agent.leases.kv import Event, Record
from agent.model import DockerState, Heartbeat, HostId, Lease, MeshConfig
from agent.settings import load_settings

GOALS_MB = {10: 60, 1_000: 65, 65_000: 150}
KEYS = Keys("/hostmesh")
CONFIG = MeshConfig(
    cidr=IPv4Network("10.0.0.0/8"),
    subnet_len=24,
    subnet_min=IPv4Address("10.0.0.0"),
    subnet_max=IPv4Address("10.255.255.0"),
)
PAGE = 500
_AS_INSTALLED = """
import runpy, sys
sys.modules["rich"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""structlog takes rich where it finds it; requirements.lock does not have it, development does."""


def resident_mb(field: str = "VmRSS") -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith(field))
    return int(line.split()[1]) / 1024


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def identity(number: int) -> HostId:
    return HostId(hashlib.sha256(str(number).encode()).hexdigest()[:32])


def lease_of(number: int, shift: int = 0) -> Lease:
    """Host ``number``; 0 is this one."""
    return Lease(
        subnet=IPv4Network((int(CONFIG.cidr.network_address) + number * 256, 24)),
        node_address=IPv4Address(int(IPv4Address("172.16.0.1")) + (number + shift) % 65_500),
        backend="host-gw",
        host_id=identity(number),
        host_name=f"host{number}.example.net",
        claimed_s=1_700_000_000.0 + number,
        renewed_s=1_700_000_000.0 + number,
        ttl_s=86_400,
    )


def record(key: bytes, value: bytes, number: int) -> Record:
    return Record(key, value, 10 + number, 10 + number, 7_587_000_000 + number)


def lease_record(number: int, shift: int = 0) -> Record:
    made = lease_of(number, shift)
    return record(KEYS.subnet(made.subnet), wire.encode_lease(made), number)


def records_of(number: int) -> Iterator[Record]:
    """What one host has in etcd."""
    made = lease_of(number)
    yield lease_record(number)
    yield record(KEYS.memory(identity(number)), wire.encode_memory(made.subnet), number)
    heartbeat = Heartbeat(
        host_id=identity(number),
        host_name=made.host_name,
        node_address=made.node_address,
        subnet=made.subnet,
        docker=DockerState.READY,
        agent_version="0.1.0",
        boot_id=f"6f1e0c0e-0000-4000-8000-{number:012d}",
        started_s=1_700_000_000.0,
    )
    yield record(KEYS.heartbeat(identity(number)), wire.encode_heartbeat(heartbeat), number)


def load(peers: int) -> Records:
    """The snapshot, page by page, as it comes from etcd."""
    records = Records(KEYS, cluster_id=1, revision=10)
    records.load([record(KEYS.config, wire.encode_config(CONFIG), 0)])
    page: list[Record] = []
    for number in range(peers + 1):
        page.extend(records_of(number))
        if len(page) >= PAGE:
            records.load(page)
            page.clear()
    records.load(page)
    return records


class Agent:
    """What of the daemon grows with the mesh, put together as ``compose`` does it."""

    def __init__(self, folder: Path, peers: int) -> None:
        (folder / "agent.toml").write_text("[firewall]\nmanage = false\n")
        settings = load_settings(folder / "agent.toml", {}, {})
        timers, conditions = Timers(time.monotonic), ConditionRegistry(time.monotonic)
        self.passes = Passes(
            kernel=compose.kernel_pass(settings, StateFile(folder)),
            conditions=conditions,
            timers=timers,
            check_s=5,
        )
        self._settings = settings
        self._copying = Copying(CopyFile(folder / "copy.json"), conditions, timers)
        self._silence = Silence()
        self._records = load(peers)
        facts = read_host_facts()
        self.known = Known(
            host_id=identity(0),
            own=lease_of(0),
            host=facts,
            uplink=choose_uplink(facts, "eth0"),
        )
        self.see()

    def change(self, number: int, shift: int) -> None:
        """One peer's new address comes by the watch."""
        changed = replace(lease_record(number, shift), mod_revision=1_000_000 + shift)
        self._records.apply([Event(changed.key, changed)])
        self.see()

    def see(self) -> None:
        """What the loop does with a view."""
        view = self._records.view()
        self.known = self.known.with_view(view)
        self._silence.update(view)
        routes = self._settings.routes
        world = self.known.world(route_protocol=routes.protocol, route_table=routes.table)
        assert world is not None
        self.passes.world_changed()
        self.passes.run(world, may_delete=True, may_sweep=True, docker_seen=False)

    def compare_all(self) -> None:
        """The timer's full pass, and the copy."""
        self.passes.everything()
        self.see()
        self._copying.save(self.known)


def measure(peers: int) -> None:
    """In the child: print what was found."""
    loaded_mb = resident_mb()
    ip("link set lo up")
    ip("link add eth0 type veth peer name eth0-peer")
    ip("addr add 172.16.0.1/16 dev eth0")
    ip("link set eth0 up")
    ip("link set eth0-peer up")
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder), peers)
        for shift in range(1, 4):
            agent.change(1 + shift, shift)
        working_mb = resident_mb()
        agent.compare_all()
        report = agent.passes.report
        assert report.installed == report.desired > peers, report
    print(f"{loaded_mb} {working_mb} {resident_mb()} {resident_mb('VmHWM')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=int, nargs="*", default=list(GOALS_MB))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.peers[0])
        return
    for peers in arguments.peers:
        start = [sys.executable, "-c", _AS_INSTALLED, __file__, "--child", str(peers)]
        command = ["unshare", "--net", *start]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        last = done.stdout.splitlines()[-1]
        loaded_mb, working_mb, after_mb, peak_mb = (float(each) for each in last.split())
        goal_mb = GOALS_MB.get(peers)
        verdict = "" if goal_mb is None else "ok" if after_mb <= goal_mb else "MISSED"
        print(
            f"{peers:6} peers: loaded {loaded_mb:6.1f} MB, working {working_mb:6.1f}, after a full "
            f"pass and the copy {after_mb:6.1f} (goal {goal_mb}) {verdict}, peak {peak_mb:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
