"""Compare every host's kernel with the leases in etcd, and what it costs with what it cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

from agent.mesh.firewall import slices_set
from agent.model.family import IPV4
from tests.expected_objects import Run, held_objects, held_sets, wanted_objects, wanted_sets
from tests.soak.actions import PREFIX, Actions

__all__ = ["LIMITS", "Cost", "cost_of", "kept", "wait_right"]

_RIGHT_S = 300.0
"""Everything that lasted has just ended: an alarm's grace time and etcd's back-offs included."""
_TABLES = ("raw", "mangle", "nat", "filter")
_COUNTERS = re.compile(r"\[\d+:\d+\]")


def wait_right(lab: Lab, actions: Actions) -> None:
    """Return when each kernel holds what the leases say, and nothing else; an error has the rest.

    Raises:
        LabError: Something is still wrong after five minutes.
    """
    seen: list[str] = []

    def right() -> bool:
        seen[:] = _wrong(lab, actions)
        return not seen

    try:
        wait_until(right, _RIGHT_S, "the kernels to be as the leases say", every_s=0.5)
    except LabError:
        lines = "\n  ".join(seen)
        raise LabError(f"not as the leases say after {_RIGHT_S:g} s:\n  {lines}") from None


def _wrong(lab: Lab, actions: Actions) -> list[str]:
    records = actions.member().keys(PREFIX)
    leases = {
        IPv4Network(key.removeprefix(f"{PREFIX}subnets/").replace("-", "/")): json.loads(value)
        for key, value in records.items()
        if key.startswith(f"{PREFIX}subnets/")
    }
    nodes = {subnet: str(lease["PublicIP"]) for subnet, lease in leases.items()}
    if sorted(nodes.values()) != sorted(actions.addresses.values()):
        return [f"leases of {sorted(nodes.values())}, hosts {sorted(actions.addresses.values())}"]
    networks: dict[str, set[str]] = {slices_set(name, IPV4): set() for name in actions.networks}
    for key, value in records.items():
        if key.startswith(f"{PREFIX}slices/"):
            name = slices_set(key.rpartition("/")[2], IPV4)
            networks.setdefault(name, set()).add(json.loads(value)["Subnet"])
    found: list[str] = []
    backend = actions.backends[0]
    for name, address in actions.addresses.items():
        host = lab.hosts[name]
        own = next(subnet for subnet, node in nodes.items() if node == address)
        peers = {subnet: node for subnet, node in nodes.items() if subnet != own}
        differs = held_objects(_runner(host), backend) ^ wanted_objects(backend, own, peers)
        differs |= held_sets(_runner(host)) ^ wanted_sets(actions.backends, peers, networks)
        found += [f"{name} differs in {sorted(differs)}"] if differs else []
        if not host.ready():
            found.append(f"{name} is not ready: {sorted(host.conditions())}")
    return found


def _runner(host: Host) -> Run:
    return lambda command: host.run(command, check=False).stdout


def kept(lab: Lab, actions: Actions) -> dict[str, list[str]]:
    """Return, by host and for etcd, all that must be again at the end as it was at the start.

    The rules of Hostmesh in order, its routes and sets, each interface but containers' own; the
    keys in etcd.
    """
    found = {name: sorted(_kept_of(lab.hosts[name])) for name in actions.addresses}
    keys = actions.member().keys(PREFIX)
    known = {key.rpartition("/")[2] for key in keys if key.startswith(f"{PREFIX}hosts/")}
    return found | {"etcd": sorted(key for key in keys if not _of_the_departed(key, known))}


def _of_the_departed(key: str, known: set[str]) -> bool:
    """Return whether a key only keeps the subnet of a host that left, for 30 days."""
    return key.startswith(f"{PREFIX}memory/") and key.rpartition("/")[2] not in known


def _kept_of(host: Host) -> Iterator[str]:
    for table in _TABLES:
        lines = [line for line in host.iptables(table) if "hostmesh" in line.lower()]
        rules = [_COUNTERS.sub("", line) for line in lines]
        yield from (f"{table} {number:03} {line}" for number, line in enumerate(rules))
    yield from (f"set {member}" for member in held_sets(_runner(host)))
    names = host.run(["ipset", "list", "-n"]).stdout.split()
    yield from (f"set {name}" for name in names)
    routes = _lines(host, "ip route show table all proto 140")
    yield from (f"route {line.strip()}" for line in routes)
    links = json.loads(host.run(["ip", "-j", "link", "show"]).stdout)
    yield from (f"link {x['ifname']}" for x in links if not x["ifname"].startswith("veth"))


def _lines(host: Host, command: str) -> list[str]:
    return host.run(command.split()).stdout.splitlines()


@dataclass(frozen=True)
class Cost:
    """The cost of a host: of its agent, its kernel and its log."""

    resident_kib: int
    threads: int
    descriptors: int
    neighbours: int
    log_bytes: int

    def grown(self, first: Cost, minutes: float) -> list[str]:
        """Return the measures that are above the first ones by more than the limits."""
        found = [
            f"{name} {getattr(first, name)} to {getattr(self, name)}, limit +{limit}"
            for name, limit in LIMITS.items()
            if getattr(self, name) > getattr(first, name) + limit
        ]
        log_limit = LOG_BASE + LOG_PER_MINUTE * minutes
        if self.log_bytes - first.log_bytes > log_limit:
            found.append(f"{self.log_bytes - first.log_bytes} bytes of log in {minutes:.0f} min")
        return found


LIMITS = {"resident_kib": 20 * 1024, "threads": 4, "descriptors": 12, "neighbours": 16}
"""How much more an agent may take than at the start of the walk, at each comparison."""
LOG_BASE, LOG_PER_MINUTE = 64 * 1024, 32 * 1024


def cost_of(host: Host) -> Cost:
    """Measure one host."""
    pid = host.services()["agent"]["pid"]
    status = host.run(["cat", f"/proc/{pid}/status"]).stdout
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Cost(
        int(fields["VmRSS"].split()[0]),
        int(fields["Threads"]),
        len(_lines(host, f"ls /proc/{pid}/fd")),
        len(_lines(host, "ip neighbour show nud permanent")),
        host.path("/var/log/agent.log").stat().st_size,
    )
