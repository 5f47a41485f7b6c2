"""Bring up the ways between two hosts that are measured beside each other.

Each is a pair of lab hosts on one LAN with a container on either end, but for the bare hosts. The
labs are up at once, so that every round can measure each way in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

BARE, BY_HAND, SWARM = "bare hosts", "hand-made routes", "Swarm's overlay"
HOST_GW = "host-gw"
CIDR = "10.64.0.0/10"
LEASES = ("10.65.0.0/16", "10.66.0.0/16")
_READY_S = 240.0
_SWARM_NETWORK = "swarm"
Enter = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Way:
    """A way from a client to a server.

    Attributes:
        client: Returns the command line that runs a program where the client is.
        server: The same where the server is.
        address: The server's.
    """

    client: Enter
    server: Enter
    address: str


@dataclass(frozen=True)
class Engine:
    """Docker as the hosts have it: Debian's release, which has one version, and iptables."""

    suite: str
    iptables: str
    docker: str

    @property
    def name(self) -> str:
        """Return the name that its figures begin with."""
        return f"Docker {self.docker}, {self.iptables}"


ENGINES = tuple(
    Engine(suite, iptables, docker)
    for suite, docker in (("forky", "28.5"), ("trixie", "26.1"))
    for iptables in ("nft", "legacy")
)


def open_ways(
    engine: Engine, backends: Sequence[str], packages: Sequence[str], stack: ExitStack
) -> dict[str, Way]:
    """Bring up the labs, which end with the stack; return the ways by name, the limit first."""
    lab = stack.enter_context(_lab_of_peers(engine, packages))
    hosts = [lab.hosts[f"host{number}"] for number in range(1, 7)]
    found = {
        BARE: Way(hosts[4].enter, hosts[5].enter, hosts[5].address),
        BY_HAND: _by_hand(hosts[0], hosts[1]),
    }
    for backend in backends:
        options = LabOptions(
            name=f"bench-{backend}",
            hosts=2,
            suite=engine.suite,
            packages=packages,
            host=HostOptions(iptables=engine.iptables),
            backend={"Type": backend},
        )
        mesh = stack.enter_context(Lab.up(options))
        ends = mesh.hosts["host1"], mesh.hosts["host2"]
        for host in ends:
            wait_until(host.ready, _READY_S, f"{backend}: a ready agent on {host.name}")
        found[backend] = _containers(*ends)
    found[SWARM] = _swarm(hosts[2], hosts[3])
    return found


def _lab_of_peers(engine: Engine, packages: Sequence[str]) -> Lab:
    """Two hosts for routes by hand, two for Swarm, two bare ones; none has an agent."""
    docker = HostOptions(agent=False, names=False, iptables=engine.iptables)
    bare = HostOptions(agent=False, names=False, docker=False)
    differ = {f"host{number}": docker for number in (3, 4)}
    differ |= {f"host{number}": bare for number in (5, 6)}
    for number, lease in enumerate(LEASES, start=1):
        first = lease.replace(".0.0/16", ".0.1/16")
        differ[f"host{number}"] = HostOptions(
            agent=False, names=False, iptables=engine.iptables, daemon_json={"bip": first}
        )
    options = LabOptions(
        name="bench-peers",
        hosts=6,
        suite=engine.suite,
        packages=packages,
        cidr=None,
        hosts_differ=differ,
    )
    return Lab.up(options)


def _by_hand(client: Host, server: Host) -> Way:
    """Add what an operator would: a route to the other's containers, and three rules.

    Docker 28 drops in raw what does not come by the container's bridge. Both Dockers drop it in
    FORWARD, and masquerade what leaves the host.
    """
    one, two = LEASES
    for host, other, own, far in ((client, server, one, two), (server, client, two, one)):
        host.run(["ip", "route", "add", far, "via", other.address])
        for rule in rules_by_hand(own):
            host.run(["iptables", "-w", *rule])
    return _containers(client, server)


def rules_by_hand(own: str) -> list[list[str]]:
    """Return the arguments of iptables by which an operator opens a host's range to the mesh."""
    rules = (
        f"-t raw -I PREROUTING -i eth0 -s {CIDR} -d {own} -j ACCEPT",
        f"-I DOCKER-USER -i eth0 -s {CIDR} -d {own} -j ACCEPT",
        f"-t nat -I POSTROUTING -s {own} -d {CIDR} -j ACCEPT",
    )
    return [rule.split() for rule in rules]


def _swarm(client: Host, server: Host) -> Way:
    """Make a swarm of two and put the containers into an overlay network of it."""
    client.docker("swarm", "init", "--advertise-addr", client.address)
    token = client.docker("swarm", "join-token", "-q", "worker").stdout.strip()
    manager = f"{client.address}:2377"
    server.docker("swarm", "join", "--token", token, "--advertise-addr", server.address, manager)
    client.docker("network", "create", "--driver", "overlay", "--attachable", _SWARM_NETWORK)
    return _containers(client, server, _SWARM_NETWORK)


def _containers(client: Host, server: Host, network: str | None = None) -> Way:
    client.start_container("bench", network=network)
    address = server.start_container("bench", network=network)
    return Way(_inside(client), _inside(server), address)


def _inside(host: Host) -> Enter:
    """Run the host's programs in the container's network."""
    pid = str(host.inspect("bench")["State"]["Pid"])

    def enter(argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        return host.enter(["nsenter", "-t", pid, "-n", *argv], env)

    return enter
