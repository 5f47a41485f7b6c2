"""Promise 12: a mesh goes from version 0.1.0 to this one and back, host by host, under traffic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Self

import pytest
from hostmesh_lab.errors import WaitTimeout
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.parallel import in_parallel
from hostmesh_lab.shell import Completed
from hostmesh_lab.wait import wait_until

from agent.errors import Refused
from tests.engine.boot import scenes
from tests.engine.boot.conftest import machine
from tests.engine.boot.scenes import FRESH, Knocking

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

HOSTS = 3
PUBLISHED = 8080
OTHER = "/root/hostmesh-other"
"""Where a host has the other version's programs, beside those of the package."""

KEPT_SETS = re.compile("hostmesh-(published|senders)")
"""Sets that are kept filled while no network has a rule that names them."""
OLDER_KEEPS = re.compile("hostmesh-(published|senders|in-.*)")
"""Beside these those that version 0.1.0 does not know: it leaves them where they are."""

ASKED = (
    "status", "leases", "routes", "diff", "map", "events", "config show",
    "firewall show", "version", "wait --ready --timeout 20s", "ping {peer}", "reload",
)  # fmt: skip
"""Verbs whose answer comes from the agent, each with exit status 0 in a mesh in order."""


@dataclass
class Mesh:
    """Three members with a container each, which publishes a port."""

    lab: Lab
    hosts: list[BootedHost]
    older: Path
    package: Path
    web: dict[str, str]
    leases: dict[str, str]

    def bring(self, package: Path) -> None:
        """Have every host be a member with the version of this package."""
        in_parallel(lambda host: swap(host, package), self.hosts)
        for host in self.hosts:
            if host.status().get("state") == "left":
                host.agentctl("join")
        self.lab.wait_ready(60, [host.name for host in self.hosts])

    def wrong(self) -> list[str]:
        """Return each difference between the hosts and what the leases say."""
        with ThreadPoolExecutor(HOSTS) as pool:
            found = pool.map(lambda host: list(self._wrong_on(host)), self.hosts)
        pairs = zip(self.hosts, found, strict=True)
        return [f"{host.name}: {line}" for host, lines in pairs for line in lines]

    def wait_right(self) -> None:
        """Wait until there is no difference; fails with those that there are."""
        seen: list[str] = []

        def right() -> bool:
            seen[:] = self.wrong()
            return not seen

        try:
            wait_until(right, 40, "all three hosts to be right")
        except WaitTimeout:
            pytest.fail("\n".join(seen))

    def _wrong_on(self, host: BootedHost) -> Iterator[str]:
        status = host.status()
        if (status.get("state"), status.get("subnet")) != ("ready", self.leases[host.name]):
            yield f"{status.get('state')}, {status.get('subnet')}, not {self.leases[host.name]}"
        for each in status.get("conditions", ()):
            if each["name"] != "etcd-open":  # the lab's etcd is in the clear
                yield f"{each['name']}: {each['cause']}"
        peers = {self.leases[each.name]: each for each in self.hosts if each is not host}
        wanted = {(scenes.CIDR, None), *((subnet, peer.address) for subnet, peer in peers.items())}
        routes = {(each["dst"], each.get("gateway")) for each in host.mesh_routes()}
        if routes != wanted:
            yield f"routes {routes}, not {wanted}"
        differs = host.agentctl("diff", check=False)
        if differs.returncode:
            yield f"diff: {differs.stdout or differs.stderr}"
        newer = scenes.package_version(host) != scenes.version_of(self.older)
        yield from wrong_rules(host, peers, KEPT_SETS if newer else OLDER_KEEPS)


def wrong_rules(
    host: BootedHost, peers: dict[str, BootedHost], unused: re.Pattern[str]
) -> Iterator[str]:
    """Each jump once, each chain used, each set that a rule names there and no other but unused."""
    rules = [
        f"{table} {line}"
        for table in ("raw", "filter", "nat")
        for line in host.iptables(table)
        if "HOSTMESH" in line or "hostmesh" in line
    ]
    jumps = [line for line in rules if " -j HOSTMESH" in line]
    if len(jumps) != len(set(jumps)):
        yield f"a jump twice: {jumps}"
    chains = {line.split()[1].lstrip(":") for line in rules if line.split()[1].startswith(":")}
    reached = {line.split(" -j ")[1].split()[0] for line in jumps}
    if chains != reached:
        yield f"chains {chains}, and rules that lead to {reached}"
    named = set(re.findall(r"--match-set (\S+)", "\n".join(rules)))
    listed = host.run(["ipset", "save"]).stdout
    there = set(re.findall(r"^create (hostmesh\S*)", listed, re.MULTILINE))
    if named - there or [each for each in there - named if not unused.fullmatch(each)]:
        yield f"sets {there}, and rules that name {named}"
    for subnet, peer in peers.items():
        if not re.search(rf"^add hostmesh\S* {re.escape(peer.address)}( |$)", listed, re.MULTILINE):
            yield f"{peer.name} with {subnet} is in no set"


class Traffic:
    """Pings every 10 ms and connections to published ports, over the time of a ``with``.

    A machine outside the mesh, which routes the leases to their hosts, must never reach a container
    but by its published port.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._pings: dict[str, Pinger] = {}
        self._published: dict[str, Knocking] = {}
        self._closed: dict[str, Knocking] = {}

    def __enter__(self) -> Self:
        mesh, stranger = self._mesh, self._mesh.lab.stranger
        assert stranger is not None
        for one, other in permutations(mesh.hosts, 2):
            self._ping(one, "web", mesh.web[other.name])
            self._ask_port(one, other)
        for one, other in zip(mesh.hosts, [*mesh.hosts[1:], mesh.hosts[0]], strict=True):
            self._ping(one, "", mesh.web[other.name])
            self._ping(other, "web", one.address)
        for host in mesh.hosts:
            lease, address = mesh.leases[host.name], mesh.web[host.name]
            stranger.run(["ip", "route", "replace", lease, "via", host.address])
            self._ask_port(stranger, host)
            self._closed[f"outside to {address}"] = Knocking(stranger, address, 80)
        for each in (*self._published.values(), *self._closed.values()):
            each.__enter__()
        self.wait_answers()
        return self

    def _ping(self, source: BootedHost, container: str, target: str) -> None:
        name = f"{container or 'host'} on {source.name} to {target}"
        self._pings[name] = Pinger(source, target, container=container, every_s=0.01)

    def _ask_port(self, source: Machine, host: BootedHost) -> None:
        # A SYN that is lost is sent again after a second.
        knocking = Knocking(source, host.address, PUBLISHED, wait_s=0.9, pause_s=0.1)
        self._published[f"{source.name} to {host.name}"] = knocking

    def __exit__(self, *_: object) -> None:
        for ping in self._pings.values():
            ping.stop()
        for each in (*self._published.values(), *self._closed.values()):
            each.__exit__()

    def wait_answers(self) -> None:
        """Wait until each ping and each connection that is made from now on was answered once."""
        pings = {name: len(each.replies) for name, each in self._pings.items()}
        knocks = {name: len(each.answered) for name, each in self._published.items()}

        def silent() -> list[str]:
            return [
                *(n for n, each in self._pings.items() if len(each.replies) <= pings[n] + 1),
                *(n for n, each in self._published.items() if len(each.answered) <= knocks[n] + 1),
            ]

        wait_until(lambda: not silent(), 20, "every path to answer", every_s=0.05)

    def lost(self) -> list[str]:
        """Return what has been lost until now, and what got in from outside."""
        self.wait_answers()
        found = [f"ping {n}: {each.missed()}" for n, each in self._pings.items() if each.missed()]
        for name, each in self._published.items():
            if each.failed:
                found.append(f"port {name}: attempts {each.failed} of {each.asked}")
        for name, each in self._closed.items():
            if each.answered or not each.asked:
                found.append(f"{name}: {each.asked} asked, answered {each.answered}")
        return found

    def __str__(self) -> str:
        pings = sum(len(each.replies) for each in self._pings.values())
        asked = sum(each.asked for each in self._published.values())
        return f"{pings} pings on {len(self._pings)} paths and {asked} connections"


def swap(host: BootedHost, package: Path) -> None:
    """Install a version in place of another, as an operator does, unless it is there already."""
    if scenes.version_of(package) == scenes.package_version(host):
        return
    pid = scenes.main_pid(host)
    host.install(package)
    wait_until(lambda: scenes.main_pid(host) not in (0, pid), 30, f"{host.name}'s other agent")


@pytest.fixture(scope="module")
def mesh(fresh: Lab, older: Path, package: Path) -> Mesh:
    """All three run version 0.1.0."""
    running = [name for name, host in fresh.hosts.items() if host.proc()]
    while len(running) < HOSTS:
        running.append(fresh.join(FRESH).name)
    hosts = [machine(fresh, name) for name in running[:HOSTS]]
    for host in hosts:
        host.write_file("/etc/hostmesh/agent.toml", scenes.settings(fresh), mode=0o600)
    in_parallel(lambda host: host.install(older), hosts)
    fresh.wait_ready(90, [host.name for host in hosts])

    def serve(host: BootedHost) -> str:
        return host.start_container("web", publish=[f"{PUBLISHED}:80"])

    web = {host.name: serve(host) for host in hosts}
    leases = {host.name: str(host.status()["subnet"]) for host in hosts}
    made = Mesh(fresh, hosts, older, package, web, leases)
    made.wait_right()
    return made


def change_all(mesh: Mesh, package: Path, traffic: Traffic) -> None:
    """Install a version on one host after the other, and look at all of them after each."""
    for host in mesh.hosts:
        before = agent_starts(host)
        swap(host, package)
        mesh.wait_right()
        assert traffic.lost() == []
        assert agent_starts(host) == before + 1, "each version reads the events of the other"
        assert host.status()["agent_version"] == scenes.version_of(package).split("+")[0]


def agent_starts(host: BootedHost) -> int:
    """How often the agent has started, by the events that it keeps."""
    events = json.loads(host.agentctl("events", "-o", "json").stdout)["events"]
    return len([each for each in events if each["kind"] == "agent-started"])


@contextmanager
def unchanged(mesh: Mesh) -> Iterator[Traffic]:
    """Hold the hosts to lose nothing, to keep their state and to leave Docker alone."""

    def starts() -> list[int]:
        return [scenes.docker_starts(host) for host in mesh.hosts]

    before = starts(), [kept_state(host) for host in mesh.hosts]
    with Traffic(mesh) as traffic:
        yield traffic
        assert traffic.lost() == []
        print(f"{traffic}, none lost")
    assert (starts(), [kept_state(host) for host in mesh.hosts]) == before


def kept_state(host: BootedHost) -> dict[str, Any]:
    """The fields that state.json has had since version 0.1.0."""
    state: dict[str, Any] = json.loads(host.read_file("/var/lib/hostmesh/state.json"))
    names = ("version", "left", "leaving", "switched", "route_protocol")
    return {name: state.get(name) for name in names}


@contextmanager
def agentctl_of(host: BootedHost, package: Path) -> Iterator[Callable[[str], Completed]]:
    """Return the agentctl of a package that is not the one installed."""
    host.run(["dpkg-deb", "-x", host.copy_in(package), OTHER])
    program = [f"{OTHER}/usr/lib/hostmesh/bin/python3", "-I", "-B", f"{OTHER}/usr/bin/agentctl"]
    try:
        yield lambda verb: host.run([*program, *verb.split(), "-o", "json"], check=False)
    finally:
        host.run(["rm", "-rf", OTHER])


def failing(agentctl: Callable[[str], Completed], peer: str) -> dict[str, str]:
    """Ask the agent that runs by every verb and return those that fail."""
    found = {}
    for verb in ASKED:
        done = agentctl(verb.format(peer=peer))
        if done.returncode or not done.stdout.startswith("{"):
            found[verb] = f"{done.returncode} {done.stdout}{done.stderr}"
    return found


def test_promise_12_an_upgrade_host_by_host_and_a_downgrade_lose_nothing(mesh: Mesh) -> None:
    mesh.bring(mesh.older)
    with unchanged(mesh) as traffic:
        change_all(mesh, mesh.package, traffic)
        mesh.bring(mesh.older)
        mesh.wait_right()


@pytest.mark.full
def test_promise_12_a_downgrade_host_by_host_loses_nothing(mesh: Mesh) -> None:
    mesh.bring(mesh.package)
    with unchanged(mesh) as traffic:
        change_all(mesh, mesh.older, traffic)


@pytest.mark.full
def test_promise_12_agentctl_of_either_version_asks_the_agent_of_the_other(mesh: Mesh) -> None:
    old, new = mesh.hosts[:2]
    swap(old, mesh.older)
    swap(new, mesh.package)
    mesh.wait_right()
    with agentctl_of(old, mesh.package) as newer, agentctl_of(new, mesh.older) as older:
        assert failing(newer, new.name) == {}
        assert failing(older, old.name) == {}
        # Neither agent has a picture of the mesh: no answer can be had (docs/exit-status.md).
        mesh.lab.etcd["etcd1"].stop()
        try:
            for host in (old, new):
                host.systemctl("stop", "hostmesh-agent")
                host.run(["rm", "/var/lib/hostmesh/copy.json"])
                host.systemctl("start", "--no-block", "hostmesh-agent")
                wait_until(lambda host=host: host.status().get("source") == "agent", 20, host.name)  # type: ignore[misc]
            assert newer("diff").returncode == 3
            assert older("diff").returncode == 2
            assert old.agentctl("diff", check=False).returncode == 2
            assert new.agentctl("diff", check=False).returncode == 3
        finally:
            mesh.lab.etcd["etcd1"].start()


@pytest.mark.full
def test_promise_12_old_and_new_agents_see_each_other_leave_and_join(mesh: Mesh) -> None:
    old, new, third = mesh.hosts
    swap(old, mesh.older)
    swap(new, mesh.package)
    for package in (mesh.older, mesh.package):
        swap(third, package)
        mesh.wait_right()
        third.agentctl("leave", check=False)  # 1: Docker keeps its address while a container runs
        for host in (old, new):
            wait_until(lambda host=host: len(host.mesh_routes()) == 2, 20, f"{host.name}'s routes")  # type: ignore[misc]
        swap(third, mesh.package if package is mesh.older else mesh.older)
        assert third.status()["state"] == "left", "the other version reads that it has left"
        third.agentctl("join")
        mesh.wait_right()


@pytest.mark.full
def test_promise_12_a_level_that_an_older_host_does_not_know_costs_it_nothing(mesh: Mesh) -> None:
    old, new = mesh.hosts[:2]
    mesh.bring(mesh.package)
    new.agentctl("config", "set", "--level", "1")  # as a mesh that 0.1 created
    swap(old, mesh.older)
    mesh.wait_right()
    refused = new.agentctl("config", "set", "--level", "2", check=False)
    assert refused.returncode == Refused.exit_code
    assert old.name in refused.stderr
    mesh.bring(mesh.package)
    new.agentctl("config", "set", "--level", "2")
    mesh.wait_right()
    with unchanged(mesh):
        try:
            swap(old, mesh.older)
            mesh.lab.wait_ready(60, [old.name])
            assert len(old.mesh_routes()) == HOSTS
            assert old.conditions() == {}
        finally:
            new.agentctl("config", "set", "--level", "1")
        mesh.wait_right()


@pytest.mark.full
@pytest.mark.parametrize("first", ["older", "package"])
def test_promise_12_either_version_starts_from_the_others_copy(mesh: Mesh, first: str) -> None:
    """While etcd is away the copy of the last view is all that names the routes."""
    before, after = mesh.older, mesh.package
    if first == "package":
        before, after = after, before
    mesh.bring(before)
    mesh.wait_right()
    wanted = {host.name: host.mesh_routes() for host in mesh.hosts}
    with unchanged(mesh):
        mesh.lab.etcd["etcd1"].stop()
        try:
            for host in mesh.hosts:
                swap(host, after)
            for host in mesh.hosts:
                shown = wait_until(lambda host=host: copy_used(host), 30, host.name)  # type: ignore[misc]
                assert "from this host's copy" in shown
        finally:
            mesh.lab.etcd["etcd1"].start()
        mesh.wait_right()
    assert {host.name: host.mesh_routes() for host in mesh.hosts} == wanted


def copy_used(host: BootedHost) -> str:
    """Return the unit's status once the agent is up, "" before."""
    shown = host.unit("agent", "ActiveState", "StatusText")
    return shown["StatusText"] if shown["ActiveState"] == "active" else ""
