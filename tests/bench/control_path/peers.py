"""Records of hosts that have no agent, as agents write them, for `etcdctl txn`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from agent.model import Heartbeat, Lease
from agent.registry.records import (
    HEARTBEATS,
    LEASES,
    MEMORY,
    Keys,
    encode_heartbeat,
    encode_lease,
    encode_memory,
)
from tests.bench.control_path.large_mesh import KEYS, heartbeat_of, lease_of

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
    return [(key.decode(), value.decode()) for key, value in encoded(KEYS, lease, heartbeat)]


def encoded(keys: Keys, lease: Lease, heartbeat: Heartbeat) -> list[tuple[bytes, bytes]]:
    """Return keys and values of a host's lease, heartbeat and memory."""
    return [
        (keys.of(LEASES, lease.subnet), encode_lease(lease)),
        (keys.of(HEARTBEATS, heartbeat.host_id), encode_heartbeat(heartbeat)),
        (keys.of(MEMORY, heartbeat.host_id), encode_memory(lease.subnet)),
    ]


def node_of(number: int, link: str) -> str:
    """Return a host's node address; ``link`` is its first three numbers, such as "192.0.2"."""
    return f"{link}.{101 + number % 99}"


def joining(number: int, node_address: str) -> list[list[tuple[str, str]]]:
    """Return what a host writes that joins, one transaction after the other.

    It says that it is there, claims a lease, and says which.
    """
    lease, (key, value), memory = records_of(number, node_address)
    early = replace(heartbeat_of(number), subnet=None, node_address=IPv4Address(node_address))
    return [[(key, encode_heartbeat(early).decode())], [lease, memory], [(key, value)]]


def transactions(numbers: range, link: str, taken: str = "") -> Iterator[str]:
    """Yield what `etcdctl txn` reads, for these hosts.

    Args:
        numbers: Of the hosts.
        link: As of :func:`node_of`.
        taken: As of :func:`records_of`.
    """
    for start in range(numbers.start, numbers.stop, _OF_TXN):
        hosts = range(start, min(start + _OF_TXN, numbers.stop))
        pairs = (pair for each in hosts for pair in records_of(each, node_of(each, link), taken))
        puts = "\n".join(f"put {key} {json.dumps(value)}" for key, value in pairs)
        yield f"\n{puts}\n\n\n"
