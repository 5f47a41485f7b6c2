"""``<prefix>/reservations/<subnet>``: a subnet that only the named host may claim."""

from __future__ import annotations

from typing import Final

from agent.etcd.kv import Record
from agent.model import HostId
from agent.model.family import Network
from agent.model.untrusted import Fields, leasable, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump
from agent.registry.records.subnets import parse_subnet, subnet_name

__all__ = ["RESERVATIONS", "encode_reservation"]


def _parse(name: str) -> Network:
    subnet = leasable(parse_subnet(name))
    if subnet_name(subnet) != name:  # an IPv6 half is flannel's, and flannel reserves nothing here
        raise ValueError("the key is not an IPv4 network as <address>-<length>")
    return subnet


def _decode(_: Network, record: Record) -> HostId:
    return parse_host_id(Fields.parse(record.value).text("HostID"))


def encode_reservation(host_id: HostId) -> bytes:
    """Write for which host a subnet is reserved."""
    return dump({"HostID": host_id})


RESERVATIONS: Final[RecordKind[Network, HostId]] = RecordKind(
    name="reservations",
    pattern="<address>-<length>",
    spell=subnet_name,
    parse=_parse,
    decode=_decode,
    encode=encode_reservation,
    writer=Writer.OPERATOR,
    view="reservations",
    cached=True,
)
