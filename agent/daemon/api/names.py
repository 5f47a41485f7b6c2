"""``GET /v1/names``: the names of the mesh, as this host's name servers read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.dns.snapshot import LOCAL_FILE, decode_host, decode_local
from agent.errors import StateError
from agent.mesh.names.listing import ListedName, listed_names
from agent.model import HostId
from agent.model.names import OWN_LABEL, HostNames, LocalNames, NamedAddress, NameKind

__all__ = ["NamesSnapshot", "names_document", "read_snapshot"]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesSnapshot:
    """The name servers' snapshot as it is on disk.

    Attributes:
        local: None where the mesh has no names, or none were written yet.
        age_s: Seconds since the agent confirmed it.
    """

    local: LocalNames | None = None
    age_s: float = 0.0
    hosts: Mapping[HostId, HostNames] = field(default_factory=dict)


def read_snapshot(folder: Path) -> NamesSnapshot:
    """Read the snapshot; a file that is replaced meanwhile counts as before or after.

    Raises:
        StateError: It may not be read, or is damaged.
    """
    path = folder / LOCAL_FILE
    try:
        local = decode_local(path.read_bytes())
        age_s = max(0.0, time.time() - path.stat().st_mtime)
        found = [decode_host(each.read_bytes()) for each in folder.glob("*.json") if each != path]
    except FileNotFoundError:
        return NamesSnapshot()
    except PermissionError as error:
        raise StateError(
            f"{folder} cannot be read: {error.strerror}", hint="run agentctl as root"
        ) from error
    except (OSError, ValueError) as error:
        raise StateError(
            f"a file in {folder} cannot be used: {error}",
            hint="the agent writes it again: systemctl restart hostmesh-agent",
        ) from error
    return NamesSnapshot(local=local, age_s=age_s, hosts={each.host_id: each for each in found})


def names_document(snapshot: NamesSnapshot) -> dict[str, Any]:
    """Describe the names, and this host's networks: who of its containers sees which."""
    local = snapshot.local
    called = {host: _called(names) for host, names in snapshot.hosts.items()}
    return {
        "version": _VERSION,
        "host_id": local.host_id if local else None,
        "domain": local.domain if local else "",
        "complete": local is not None and local.complete,
        "age_s": round(snapshot.age_s, 1),
        "names": [_name(each, called) for each in listed_names(snapshot.hosts.values())],
        "networks": [
            {
                "name": each.name,
                "subnets": [str(subnet) for subnet in each.subnets],
                "mesh_network": each.mesh_network or None,
                "access": each.access,
                "internal": each.internal,
            }
            for each in (local.networks if local else ())
        ],
        "askers": {
            str(address): list(names) for address, names in (local.askers if local else {}).items()
        },
    }


def _called(host: HostNames) -> str:
    """Return the label of a host: its own name says it."""
    own = (name for each in host.addresses for name in each.names if name.kind is NameKind.OWN)
    found = next(own, None)
    return found.text.removesuffix(f".{OWN_LABEL}") if found else host.host_id


def _name(listed: ListedName, called: Mapping[HostId, str]) -> dict[str, Any]:
    return {
        "name": listed.text,
        "kind": listed.kind,
        "shadowed_by": listed.shadowed_by,
        "addresses": [_place(host, each, called) for host, each in listed.places],
    }


def _place(host: HostId, each: NamedAddress, called: Mapping[HostId, str]) -> dict[str, Any]:
    return {
        "address": str(each.address),
        "host_id": host,
        "host": called[host],
        "network": each.network or None,
        "mesh_network": each.mesh_network or None,
        "access": each.access,
        "healthy": each.healthy,
        "pointer": each.pointer or None,
    }
