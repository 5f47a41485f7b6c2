"""``<prefix>/hosts/<host id>``: a host's agent is alive; ``clones/…``: it found its id in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agent.etcd.kv import Record
from agent.model import (
    LEVEL_OF_0_1,
    MAX_LEVEL,
    DockerState,
    Heartbeat,
    HostId,
    HostSummary,
    Need,
    Needed,
)
from agent.model.family import Address, Network, read_address
from agent.model.untrusted import Fields, clean_name, leasable, parse_host_id
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["CLONES", "HEARTBEATS", "encode_heartbeat"]

_NEEDS: Final = "Needs"
_CONDITIONS: Final = "Conditions"
_MOST_CONDITIONS: Final = 8
_CONDITION: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_LONGEST_CONDITION: Final = 40
_CONTAINERS: Final = "Containers"
_MOST_CONTAINERS: Final = 1_000_000
_MOST_NEEDS: Final = 16
_NEED_NAMES: Final[Mapping[str, Need]] = MappingProxyType(
    {"Etcd": Need.ETCD, "Gateway": Need.GATEWAY, "Resolver": Need.RESOLVER}
)


def _decode(host_id: HostId, record: Record) -> Heartbeat:
    fields = Fields.parse(record.value)
    docker = fields.text("Docker", default=DockerState.ABSENT, longest=16)
    known = docker in set(DockerState)
    subnet = leasable(fields.network("Subnet")) if fields.has("Subnet") else None
    return Heartbeat(
        host_id=host_id,
        host_name=fields.text("HostName", default=""),
        node_address=fields.node_address("NodeAddress") if fields.has("NodeAddress") else None,
        subnet=subnet,
        docker=DockerState(docker) if known else DockerState.PENDING,
        agent_version=fields.text("AgentVersion", default="", longest=64),
        boot_id=fields.text("BootID", default="", longest=64),
        started_s=fields.time_s("Started") or 0.0,
        container=_container(fields, subnet),
        needed=_decode_needs(fields),
        level=_level(fields),
        summary=HostSummary(
            conditions=_decode_conditions(fields), containers=_decode_containers(fields)
        ),
    )


def _container(fields: Fields, subnet: Network | None) -> Address | None:
    """Read the address that is there for tests only; one outside the subnet is none."""
    try:
        found = fields.address("Container") if fields.has("Container") else None
    except ValueError:
        return None
    return found if found is not None and subnet is not None and found in subnet else None


def _decode_needs(fields: Fields) -> tuple[Needed, ...]:
    """Read the needs; a value that cannot be read costs the advice and not the heartbeat."""
    try:
        needs = fields.object(_NEEDS)
        return tuple(
            Needed(each, need)
            for name, need in _NEED_NAMES.items()
            for each in (needs.addresses(name, _MOST_NEEDS) if needs else ())
        )
    except ValueError:
        return ()


def _level(fields: Fields) -> int:
    """Read the level; one that cannot be read is the oldest, which keeps all that is newer back."""
    try:
        return fields.integer("Level", LEVEL_OF_0_1, MAX_LEVEL, default=LEVEL_OF_0_1)
    except ValueError:
        return LEVEL_OF_0_1


def _decode_conditions(fields: Fields) -> tuple[str, ...]:
    """Read names of conditions; a list that is none costs the names and not the heartbeat."""
    try:
        names = fields.texts(_CONDITIONS, _MOST_CONDITIONS, longest=_LONGEST_CONDITION)
    except ValueError:
        return ()
    return names if all(map(_CONDITION.fullmatch, names)) else ()


def _decode_containers(fields: Fields) -> int | None:
    """Read how many containers run there; a number that is none costs nothing else."""
    try:
        found = fields.has(_CONTAINERS)
        return fields.integer(_CONTAINERS, 0, _MOST_CONTAINERS) if found else None
    except ValueError:
        return None


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """Write a heartbeat."""
    return dump(
        {
            "HostName": clean_name(heartbeat.host_name),
            "NodeAddress": str(heartbeat.node_address) if heartbeat.node_address else None,
            "Subnet": str(heartbeat.subnet) if heartbeat.subnet else None,
            "Docker": heartbeat.docker,
            "AgentVersion": heartbeat.agent_version or None,
            "BootID": heartbeat.boot_id or None,
            "Started": heartbeat.started_s,
            "Container": str(heartbeat.container) if heartbeat.container else None,
            _NEEDS: _encode_needs(heartbeat.needed),
            "Level": heartbeat.level,
            _CONDITIONS: list(heartbeat.summary.conditions[:_MOST_CONDITIONS]) or None,
            _CONTAINERS: heartbeat.summary.containers,
        }
    )


def _encode_needs(needed: tuple[Needed, ...]) -> Mapping[str, list[str]] | None:
    found = {
        name: [str(each.address) for each in needed if each.need is need][:_MOST_NEEDS]
        for name, need in _NEED_NAMES.items()
    }
    return {name: addresses for name, addresses in found.items() if addresses} or None


def _parse_clone(name: str) -> tuple[HostId, Address]:
    host_id, _, address = name.partition("/")
    try:
        return parse_host_id(host_id), read_address(address)
    except ValueError:
        raise ValueError("the key is not <host id>/<address>") from None


def _decode_clone(key: tuple[HostId, Address], record: Record) -> Heartbeat:
    found = _decode(key[0], record)
    if found.node_address != key[1]:
        raise ValueError("the key and NodeAddress differ")
    return found


HEARTBEATS: Final[RecordKind[HostId, Heartbeat]] = RecordKind(
    name="hosts",
    pattern="<host id>",
    spell=str,
    parse=parse_host_id,
    decode=_decode,
    encode=encode_heartbeat,
    writer=Writer.HOST_ID,
    ttl="30 s",
    view="heartbeats",
)
CLONES: Final[RecordKind[tuple[HostId, Address], Heartbeat]] = RecordKind(
    name="clones",
    pattern="<host id>/<address>",
    spell=lambda key: f"{key[0]}/{key[1]}",
    parse=_parse_clone,
    decode=_decode_clone,
    encode=encode_heartbeat,
    writer=Writer.HOST_ID,
    ttl="30 s",
    view="clones",
)
