"""Read the addresses that this host needs beside the mesh: etcd, gateways, resolvers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from agent.mesh.needed import gateways
from agent.model import HostFacts, Need, Needed
from agent.model.domain import MOST_BYTES, parse_resolv_conf
from agent.model.family import Address, read_address

__all__ = ["needed_addresses"]

_RESOLVERS: Final = ("etc/resolv.conf", "run/systemd/resolve/resolv.conf")
"""The second is what systemd-resolved asks itself, while the first names its own address."""
_MOST: Final = 16
_OF_EACH: Final = 4
"""So many of each kind are kept in any case: etcd's many addresses displace no resolver."""


def needed_addresses(
    host: HostFacts, endpoints: Iterable[Address], root: Path = Path("/")
) -> tuple[Needed, ...]:
    """Return etcd's endpoints, the resolvers and the default gateways, no address of this host.

    Args:
        host: A fresh look.
        endpoints: Addresses of etcd's endpoints, as far as they are known, in order.
        root: Where the file system begins, for tests.
    """
    own = {each.ip for link in host.links for each in link.addresses}
    kinds = tuple(
        [
            Needed(each, need)
            for each in dict.fromkeys(addresses)
            if each not in own and not each.is_loopback
        ]
        for need, addresses in (
            (Need.ETCD, endpoints),
            (Need.GATEWAY, gateways(host)),
            (Need.RESOLVER, (each for name in _RESOLVERS for each in _resolvers(root / name))),
        )
    )
    firsts = (each for kind in kinds for each in kind[:_OF_EACH])
    others = (each for kind in kinds for each in kind[_OF_EACH:])
    kept = frozenset(islice((*firsts, *others), _MOST))
    return tuple(each for kind in kinds for each in kind if each in kept)


def _resolvers(path: Path) -> Iterator[Address]:
    """Yield the name servers of a resolv.conf; a file that cannot be read names none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_BYTES)
    except OSError:
        return
    for server in parse_resolv_conf(text).servers:
        try:
            yield read_address(server)
        except ValueError:  # of a family that is not enabled
            continue
