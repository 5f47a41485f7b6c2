"""Words for the tests: a host with an uplink, leases, one pass, what ``ip route`` shows."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from agent.kernel.facts import read_host_facts
from agent.kernel.tables.routes import RouteTable
from agent.kernel.uplink import choose_uplink
from agent.mesh.desired import desired_objects
from agent.mesh.object_kinds import route_kind
from agent.mesh.world import World, peers_by_subnet
from agent.model import HostId, Lease, MeshConfig, Route
from agent.model.family import Network
from agent.reconcile.interfaces import Result
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import compare
from tests.netns.netlab import Host

KIND = route_kind(140)
CIDR = IPv4Network("10.64.0.0/10")
OWN = Lease(
    subnet=IPv4Network("10.64.0.0/24"),
    node_address=IPv4Address("192.0.2.1"),
    backend="host-gw",
    host_id=HostId("0" * 32),
)
CONFIG = MeshConfig(
    cidr=CIDR,
    subnet_len=24,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.255.0"),
)


def scene(host: Host) -> Host:
    """An uplink eth0 with 192.0.2.1/24 and another interface eth1 with 198.51.100.1/24."""
    for link, address in (("eth0", "192.0.2.1/24"), ("eth1", "198.51.100.1/24")):
        host.ip(f"link add {link} type veth peer name {link}-peer")
        host.ip(f"addr add {address} dev {link}")
        host.ip(f"link set {link} up")
        host.ip(f"link set {link}-peer up")
    return host


def lease(subnet: str, node_address: str, backend: str = "host-gw") -> Lease:
    return Lease(
        subnet=IPv4Network(subnet), node_address=IPv4Address(node_address), backend=backend
    )


def world_of(
    host: Host,
    *peers: Lease,
    uplink: str = "eth0",
    complete: bool = True,
    dead: frozenset[Network] = frozenset(),
) -> World:
    """The world as the host's kernel and these leases make it now."""
    facts = host.call(read_host_facts)
    return World(
        config=CONFIG,
        own=OWN,
        peers=peers_by_subnet(peers, OWN),
        uplink=choose_uplink(facts, uplink),
        host=facts,
        complete=complete,
        dead_subnets=dead,
    )


def one_pass(world: World, table: RouteTable) -> tuple[tuple[Result[Route], ...], Plan[Route]]:
    """Do one pass as the daemon does: list, plan, apply."""
    desired = desired_objects(world)
    table.limit_foreign((CIDR,))
    tracker = compare(KIND, desired.of(Route), table.list_all())
    plan = tracker.plan(may_delete=desired.certain)
    return table.apply(plan.operations), plan


def repair(host: Host, world: World) -> tuple[tuple[Result[Route], ...], Plan[Route]]:
    """One pass in ``host``'s namespace with a table of its own, as after a restart."""
    table = RouteTable()
    try:
        return host.call(one_pass, world, table)
    finally:
        table.close()


def shown(host: Host, what: str = "proto 140") -> set[str]:
    """Return the lines that ``ip route show`` prints, without white space at the ends."""
    return {line.strip() for line in host.ip(f"route show {what}").splitlines()}
