"""The kinds of records in etcd, each declared once in a module of its own.

Adding a kind takes a module that makes a :class:`RecordKind` and its name in ``KINDS``.
docs/architecture.md has the steps.
"""

from __future__ import annotations

from agent.registry.records.config import CONFIG, decode_config, encode_config
from agent.registry.records.coordination import GRACE, LOCKS, LockRecord
from agent.registry.records.endpoints import ENDPOINTS, encode_endpoint, endpoint_key
from agent.registry.records.heartbeat import CLONES, HEARTBEATS, encode_heartbeat
from agent.registry.records.keys import KINDS, Keys
from agent.registry.records.lease import LEASES, check_lease, decode_boot_id, encode_lease
from agent.registry.records.memory import MEMORY, encode_memory
from agent.registry.records.networks import NETWORKS, encode_network
from agent.registry.records.owner import OWNERS
from agent.registry.records.record_kind import RecordKind, Writer
from agent.registry.records.reservation import RESERVATIONS, encode_reservation
from agent.registry.records.slices import SLICES, encode_slice
from agent.registry.records.subnets import SHORTEST_RANGE, KeyRange, without_key

__all__ = [
    "CLONES",
    "CONFIG",
    "ENDPOINTS",
    "GRACE",
    "HEARTBEATS",
    "KINDS",
    "LEASES",
    "LOCKS",
    "MEMORY",
    "NETWORKS",
    "OWNERS",
    "RESERVATIONS",
    "SHORTEST_RANGE",
    "SLICES",
    "KeyRange",
    "Keys",
    "LockRecord",
    "RecordKind",
    "Writer",
    "check_lease",
    "decode_boot_id",
    "decode_config",
    "encode_config",
    "encode_endpoint",
    "encode_heartbeat",
    "encode_lease",
    "encode_memory",
    "encode_network",
    "encode_reservation",
    "encode_slice",
    "endpoint_key",
    "without_key",
]
