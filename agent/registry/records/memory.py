"""``<prefix>/memory/<host id>``: the subnet that a host had last; others choose it last."""

from __future__ import annotations

from typing import Final

from agent.etcd.kv import Record
from agent.model import HostId
from agent.model.family import Network
from agent.model.untrusted import Fields, leasable, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["MEMORY", "encode_memory"]


def _decode(_: HostId, record: Record) -> Network:
    return leasable(Fields.parse(record.value).network("Subnet"))


def encode_memory(subnet: Network) -> bytes:
    """Write which subnet a host has."""
    return dump({"Subnet": str(subnet)})


MEMORY: Final[RecordKind[HostId, Network]] = RecordKind(
    name="memory",
    pattern="<host id>",
    spell=str,
    parse=parse_host_id,
    decode=_decode,
    encode=encode_memory,
    writer=Writer.HOST_ID,
    ttl="30 days",
    view="memory",
    cached=True,
)
