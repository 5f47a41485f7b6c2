"""``<prefix>/config``: the mesh's settings, in flannel's JSON with ours under "Hostmesh".

flannel's side of the format is its pkg/subnet/config.go (Config, CheckNetworkConfig).
"""

from __future__ import annotations

from typing import Any, Final

from agent.mesh.ranges import MAX_SUBNETS, count_subnets
from agent.model import (
    LEVEL,
    LEVEL_OF_0_1,
    MAX_LEVEL,
    OWNERS_LEVEL,
    Access,
    BackendChoice,
    MeshConfig,
    Unusable,
)
from agent.model.domain import LONGEST_DOMAIN, parse_domain
from agent.model.family import Address, Network, can_hold_hosts, family_of, last_subnet, within
from agent.model.untrusted import OURS, Fields, parse_object
from agent.registry.records.record_kind import RecordKind, Writer, dump

__all__ = ["CONFIG", "decode_config", "encode_config"]

_ACCESS: Final = "Access"
_PREVIOUS: Final = "Previous"
_LEVEL: Final = "Level"
_OWNERS: Final = "Owners"
_FLANNEL: Final = "Flannel"
_ACCEPT: Final = "Accept"
_ETCD_CONTAINERS: Final = "EtcdContainers"
_NETWORKS: Final = "Networks"
_DECLARED: Final = "declared"
_NAMES: Final = "Names"
_CLOSED: Final = "closed"
_MAX_PREVIOUS: Final = 4
_OURS_STATED: Final = (
    *(_PREVIOUS, _ACCESS, _LEVEL, _ACCEPT, _OWNERS, _FLANNEL),
    *(_ETCD_CONTAINERS, _NETWORKS, _NAMES),
)


def decode_config(value: bytes, mod_revision: int = 0) -> MeshConfig:
    """Read a config with flannel's defaults for what it leaves out.

    So both read the same mesh: SubnetLen is 24 (or two bits more than Network when that is
    longer than /22), SubnetMin the second subnet, SubnetMax the last, Backend "udp". A
    config written by :func:`encode_config` states all of them.

    Raises:
        ValueError: It is not usable; the reason is fit to be shown.
    """
    fields = Fields.parse(value)
    ours = fields.object(OURS) or Fields({})
    level = _level(ours)
    if not fields.flag("EnableIPv4", default=True):
        raise ValueError("EnableIPv4 is false and Hostmesh routes IPv4")
    cidr = _mesh_range("Network", fields.network("Network", strict=False))
    family = family_of(cidr)
    subnet_len = fields.integer("SubnetLen", 0, family.bits, default=0) or _default_len(cidr)
    shortest, longest = family.subnet_lengths
    if not shortest <= subnet_len <= longest:
        raise ValueError(f"SubnetLen {subnet_len} is not from {shortest} to {longest}")
    if subnet_len < cidr.prefixlen + 2:
        raise ValueError(f"Network {cidr} does not hold four /{subnet_len}: flannel wants that")
    config = MeshConfig(
        cidr=cidr,
        previous=_previous(ours, cidr),
        subnet_len=subnet_len,
        subnet_min=_bound(fields, "SubnetMin", cidr, subnet_len, first=True),
        subnet_max=_bound(fields, "SubnetMax", cidr, subnet_len, first=False),
        backend=_backend(fields),
        backend_options=fields.backend_data("Backend", without="Type"),
        accepted=_accepted(ours, _backend(fields)),
        access=_access(ours),
        level=level,
        owners=ours.flag(_OWNERS, default=False),
        flannel=ours.flag(_FLANNEL, default=not ours.flag(_OWNERS, default=False)),
        etcd_closed=ours.text(_ETCD_CONTAINERS, default="", longest=16) == _CLOSED,
        declared_networks=ours.text(_NETWORKS, default="", longest=16) == _DECLARED,
        domain=_domain(ours),
        mod_revision=mod_revision,
    )
    if config.owners and level < OWNERS_LEVEL:
        raise ValueError(
            f"{OURS}.{_OWNERS} needs {OURS}.{_LEVEL} {OWNERS_LEVEL}, and it is {level}"
        )
    if int(config.subnet_min) > int(config.subnet_max):
        raise ValueError("SubnetMin is behind SubnetMax")
    if count_subnets(config) > MAX_SUBNETS:
        raise ValueError(f"more than {MAX_SUBNETS} subnets: use a shorter SubnetLen")
    return config


def _level(ours: Fields) -> int:
    """Read the level first: what else a newer config says may mean something else by then."""
    level = ours.integer(_LEVEL, LEVEL_OF_0_1, MAX_LEVEL, default=LEVEL_OF_0_1)
    if level > LEVEL:
        raise Unusable(
            f"{OURS}.{_LEVEL} is {level} and this version reads up to {LEVEL}",
            hint="install a newer hostmesh on this host; until then it keeps what it has. Or, where"
            f" a newer one runs: agentctl config set --level {LEVEL}",
        )
    return level


def _mesh_range(name: str, cidr: Network) -> Network:
    shortest, longest = family_of(cidr).mesh_lengths
    if not shortest <= cidr.prefixlen <= longest:
        raise ValueError(f"{name} {cidr} is not a /{shortest} to /{longest}")
    if not can_hold_hosts(cidr):
        raise ValueError(f"{name} {cidr} is not a range for hosts")
    return cidr


def _previous(ours: Fields, cidr: Network) -> tuple[Network, ...]:
    """Read the CIDRs that the mesh moves away from, those that ``cidr`` covers left out."""
    found = (_mesh_range(_PREVIOUS, each) for each in ours.networks(_PREVIOUS, _MAX_PREVIOUS))
    return tuple(each for each in dict.fromkeys(found) if not within(each, cidr))


def _default_len(cidr: Network) -> int:
    return 24 if cidr.prefixlen <= 22 else cidr.prefixlen + 2  # noqa: PLR2004 - flannel's rule


def _bound(fields: Fields, name: str, cidr: Network, subnet_len: int, *, first: bool) -> Address:
    size = family_of(cidr).size(subnet_len)
    last = last_subnet(cidr, subnet_len).network_address
    default = cidr.network_address + size if first else last
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


def _accepted(ours: Fields, backend: str) -> BackendChoice | None:
    """Read the backend that is accepted beside the one in use; None where they are the same."""
    found = ours.backend_choice(_ACCEPT, "")
    return None if found is None or found.name == backend else found


def _access(ours: Fields) -> Access:
    said = ours.text(_ACCESS, default=Access.PUBLISHED, longest=16)
    if said not in set(Access):
        raise ValueError(f"{OURS}.{_ACCESS} is none of {', '.join(Access)}")
    return Access(said)


def _domain(ours: Fields) -> str:
    """Read the domain of names; "" where the mesh has none."""
    domain = ours.text(_NAMES, default="", longest=LONGEST_DOMAIN)
    return parse_domain(domain) if domain else ""


def encode_config(config: MeshConfig, previous: bytes | None = None) -> bytes:
    """Write a config; whatever else ``previous`` holds, of flannel's or anyone's, stays.

    Everything is stated, defaults too. SubnetMin in particular: flannel would skip the
    first subnet, whose network address equals the mesh's; we route subnets, so it is as
    good as any.
    """
    fields: dict[str, Any] = parse_object(previous) if previous else {}
    backend = fields.get("Backend")
    options = {} if config.backend_options is None else config.backend_options.fields
    ours = {
        "Network": str(config.cidr),
        "SubnetLen": config.subnet_len,
        "SubnetMin": str(config.subnet_min),
        "SubnetMax": str(config.subnet_max),
        "Backend": {
            **_kept_options(backend, config.backend),
            **options,
            "Type": config.backend,
        },
    }
    extra = _additions(fields, config)
    if extra:
        ours[OURS] = extra
    for name in [each for each in fields if each.lower() in {our.lower() for our in ours}]:
        if name not in ours:
            del fields[name]  # the same field to Go, spelled otherwise
    return dump({**fields, **ours})


def _kept_options(backend: object, name: str) -> dict[str, Any]:
    """Return what a config's Backend says if it says it of the backend ``name``."""
    if not isinstance(backend, dict):
        return {}
    types = [value for key, value in backend.items() if key.lower() == "type"]
    return backend if types == [name] else {}


def _additions(fields: dict[str, Any], config: MeshConfig) -> dict[str, Any]:
    """Take our part out of a config's fields, with what ``config`` says put in."""
    names = [each for each in fields if each.lower() == OURS.lower()]
    found = [each for each in map(fields.pop, names) if isinstance(each, dict)]
    stated = {each.lower() for each in _OURS_STATED}
    extra = {
        name: value for each in found for name, value in each.items() if name.lower() not in stated
    }
    if config.previous:
        extra[_PREVIOUS] = [str(each) for each in config.previous]
    if config.accepted is not None:
        options = config.accepted.data.fields if config.accepted.data else {}
        extra[_ACCEPT] = {**options, "Type": config.accepted.name}
    if config.level > LEVEL_OF_0_1:
        extra[_LEVEL] = config.level
    if config.owners:
        extra[_OWNERS] = True
    if config.flannel is config.owners:  # not what it is without the field
        extra[_FLANNEL] = config.flannel
    if config.etcd_closed:
        extra[_ETCD_CONTAINERS] = _CLOSED
    if config.declared_networks:
        extra[_NETWORKS] = _DECLARED
    if config.domain:
        extra[_NAMES] = config.domain
    if extra or config.access is not Access.PUBLISHED:
        extra[_ACCESS] = config.access
    return extra


CONFIG: Final[RecordKind[None, MeshConfig]] = RecordKind(
    name="config",
    spell=lambda _: "",
    parse=lambda _: None,
    decode=lambda _, record: decode_config(record.value, record.mod_revision),
    encode=encode_config,
    writer=Writer.OPERATOR,
    view="config",
    cached=True,
    most=1,
)
