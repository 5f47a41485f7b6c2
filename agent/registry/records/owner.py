"""``<prefix>/owners/<host id>/<subnet>``: a lease again, under a key that only its host may write.

There is one key for each lease, so that the key's create_revision is the age of the ownership.
A host can neither backdate it nor add a subnet to an older record.
"""

from __future__ import annotations

from typing import Final

from agent.etcd.kv import Record
from agent.model import OWNERS_LEVEL, HostId, Lease
from agent.model.family import Network
from agent.model.untrusted import leasable, parse_host_id
from agent.registry.records.lease import decode_lease, encode_lease
from agent.registry.records.record_kind import RecordKind, Writer
from agent.registry.records.subnets import parse_subnet, subnet_name

__all__ = ["OWNERS"]


def _parse(name: str) -> tuple[HostId, Network]:
    host_id, _, text = name.partition("/")
    subnet = leasable(parse_subnet(text))
    if subnet_name(subnet) != text:
        raise ValueError("the key is not <host id>/<address>-<length>")
    return parse_host_id(host_id), subnet


def _decode(key: tuple[HostId, Network], record: Record) -> Lease:
    host_id, subnet = key
    lease = decode_lease(subnet, record)
    if lease.host_id != host_id:
        raise ValueError("the key and HostID differ")
    return lease


OWNERS: Final[RecordKind[tuple[HostId, Network], Lease]] = RecordKind(
    name="owners",
    pattern="<host id>/<address>-<length>",
    spell=lambda key: f"{key[0]}/{subnet_name(key[1])}",
    parse=_parse,
    decode=_decode,
    encode=encode_lease,
    writer=Writer.HOST_ID,
    ttl="24 h",
    view="owners",
    level=OWNERS_LEVEL,
)
