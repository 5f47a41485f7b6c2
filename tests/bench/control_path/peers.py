"""Records of hosts that have no agent, as agents write them, for `etcdctl txn`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from agent.model import Heartbeat
from agent.registry.records import (
    HEARTBEATS,
    LEASES,
    MEMORY,
    encode_heartbeat,
    encode_lease,
    encode_memory,
)
from tests.bench.control_path.large_mesh import KEYS, heartbeat_of, identity, lease_of

_SPARE = 12_000
"""Takes the subnet of a host whose own is in use."""
_OF_TXN = 33
"""Hosts of a transaction: three records each, and etcd takes 128 operations."""


def subnet_of(number: int, first: str = "10.80.0.0") -> IPv4Network:
    """Return the /24 of host ``number``."""
    return IPv4Network((int(IPv4Address(first)) + number * 256, 24))


def records_of(number: int, node_address: str, taken: str = "") -> list[tuple[str, str]]:
    """Return lease, heartbeat and memory of host ``number``, which never expire.

    Args:
        number: Of the host.
        node_address: Of the host.
        taken: A subnet that it must leave to an agent.
    """
    subnet, address = subnet_of(number), IPv4Address(node_address)
    if str(subnet) == taken:
        subnet = subnet_of(_SPARE)
    lease = replace(lease_of(number), subnet=subnet, node_address=address)
    heartbeat: Heartbeat = replace(heartbeat_of(number), subnet=subnet, node_address=address)
    host = identity(number)
    found = (
        (KEYS.of(LEASES, subnet), encode_lease(lease)),
        (KEYS.of(HEARTBEATS, host), encode_heartbeat(heartbeat)),
        (KEYS.of(MEMORY, host), encode_memory(subnet)),
    )
    return [(key.decode(), value.decode()) for key, value in found]


def transactions(numbers: range, link: str, taken: str = "") -> Iterator[str]:
    """Yield what `etcdctl txn` reads, for these hosts.

    Args:
        numbers: Of the hosts.
        link: The first three numbers of their node addresses, such as "192.0.2".
        taken: As of :func:`records_of`.
    """
    for start in range(numbers.start, numbers.stop, _OF_TXN):
        hosts = range(start, min(start + _OF_TXN, numbers.stop))
        nodes = ((each, f"{link}.{101 + each % 99}") for each in hosts)
        pairs = (pair for number, node in nodes for pair in records_of(number, node, taken))
        puts = "\n".join(f"put {key} {json.dumps(value)}" for key, value in pairs)
        yield f"\n{puts}\n\n\n"
