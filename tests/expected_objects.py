"""The kernel objects that the leases in etcd call for on one host, and those that it holds.

Read from etcd and with iproute2, wg and ipset only, so that an agent's own report proves nothing
here. For hosts that are all on one link.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network
from itertools import pairwise

__all__ = [
    "AGGREGATE",
    "TUNNELS",
    "Run",
    "held_objects",
    "held_sets",
    "wanted_objects",
    "wanted_sets",
]

Run = Callable[[list[str]], str]
"""Run a command on the host and return what it prints."""

AGGREGATE = "unreachable 10.64.0.0/10"
TUNNELS = {"vxlan": "hm-vxlan", "wireguard": "hm-wg"}
_UPLINK = "eth0"


def wanted_objects(
    backend: str, own: IPv4Network, peers: Mapping[IPv4Network, str], *, direct: bool = False
) -> set[str]:
    """Return the routes to peers, and of a tunnel where each peer's packets go.

    Args:
        own: The host's subnet.
        peers: The other hosts' node addresses by subnet.
        direct: Routes past the tunnel, as host-gw has them.
    """
    if direct or backend == "host-gw":
        return {AGGREGATE, *(f"{s} via {a} dev {_UPLINK}" for s, a in peers.items())}
    link, source = TUNNELS[backend], own.network_address
    if backend == "wireguard":
        return {
            AGGREGATE,
            *(f"{s} dev {link} src {source}" for s in peers),
            *(f"peer {address}:51820 {s}" for s, address in peers.items()),
        }
    return {
        AGGREGATE,
        *(f"{s} via {s[0]} dev {link} src {source} onlink" for s in peers),
        *(f"fdb {address}" for address in peers.values()),
        *(f"neighbour {s[0]}" for s in peers),
    }


def held_objects(run: Run, backend: str) -> set[str]:
    """Return what the kernel holds of the kinds that :func:`wanted_objects` lists."""
    shown = run(["ip", "route", "show", "proto", "140"]).splitlines()
    found = {line.strip() for line in shown}
    link = TUNNELS.get(backend, "")
    if backend == "vxlan":
        table = run(["bridge", "fdb", "show", "dev", link]).split()
        found |= {f"fdb {value}" for word, value in pairwise(table) if word == "dst"}
        permanent = run(["ip", "neigh", "show", "dev", link, "nud", "permanent"])
        found |= {f"neighbour {line.split()[0]}" for line in permanent.splitlines()}
    if backend == "wireguard":
        rows = [line.split("\t") for line in run(["wg", "show", link, "dump"]).splitlines()[1:]]
        found |= {f"peer {row[2]} {row[3]}" for row in rows}
    return found


def wanted_sets(
    backends: Collection[str],
    peers: Mapping[IPv4Network, str],
    networks: Mapping[str, Collection[str]],
) -> set[str]:
    """Return who may deliver by which interface, and the slices of each mesh network.

    Args:
        backends: The present one, and during a change also the other one.
        networks: The slices by the name of the network's set.
    """
    sources = [*map(str, peers), *peers.values()]
    links = {TUNNELS[each] for each in backends if each in TUNNELS}
    links |= {_UPLINK} if set(backends) - {"wireguard"} else set()
    found = {f"hostmesh-in-{link} {source}" for link in links for source in sources}
    return found | {f"{name} {slice_}" for name, slices in networks.items() for slice_ in slices}


def held_sets(run: Run) -> set[str]:
    """Return what the kernel's sets hold of what :func:`wanted_sets` lists."""
    added = [line.split() for line in run(["ipset", "save"]).splitlines() if line[:4] == "add "]
    return {
        f"{name} {member}"
        for _, name, member, *_ in added
        if name.startswith(("hostmesh-in-", "hostmesh-net-"))
    }
