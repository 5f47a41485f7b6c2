"""A host with a vxlan device, and for each peer a route, a neighbour and a forwarding entry.

Run as a program it reconciles for ever between two sets of peers, until it is killed:

    python -m tests.netns.tables.tunnel COUNT
"""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from agent.kernel.tables.addresses import AddressTable
from agent.kernel.tables.links import LinkTable
from agent.kernel.tables.neighbours import FdbTable, NeighbourTable
from agent.kernel.tables.routes import RouteTable
from agent.mesh.object_kinds import ADDRESS, FDB, LINK, NEIGHBOUR, route_kind
from agent.model import FdbEntry, LinkAddress, LinkSpec, Neighbour, Route, VxlanOptions
from agent.reconcile.reconciler import Permission, Reconciler, Report, reconcile

NAME = "hm-vx"
MAC = "02:00:00:00:00:01"
HOST = IPv4Address("192.0.2.1")
DEVICE = LinkSpec(
    name=NAME,
    kind="vxlan",
    mac=MAC,
    mtu=1450,
    options=VxlanOptions(vni=7, port=4790, local=HOST, underlay="eth0"),
)
ADDRESS_HERE = LinkAddress(link=NAME, interface=IPv4Interface("10.64.0.0/32"))


def mac_of(number: int, generation: int = 0) -> str:
    return f"02:{generation:02x}:00:00:{number >> 8:02x}:{number & 255:02x}"


def peer(number: int, generation: int = 0) -> tuple[Route, Neighbour, FdbEntry]:
    """Return the objects for one peer; its MAC and its node address depend on the generation."""
    subnet = IPv4Network((int(IPv4Address("10.65.0.0")) + number * 256, 24))
    inner, mac = subnet.network_address, mac_of(number, generation)
    return (
        Route(
            destination=subnet,
            gateway=inner,
            link=NAME,
            prefsrc=ADDRESS_HERE.interface.ip,
            protocol=140,
            onlink=True,
            mtu=1400,
        ),
        Neighbour(link=NAME, address=inner, mac=mac),
        FdbEntry(link=NAME, mac=mac, destination=HOST + 1 + (number + generation) % 200),
    )


class Tunnel:
    """Reconcilers of every kind, as the agent has them. Call it in the host's namespace."""

    def __init__(self) -> None:
        self.links = Reconciler(LINK, LinkTable(), clock=time.monotonic)
        self.addresses = Reconciler(ADDRESS, AddressTable(), clock=time.monotonic)
        self.neighbours = Reconciler(NEIGHBOUR, NeighbourTable(), clock=time.monotonic)
        self.fdb = Reconciler(FDB, FdbTable(), clock=time.monotonic)
        self.routes = Reconciler(route_kind(140), RouteTable(), clock=time.monotonic)
        self.all: tuple[Reconciler[Any], ...] = (
            self.links,
            self.addresses,
            self.neighbours,
            self.fdb,
            self.routes,
        )

    def want(self, objects: Iterable[Any]) -> None:
        """Desire exactly these."""
        by_kind: dict[type, dict[Hashable, Any]] = {}
        for each in objects:
            by_kind.setdefault(type(each), {})[each.key] = each
        for one, kind in zip(
            self.all, (LinkSpec, LinkAddress, Neighbour, FdbEntry, Route), strict=True
        ):
            wanted: Mapping[Hashable, Any] = by_kind.get(kind, {})
            gone = one.desired.keys() - wanted.keys()
            one.want({**dict.fromkeys(gone), **wanted}, known_gone=True)

    def want_peers(self, count: int, generation: int = 0) -> None:
        """Desire the device and what belongs to so many peers."""
        peers = (each for number in range(count) for each in peer(number, generation))
        self.want((DEVICE, ADDRESS_HERE, *peers))

    def run(self) -> tuple[Report[Any], ...]:
        """List everything and make it so."""
        for each in self.all:
            each.look_again()
        return self.step()

    def step(self) -> tuple[Report[Any], ...]:
        """Run a pass that lists only where that is due."""
        return reconcile(self.all, Permission(may_delete=True))

    def settle(self) -> None:
        """Make it so, and see that a second pass finds nothing to do."""
        first = self.run()
        assert [each.failed for each in first] == [0] * 5, [each.conditions for each in first]
        second = self.run()
        assert all(each.complete and each.differing == 0 for each in second)
        assert [each.done for each in second] == [()] * 5, "promise 6"


if __name__ == "__main__":
    made, generation = Tunnel(), 0
    while True:
        made.want_peers(int(sys.argv[1]) - generation, generation)
        made.run()
        print(generation, flush=True)
        generation = 1 - generation
