"""``<prefix>/subnets/<subnet>``: the lease of a subnet, in flannel's JSON with ours behind it.

flannel's side of the format is its pkg/lease/lease.go (LeaseAttrs).
"""

from __future__ import annotations

from typing import Any, Final

from agent.etcd.kv import Record
from agent.model import Lease, MeshConfig
from agent.model.family import Network
from agent.model.untrusted import OURS, Fields, clean_name, leasable, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump
from agent.registry.records.subnets import parse_subnet, subnet_name

__all__ = ["LEASES", "check_lease", "decode_boot_id", "decode_lease", "encode_lease"]

_MAX_TTL_S: Final = 400 * 86_400
_ACCEPTS: Final = "Accepts"
_LINK, _MTU = "Link", "MTU"
_MAX_MTU: Final = 2**31 - 1
"""Of a loopback; the kernel keeps an int."""
_FLANNELS: Final = Fields({})
"""The agent's fields in a flannel host's lease: none."""


def decode_lease(subnet: Network, record: Record) -> Lease:
    """Read a lease; not yet held against a mesh."""
    fields = Fields.parse(record.value)
    ours = fields.object(OURS)
    if ours is None or not ours.has("HostID"):
        ours = _FLANNELS
    return Lease(
        subnet=leasable(subnet),
        node_address=fields.node_address("PublicIP"),
        backend=fields.text("BackendType", default="alloc", longest=32),
        host_id=parse_host_id(ours.text("HostID")) if ours is not _FLANNELS else None,
        host_name=ours.text("HostName", default=""),
        claimed_s=ours.time_s("Claimed"),
        renewed_s=ours.time_s("Renewed"),
        ttl_s=ours.integer("TTL", 1, _MAX_TTL_S) if ours.has("TTL") else None,
        backend_data=fields.backend_data("BackendData"),
        accepted=ours.backend_choice(_ACCEPTS, "Data"),
        link=ours.text(_LINK, default=""),
        mtu=ours.integer(_MTU, 0, _MAX_MTU, default=0),
        etcd_lease_id=record.lease_id,
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
    )


def check_lease(lease: Lease, config: MeshConfig) -> str:
    """Say why a lease is not usable in this mesh, "" when it is (promise 8)."""
    if not config.holds(lease.subnet):
        within = " or ".join(map(str, config.cidrs))
        return f"{lease.subnet} is not a part of the mesh's CIDR {within}"
    around = next((each for each in config.cidrs if lease.node_address in each), None)
    if around is not None:
        return f"node address {lease.node_address} is inside the mesh's CIDR {around}"
    return ""


def decode_boot_id(record: Record) -> str:
    """Read which boot of the host wrote a lease, "" when the record does not say.

    Apart from the lease: only the host itself ever asks, about one record.
    """
    try:
        ours = Fields.parse(record.value).object(OURS)
        return ours.text("BootID", default="", longest=64) if ours else ""
    except ValueError:
        return ""


def encode_lease(lease: Lease, *, boot_id: str = "") -> bytes:
    """Write a lease as flannel does, ours at the end where flannel ignores it.

    Args:
        lease: With a host id; times in seconds since 1970 by the owner's clock.
        boot_id: Of the host, so that it later tells its own lease from a clone's.
    """
    fields: dict[str, Any] = {
        "PublicIP": str(lease.node_address),
        "PublicIPv6": None,
        "BackendType": lease.backend,
    }
    if lease.backend_data is not None:
        fields["BackendData"] = lease.backend_data.fields
    fields[OURS] = {
        "HostID": lease.host_id,
        "HostName": clean_name(lease.host_name),
        "Claimed": lease.claimed_s,
        "Renewed": lease.renewed_s,
        "TTL": lease.ttl_s,
    }
    if lease.accepted is not None:
        data = lease.accepted.data
        fields[OURS][_ACCEPTS] = {
            "Type": lease.accepted.name,
            **({"Data": data.fields} if data else {}),
        }
    if lease.link:
        fields[OURS][_LINK] = lease.link
    if lease.mtu:
        fields[OURS][_MTU] = lease.mtu
    if boot_id:
        fields[OURS]["BootID"] = boot_id
    return dump(fields)


LEASES: Final[RecordKind[Network, Lease]] = RecordKind(
    name="subnets",
    pattern="<address>-<length>",
    spell=subnet_name,
    parse=parse_subnet,
    decode=decode_lease,
    encode=encode_lease,
    writer=Writer.HOST,
    ttl="24 h",
    view="leases",
    cached=True,
)
