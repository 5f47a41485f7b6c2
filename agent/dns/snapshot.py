"""The name server's snapshot: files that the agent writes and the server reads.

One folder has a file for each host that publishes names, ``HOST_ID.json``, and ``local.json``
about this host. Each is replaced in one step, so a change of one host's containers costs that
host's file. The agent sets the time of ``local.json`` again at least every ``TOUCH_S`` while it
knows this host's containers; ``LocalNames.complete`` says that it knows the whole mesh, too.

Writers put every name of an address into the host's file; the server decides between names that
are equal: the first kind of ``NameKind`` answers, and healthy addresses before others.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from agent.model.domain import parse_domain
from agent.model.mesh import Access, HostId
from agent.model.names import (
    MOST_ADDRESSES,
    MOST_ASKERS,
    MOST_NAMES,
    MOST_NETWORKS,
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)
from agent.model.untrusted import Fields, parse_host_id

__all__ = [
    "FRESH_S",
    "LOCAL_FILE",
    "MOST_BYTES",
    "TOUCH_S",
    "decode_host",
    "decode_local",
    "encode_host",
    "encode_local",
    "host_file",
    "names_folder",
]

LOCAL_FILE: Final = "local.json"

TOUCH_S: Final = 20.0
FRESH_S: Final = 60.0
"""Age of ``local.json`` from which it proves no absence: the agent does not run."""

MOST_BYTES: Final = 16 << 20

_FORMAT: Final = 1
_LONGEST: Final = 127
_LINK: Final = re.compile(r"[^/\s]{1,15}", re.ASCII)


def names_folder(state_dir: Path) -> Path:
    """Return the snapshot's folder below the agent's state directory."""
    return state_dir / "names"


def host_file(folder: Path, host_id: HostId) -> Path:
    """Return the path of a host's file."""
    return folder / f"{host_id}.json"


def encode_host(host: HostNames) -> bytes:
    """Return a host's file; equal values give equal bytes.

    Raises:
        ValueError: More addresses than readers take.
    """
    if len(host.addresses) > MOST_ADDRESSES:
        raise ValueError(f"{host.host_id} has more than {MOST_ADDRESSES} addresses")
    rows = [_address_row(each) for each in host.addresses]
    return _json({"format": _FORMAT, "host": host.host_id, "addresses": rows})


def encode_local(local: LocalNames) -> bytes:
    """Return ``local.json``."""
    networks = [
        {
            "name": each.name,
            "bridge": each.bridge,
            "subnets": [str(subnet) for subnet in each.subnets],
            "mesh_network": each.mesh_network,
            "access": each.access,
            "internal": each.internal,
        }
        for each in local.networks
    ]
    return _json(
        {
            "format": _FORMAT,
            "domain": local.domain,
            "host": local.host_id,
            "boot_id": local.boot_id,
            "serial": local.serial,
            "complete": local.complete,
            "ranges": [str(each) for each in local.ranges],
            "networks": networks,
            "askers": [
                {"address": str(address), "networks": list(names)}
                for address, names in local.askers.items()
            ],
        }
    )


def decode_host(content: bytes) -> HostNames:
    """Read a host's file.

    Raises:
        ValueError: It is damaged, too large, or of another format.
    """
    fields = _fields(content)
    rows = fields.objects("addresses", MOST_ADDRESSES)
    return HostNames(
        host_id=parse_host_id(fields.text("host")), addresses=tuple(map(_read_address_row, rows))
    )


def decode_local(content: bytes) -> LocalNames:
    """Read ``local.json``.

    Raises:
        ValueError: It is damaged, too large, or of another format.
    """
    fields = _fields(content)
    askers = {
        each.address("address"): each.texts("networks", MOST_NETWORKS)
        for each in fields.objects("askers", MOST_ASKERS)
    }
    return LocalNames(
        domain=parse_domain(fields.text("domain")),
        host_id=parse_host_id(fields.text("host")),
        boot_id=fields.text("boot_id", longest=36),
        serial=fields.integer("serial", 0, 2**53, default=0),
        complete=fields.flag("complete", default=False),
        ranges=fields.networks("ranges", 16),
        networks=tuple(map(_read_network, fields.objects("networks", MOST_NETWORKS))),
        askers=askers,
    )


def _fields(content: bytes) -> Fields:
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file has more than {MOST_BYTES} bytes")
    fields = Fields.parse(content)
    fields.integer("format", _FORMAT, _FORMAT)
    return fields


def _address_row(each: NamedAddress) -> dict[str, Any]:
    row: dict[str, Any] = {
        "address": str(each.address),
        "names": _by_kind(each.names),
        "network": each.network,
        "access": each.access,
    }
    if each.mesh_network:
        row["mesh_network"] = each.mesh_network
    if not each.healthy:
        row["healthy"] = False
    if each.pointer:
        row["pointer"] = each.pointer
    return row


def _by_kind(names: tuple[Name, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.kind, []).append(name.text)
    return found


def _read_address_row(row: Fields) -> NamedAddress:
    return NamedAddress(
        address=row.address("address"),
        names=_read_names(row.object("names")),
        network=row.text("network", default=""),
        mesh_network=row.text("mesh_network", default="", longest=63),
        access=Access(row.text("access", default=Access.PUBLISHED)),
        healthy=row.flag("healthy", default=True),
        pointer=row.text("pointer", default="", longest=_LONGEST),
    )


def _read_names(by_kind: Fields | None) -> tuple[Name, ...]:
    if by_kind is None:
        return ()
    return tuple(Name(text, kind) for kind in NameKind for text in by_kind.texts(kind, MOST_NAMES))


def _read_network(row: Fields) -> LocalNetwork:
    bridge = row.text("bridge", longest=15)
    if not _LINK.fullmatch(bridge):
        raise ValueError("bridge is not the name of a link")
    return LocalNetwork(
        name=row.text("name"),
        bridge=bridge,
        subnets=row.networks("subnets", 16),
        mesh_network=row.text("mesh_network", default="", longest=63),
        access=Access(row.text("access", default=Access.PUBLISHED)),
        internal=row.flag("internal", default=False),
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
