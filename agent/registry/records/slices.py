"""``<prefix>/slices/<host id>/<network>``: a host's part of a mesh network."""

from __future__ import annotations

from typing import Final

from agent.etcd.kv import Record
from agent.model import NETWORKS_LEVEL, HostId
from agent.model.network import LONGEST_SLICE, NetworkSlice, parse_network_name
from agent.model.untrusted import Fields, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["SLICES", "encode_slice"]


def _parse(name: str) -> tuple[HostId, str]:
    host_id, _, network = name.partition("/")
    return parse_host_id(host_id), parse_network_name(network)


def _decode(key: tuple[HostId, str], record: Record) -> NetworkSlice:
    host_id, network = key
    fields = Fields.parse(record.value)
    subnet = fields.network("Subnet")
    if subnet.prefixlen > LONGEST_SLICE:
        raise ValueError(f"Subnet {subnet} is too small for a container")
    return NetworkSlice(
        host_id=host_id,
        network=network,
        subnet=subnet,
        since_s=fields.time_s("Since"),
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
    )


def encode_slice(found: NetworkSlice) -> bytes:
    """Write which subnet a host's slice has, and since when."""
    since = {} if found.since_s is None else {"Since": found.since_s}
    return dump({"Subnet": str(found.subnet), **since})


SLICES: Final[RecordKind[tuple[HostId, str], NetworkSlice]] = RecordKind(
    name="slices",
    pattern="<host id>/<network>",
    spell="/".join,
    parse=_parse,
    decode=_decode,
    encode=encode_slice,
    writer=Writer.HOST_ID,
    ttl="24 h",
    view="slices",
    cached=True,
    level=NETWORKS_LEVEL,
)
