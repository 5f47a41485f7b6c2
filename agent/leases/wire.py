"""The values under the prefix: flannel's JSON with our additions under "Hostmesh".

flannel's side of the format is its pkg/lease/lease.go (LeaseAttrs), pkg/subnet/config.go
(Config, CheckNetworkConfig). It ignores fields that it does not know; so does this module.
Every ``decode_*`` raises ValueError, with a reason fit to be shown, for what is not usable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

from agent.leases.keys import HOST_ID, parse_subnet
from agent.leases.kv import Record
from agent.leases.needs import FIELD, decode_needs, encode_needs
from agent.leases.untrusted import Fields, clean_name, parse_object
from agent.mesh.ranges import MAX_SUBNETS, count_subnets
from agent.model import (
    LONGEST_SUBNET,
    SHORTEST_SUBNET,
    Access,
    DockerState,
    Heartbeat,
    HostId,
    Lease,
    MeshConfig,
    is_leasable,
)
from agent.model.family import Address, Network, within

__all__ = [
    "check_lease",
    "decode_boot_id",
    "decode_clone",
    "decode_config",
    "decode_heartbeat",
    "decode_host_id",
    "decode_lease",
    "decode_memory",
    "decode_reservation",
    "decode_turn",
    "encode_config",
    "encode_heartbeat",
    "encode_lease",
    "encode_memory",
    "encode_reservation",
    "encode_turn",
]

_OURS = "Hostmesh"
_ACCESS = "Access"
_PREVIOUS = "Previous"
_MAX_PREVIOUS = 4
_MAX_TTL_S = 400 * 86_400
_NOT_UNICAST: tuple[Network, ...] = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")
)


def _dump(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")


# --- config -------------------------------------------------------------------------------


def decode_config(value: bytes, mod_revision: int = 0) -> MeshConfig:
    """Read ``<prefix>/config`` with flannel's defaults for what it leaves out.

    So both read the same mesh: SubnetLen is 24 (or two bits more than Network when that is
    longer than /22), SubnetMin the second subnet, SubnetMax the last, Backend "udp". A
    config written by :func:`encode_config` states all of them.
    """
    fields = Fields.parse(value)
    if not fields.flag("EnableIPv4", default=True):
        raise ValueError("EnableIPv4 is false and Hostmesh routes IPv4")
    cidr = _mesh_range("Network", fields.network("Network", strict=False))
    subnet_len = fields.integer("SubnetLen", 0, 32, default=0) or _default_len(cidr)
    if not SHORTEST_SUBNET <= subnet_len <= LONGEST_SUBNET:
        raise ValueError(
            f"SubnetLen {subnet_len} is not from {SHORTEST_SUBNET} to {LONGEST_SUBNET}"
        )
    if subnet_len < cidr.prefixlen + 2:
        raise ValueError(f"Network {cidr} does not hold four /{subnet_len}: flannel wants that")
    ours = fields.object(_OURS)
    config = MeshConfig(
        cidr=cidr,
        previous=() if ours is None else _previous(ours, cidr),
        subnet_len=subnet_len,
        subnet_min=_bound(fields, "SubnetMin", cidr, subnet_len, first=True),
        subnet_max=_bound(fields, "SubnetMax", cidr, subnet_len, first=False),
        backend=_backend(fields),
        access=_access(fields),
        mod_revision=mod_revision,
    )
    if int(config.subnet_min) > int(config.subnet_max):
        raise ValueError("SubnetMin is behind SubnetMax")
    if count_subnets(config) > MAX_SUBNETS:
        raise ValueError(f"more than {MAX_SUBNETS} subnets: use a shorter SubnetLen")
    return config


def _mesh_range(name: str, cidr: Network) -> Network:
    if not SHORTEST_SUBNET - 4 <= cidr.prefixlen <= LONGEST_SUBNET - 2:
        raise ValueError(f"{name} {cidr} is not a /8 to /28")
    if any(cidr.overlaps(other) for other in _NOT_UNICAST):
        raise ValueError(f"{name} {cidr} is not a range for hosts")
    return cidr


def _previous(ours: Fields, cidr: Network) -> tuple[Network, ...]:
    """Read the CIDRs that the mesh moves away from, those that ``cidr`` covers left out."""
    found = (_mesh_range(_PREVIOUS, each) for each in ours.networks(_PREVIOUS, _MAX_PREVIOUS))
    return tuple(each for each in dict.fromkeys(found) if not within(each, cidr))


def _default_len(cidr: Network) -> int:
    return 24 if cidr.prefixlen <= 22 else cidr.prefixlen + 2  # noqa: PLR2004 - flannel's rule


def _bound(fields: Fields, name: str, cidr: Network, subnet_len: int, *, first: bool) -> Address:
    size = 1 << (32 - subnet_len)
    default = cidr.network_address + size if first else cidr.broadcast_address - (size - 1)
    found = fields.address(name, default=default)
    if int(found) == 0:  # flannel's zero value means absent
        found = default
    if found not in cidr:
        raise ValueError(f"{name} {found} is not inside Network {cidr}")
    if int(found) % size:
        raise ValueError(f"{name} {found} does not start a /{subnet_len}")
    return found


def _backend(fields: Fields) -> str:
    backend = fields.object("Backend")
    return "udp" if backend is None else backend.text("Type", longest=32)


def _access(fields: Fields) -> Access:
    ours = fields.object(_OURS)
    said = ours.text(_ACCESS, default=Access.PUBLISHED, longest=16) if ours else Access.PUBLISHED
    if said not in set(Access):
        raise ValueError(f"{_OURS}.{_ACCESS} is none of {', '.join(Access)}")
    return Access(said)


def encode_config(config: MeshConfig, previous: bytes | None = None) -> bytes:
    """Write a config; whatever else ``previous`` holds, of flannel's or anyone's, stays.

    Everything is stated, defaults too. SubnetMin in particular: flannel would skip the
    first subnet, whose network address equals the mesh's; we route subnets, so it is as
    good as any.
    """
    fields: dict[str, Any] = parse_object(previous) if previous else {}
    backend = fields.get("Backend")
    ours = {
        "Network": str(config.cidr),
        "SubnetLen": config.subnet_len,
        "SubnetMin": str(config.subnet_min),
        "SubnetMax": str(config.subnet_max),
        "Backend": {**(backend if isinstance(backend, dict) else {}), "Type": config.backend},
    }
    extra = _additions(fields, config)
    if extra:
        ours[_OURS] = extra
    for name in [each for each in fields if each.lower() in {our.lower() for our in ours}]:
        if name not in ours:
            del fields[name]  # the same field to Go, spelled otherwise
    return _dump({**fields, **ours})


def _additions(fields: dict[str, Any], config: MeshConfig) -> dict[str, Any]:
    """Take our part out of a config's fields, with what ``config`` says put in."""
    names = [each for each in fields if each.lower() == _OURS.lower()]
    found = [each for each in map(fields.pop, names) if isinstance(each, dict)]
    extra = {
        name: value
        for each in found
        for name, value in each.items()
        if name.lower() not in {_PREVIOUS.lower(), _ACCESS.lower()}
    }
    if config.previous:
        extra[_PREVIOUS] = [str(each) for each in config.previous]
    if extra or config.access is not Access.PUBLISHED:
        extra[_ACCESS] = config.access
    return extra


# --- leases -------------------------------------------------------------------------------


_FLANNELS = Fields({})
"""What a flannel host's lease has of ours."""


def decode_lease(name: str, record: Record) -> Lease:
    """Read a lease from the last part of its key and its value; not yet held against a mesh."""
    subnet = _leasable(parse_subnet(name))
    fields = Fields.parse(record.value)
    ours = fields.object(_OURS)
    if ours is None or not ours.has("HostID"):
        ours = _FLANNELS
    return Lease(
        subnet=subnet,
        node_address=_node_address(fields, "PublicIP"),
        backend=fields.text("BackendType", default="alloc", longest=32),
        host_id=_host_id(ours, "HostID") if ours is not _FLANNELS else None,
        host_name=ours.text("HostName", default=""),
        claimed_s=ours.time_s("Claimed"),
        renewed_s=ours.time_s("Renewed"),
        ttl_s=ours.integer("TTL", 1, _MAX_TTL_S) if ours.has("TTL") else None,
        etcd_lease_id=record.lease_id,
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
    )


def _leasable(subnet: Network) -> Network:
    if not is_leasable(subnet):
        raise ValueError(f"a /{subnet.prefixlen} is not a subnet of a mesh")
    return subnet


def check_lease(lease: Lease, config: MeshConfig) -> str:
    """Say why a lease is not usable in this mesh, "" when it is (promise 8)."""
    if not config.holds(lease.subnet):
        return f"{lease.subnet} is not a part of the mesh's CIDR {_shown(config)}"
    around = next((each for each in config.cidrs if lease.node_address in each), None)
    if around is not None:
        return f"node address {lease.node_address} is inside the mesh's CIDR {around}"
    return ""


def _shown(config: MeshConfig) -> str:
    return " or ".join(map(str, config.cidrs))


def decode_boot_id(record: Record) -> str:
    """Read which boot of the host wrote a lease, "" when the record does not say.

    Apart from :func:`decode_lease`: only the host itself ever asks, about one record.
    """
    try:
        ours = Fields.parse(record.value).object(_OURS)
        return ours.text("BootID", default="", longest=64) if ours else ""
    except ValueError:
        return ""


def encode_lease(
    lease: Lease,
    backend_data: Any = None,  # noqa: ANN401 - JSON
    *,
    boot_id: str = "",
) -> bytes:
    """Write a lease as flannel does, ours at the end where flannel ignores it.

    Args:
        lease: With a host id; times in seconds since 1970 by the owner's clock.
        backend_data: What the backend's peers need (flannel: BackendData), None for host-gw.
        boot_id: Of the host, so that it later tells its own lease from a clone's.
    """
    fields: dict[str, Any] = {
        "PublicIP": str(lease.node_address),
        "PublicIPv6": None,
        "BackendType": lease.backend,
    }
    if backend_data is not None:
        fields["BackendData"] = backend_data
    fields[_OURS] = {
        "HostID": lease.host_id,
        "HostName": clean_name(lease.host_name),
        "Claimed": lease.claimed_s,
        "Renewed": lease.renewed_s,
        "TTL": lease.ttl_s,
    }
    if boot_id:
        fields[_OURS]["BootID"] = boot_id
    return _dump(fields)


def _node_address(fields: Fields, name: str) -> Address:
    address = fields.address(name)
    if any(address in network for network in _NOT_UNICAST):
        raise ValueError(f"{name} {address} is not the address of a host")
    return address


# --- heartbeat, memory, reservations ------------------------------------------------------


def decode_host_id(text: str) -> HostId:
    """Read a host id from a key."""
    if not HOST_ID.fullmatch(text):
        raise ValueError("not a host id of 32 hex digits")
    return HostId(text)


def _host_id(fields: Fields, name: str) -> HostId:
    return decode_host_id(fields.text(name, longest=32))


def decode_heartbeat(name: str, record: Record) -> Heartbeat:
    """Read a heartbeat from the last part of its key and its value."""
    host_id = decode_host_id(name)
    fields = Fields.parse(record.value)
    docker = fields.text("Docker", default=DockerState.ABSENT, longest=16)
    known = docker in set(DockerState)
    subnet = _leasable(fields.network("Subnet")) if fields.has("Subnet") else None
    return Heartbeat(
        host_id=host_id,
        host_name=fields.text("HostName", default=""),
        node_address=_node_address(fields, "NodeAddress") if fields.has("NodeAddress") else None,
        subnet=subnet,
        docker=DockerState(docker) if known else DockerState.PENDING,
        agent_version=fields.text("AgentVersion", default="", longest=64),
        boot_id=fields.text("BootID", default="", longest=64),
        started_s=fields.time_s("Started") or 0.0,
        container=_container(fields, subnet),
        needed=decode_needs(fields),
    )


def _container(fields: Fields, subnet: Network | None) -> Address | None:
    """Read the address that is there for tests only; one outside the subnet is none."""
    try:
        found = fields.address("Container") if fields.has("Container") else None
    except ValueError:
        return None
    return found if found is not None and subnet is not None and found in subnet else None


def decode_clone(name: str, record: Record) -> Heartbeat:
    """Read what a host says that found its identity in use: a heartbeat; key <id>/<address>."""
    host_id, _, address = name.partition("/")
    found = decode_heartbeat(host_id, record)
    if str(found.node_address) != address:
        raise ValueError("the key and NodeAddress differ")
    return found


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """Write a heartbeat."""
    return _dump(
        {
            "HostName": clean_name(heartbeat.host_name),
            "NodeAddress": str(heartbeat.node_address) if heartbeat.node_address else None,
            "Subnet": str(heartbeat.subnet) if heartbeat.subnet else None,
            "Docker": heartbeat.docker,
            "AgentVersion": heartbeat.agent_version or None,
            "BootID": heartbeat.boot_id or None,
            "Started": heartbeat.started_s,
            "Container": str(heartbeat.container) if heartbeat.container else None,
            FIELD: encode_needs(heartbeat.needed),
        }
    )


def decode_memory(name: str, record: Record) -> tuple[HostId, Network]:
    """Read which subnet a host had last."""
    return decode_host_id(name), _leasable(Fields.parse(record.value).network("Subnet"))


def encode_memory(subnet: Network) -> bytes:
    """Write which subnet a host has."""
    return _dump({"Subnet": str(subnet)})


def encode_turn(host_id: HostId, host_name: str) -> bytes:
    """Write whose turn it is."""
    return _dump({"HostID": host_id, "HostName": clean_name(host_name)})


def decode_turn(record: Record) -> tuple[HostId | None, str]:
    """Read whose turn it is: (host id, host name); nobody's (None, "") when it does not parse."""
    try:
        fields = Fields.parse(record.value)
        return decode_host_id(fields.text("HostID")), fields.text("HostName", default="")
    except ValueError:
        return None, ""


def decode_reservation(name: str, record: Record) -> tuple[Network, HostId]:
    """Read for which host a subnet is reserved."""
    return _leasable(parse_subnet(name)), _host_id(Fields.parse(record.value), "HostID")


def encode_reservation(host_id: HostId) -> bytes:
    """Write for which host a subnet is reserved."""
    return _dump({"HostID": host_id})
