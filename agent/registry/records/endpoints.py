"""``<prefix>/endpoints/<host id>/<container>``: a running container, with its names and addresses.

They change far more often than all other records, so they are followed in a stream of their own.
"""

from __future__ import annotations

import re
from typing import Any, Final

from agent.etcd.kv import Record
from agent.model import NETWORKS_LEVEL, Access, HostId
from agent.model.endpoint import (
    ENDPOINTS_MOST,
    LONGEST_NAME,
    NAMES_MOST,
    Endpoint,
    EndpointAddress,
    Health,
)
from agent.model.network import parse_network_name
from agent.model.untrusted import Fields, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["ENDPOINTS", "encode_endpoint", "endpoint_key"]

_MOST_ADDRESSES: Final = 32
_KEY_DIGITS: Final = 16
_KEY: Final = re.compile(rf"[0-9a-f]{{{_KEY_DIGITS}}}")
_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")
_HOSTS: Final = 65_536


def endpoint_key(endpoint: Endpoint) -> tuple[HostId, str]:
    """Return the key of an endpoint: its host, and the first digits of the container's id."""
    return endpoint.host_id, endpoint.container_id[:_KEY_DIGITS]


def _parse(name: str) -> tuple[HostId, str]:
    host_id, _, container = name.partition("/")
    if not _KEY.fullmatch(container):
        raise ValueError(f"the key is not <host id>/<{_KEY_DIGITS} hex digits>")
    return parse_host_id(host_id), container


def _decode(key: tuple[HostId, str], record: Record) -> Endpoint:
    host_id, container = key
    fields = Fields.parse(record.value)
    container_id = fields.text("ID")
    if not _CONTAINER_ID.fullmatch(container_id) or not container_id.startswith(container):
        raise ValueError("ID is not the id of the key's container")
    health = fields.text("Health", default=Health.NONE, longest=16)
    return Endpoint(
        host_id=host_id,
        container_id=container_id,
        name=fields.text("Name", longest=LONGEST_NAME),
        project=fields.text("Project", default="", longest=LONGEST_NAME),
        service=fields.text("Service", default="", longest=LONGEST_NAME),
        health=Health(health) if health in set(Health) else Health.NONE,
        addresses=tuple(map(_address, fields.objects("Networks", _MOST_ADDRESSES))),
        boot_id=fields.text("BootID", default="", longest=64),
        mod_revision=record.mod_revision,
    )


def _address(fields: Fields) -> EndpointAddress:
    access = fields.text("Access", default=Access.PUBLISHED, longest=16)
    mesh_network = fields.text("Mesh", default="")
    return EndpointAddress(
        network=fields.text("Name", longest=LONGEST_NAME),
        address=fields.address("Address"),
        mesh_network=parse_network_name(mesh_network) if mesh_network else "",
        access=Access(access) if access in set(Access) else Access.CLOSED,
        aliases=fields.texts("Aliases", NAMES_MOST, longest=LONGEST_NAME),
    )


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Write what other hosts need of a container."""
    fields = {
        "ID": endpoint.container_id,
        "Name": endpoint.name,
        "Project": endpoint.project,
        "Service": endpoint.service,
        "Health": "" if endpoint.health is Health.NONE else endpoint.health,
        "BootID": endpoint.boot_id,
        "Networks": [_written(each) for each in endpoint.addresses],
    }
    return dump({name: value for name, value in fields.items() if value})


def _written(place: EndpointAddress) -> dict[str, Any]:
    fields = {
        "Name": place.network,
        "Address": str(place.address),
        "Mesh": place.mesh_network,
        "Access": "" if place.access is Access.PUBLISHED else place.access,
        "Aliases": list(place.aliases),
    }
    return {name: value for name, value in fields.items() if value}


ENDPOINTS: Final[RecordKind[tuple[HostId, str], Endpoint]] = RecordKind(
    name="endpoints",
    pattern="<host id>/<container>",
    spell="/".join,
    parse=_parse,
    decode=_decode,
    encode=encode_endpoint,
    writer=Writer.HOST_ID,
    ttl="24 h",
    apart=True,
    largest_bytes=4096,
    most=_HOSTS * ENDPOINTS_MOST,
    level=NETWORKS_LEVEL,
)
"""A reader takes as many of one host as :data:`agent.model.endpoint.ENDPOINTS_MOST`."""
