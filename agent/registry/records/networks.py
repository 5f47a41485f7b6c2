"""``<prefix>/networks/<name>``: what the operator says of a mesh network."""

from __future__ import annotations

import re
from typing import Final

from agent.etcd.kv import Record
from agent.model import NETWORKS_LEVEL, Access
from agent.model.network import (
    DEFAULT_SLICE,
    LONGEST_SLICE,
    SHORTEST_SLICE,
    MeshNetwork,
    parse_network_name,
)
from agent.model.untrusted import Fields
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["MAX_HOST_PATTERNS", "NETWORKS", "encode_network", "parse_host_pattern"]

MAX_HOST_PATTERNS: Final = 64
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?-]{1,253}")


def parse_host_pattern(text: str) -> str:
    """Return a host id, or a pattern of host names.

    Raises:
        ValueError: It is neither.
    """
    if not _PATTERN.fullmatch(text):
        raise ValueError("not a host id or a pattern of host names with * and ?")
    return text


def _decode(name: str, record: Record) -> MeshNetwork:
    fields = Fields.parse(record.value)
    access = fields.text("Access", default="", longest=16)
    if access and access not in set(Access):
        raise ValueError(f"Access is none of {', '.join(Access)}")
    hosts = fields.texts("Hosts", MAX_HOST_PATTERNS)
    return MeshNetwork(
        name=name,
        access=Access(access) if access else None,
        hosts=tuple(map(parse_host_pattern, hosts)),
        length=fields.integer("SliceLen", SHORTEST_SLICE, LONGEST_SLICE, default=DEFAULT_SLICE),
        removed=fields.flag("Removed", default=False),
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
    )


def encode_network(network: MeshNetwork) -> bytes:
    """Write what the operator says of a mesh network."""
    fields = {
        "Access": network.access,
        "Hosts": list(network.hosts),
        "SliceLen": network.length,
        "Removed": network.removed,
    }
    return dump({name: value for name, value in fields.items() if value})


NETWORKS: Final[RecordKind[str, MeshNetwork]] = RecordKind(
    name="networks",
    pattern="<name>",
    spell=str,
    parse=parse_network_name,
    decode=_decode,
    encode=encode_network,
    writer=Writer.OPERATOR,
    view="networks",
    cached=True,
    lasting=True,
    most=4096,
    level=NETWORKS_LEVEL,
)
