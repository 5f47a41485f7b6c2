"""The bytes of the host's own copy of the mesh: JSON with a version and a checksum.

0.1 takes a copy with fields that it does not know for damaged. What it does not know is written
where it does not look, so that a downgrade reads the copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from agent.etcd.kv import Record
from agent.model import (
    Access,
    BackendChoice,
    BackendData,
    Bounds,
    HostId,
    Lease,
    MeshConfig,
    Problem,
    View,
    forbidden_range,
    is_leasable,
    within,
)
from agent.model.family import Address, Network, read_address, read_network
from agent.registry.records import NETWORKS, SLICES, RecordKind, decode_config, encode_config
from agent.sharedmap import SharedMap

__all__ = ["LARGEST_BYTES", "Copy", "copy_bytes", "parse_copy"]

_VERSION = 1
_TOGETHER = 500  # entries in one piece of the file
LARGEST_BYTES = 256 * 1024 * 1024  # 65,536 leases take about 25 MB
_OF_0_1: Final = frozenset(
    {
        *("access", "backend", "cidr", "previous", "subnet_len", "subnet_max", "subnet_min"),
        *("claimed_s", "host_id", "host_name", "node_address", "renewed_s", "subnet", "ttl_s"),
        *("create_revision", "etcd_lease_id", "mod_revision"),
    }
)
"""Fields of a config or a lease that 0.1 knows. It takes a copy with any other for damaged, so
others are written beside the config and the leases, where it does not look."""
_NOTHING_NEWER: Final[dict[str, Any]] = {"lease": {}, "config": {}, "leases": {}}
_AS_RECORDS: Final = (NETWORKS, SLICES)
"""Kinds that 0.1 does not know: written as etcd has them."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The saved copy.

    Attributes:
        view: With ``cached`` set. Without heartbeats: they say nothing by now.
        lease: The own lease, None when the host had none.
        saved_s: Unix time of saving, for display.
        kept: CIDRs outside ``mesh.within`` that were in use before this host had that setting.
    """

    view: View
    lease: Lease | None
    saved_s: float
    kept: tuple[Network, ...] = ()


def copy_bytes(
    view: View, lease: Lease | None, kept: tuple[Network, ...], saved_s: float
) -> Iterator[bytes]:
    """Yield the bytes of a :class:`Copy`, piece by piece: as one text a large mesh takes 100 MB."""
    yield from _envelope(_body(view, lease, kept, saved_s))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse_copy(raw: bytes, bounds: Bounds) -> Copy:
    """Read an envelope; raises whatever a damaged one leads to."""
    if len(raw) > LARGEST_BYTES:
        raise ValueError("too large")
    envelope = json.loads(raw)
    if envelope["version"] != _VERSION:
        raise ValueError(f"version {envelope['version']}, this agent knows {_VERSION}")
    if _checksum(envelope["body"]) != envelope["sha256"]:
        raise ValueError("checksum differs")
    body = json.loads(envelope["body"])
    newer = body.get("newer", _NOTHING_NEWER)
    view = _view(body["view"], newer)
    lease = _lease({**body["lease"], **newer["lease"]}) if body["lease"] else None
    if lease is not None and not is_leasable(lease.subnet):
        lease = None
    kept = (
        tuple(map(read_network, body["kept"]))
        if "kept" in body
        else _used_before(view, lease, bounds)
    )
    return Copy(
        view=_bounded(view, replace(bounds, kept=kept)),
        lease=lease,
        saved_s=float(body["saved"]),
        kept=kept,
    )


def _used_before(view: View, lease: Lease | None, bounds: Bounds) -> tuple[Network, ...]:
    """Return the CIDRs outside of ``bounds`` that a version without them had in use here.

    The mesh's CIDR, and of those it moves away from the one that this host has a subnet in.
    """
    config = view.config
    if config is None:
        return ()
    own = view.leases_of(lease.host_id) if lease and lease.host_id else ()
    return tuple(
        each
        for each in bounds.outside(config)
        if forbidden_range(each) is None
        and (each == config.cidr or any(within(held.subnet, each) for held in own))
    )


def _bounded(view: View, bounds: Bounds) -> View:
    """Take the config out unless it is one that etcd could have, and this host allows."""
    if view.config is None:
        return view
    try:
        encoded = encode_config(view.config)
        config = bounds.check(decode_config(encoded, view.config.mod_revision))
    except ValueError as error:
        return replace(view, config=None, config_problem=Problem.of(error))
    return replace(view, config=config)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a dataclass or None
    """Turn what 0.1 knows of a flat dataclass into JSON's types."""
    return None if value is None else _fields(value, newer=False)


def _newer(value: Any) -> dict[str, Any]:  # noqa: ANN401 - the same
    """Return the fields that 0.1 does not know."""
    return {} if value is None else _fields(value, newer=True)


def _fields(value: Any, *, newer: bool) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return fields as JSON's types, defaults left out."""
    return {
        field.name: _text(found)
        for field in dataclasses.fields(value)
        if (field.name not in _OF_0_1) == newer
        for found in (getattr(value, field.name),)
        if found != field.default
    }


def _text(found: Any) -> Any:  # noqa: ANN401 - a field's value
    if isinstance(found, BackendData):
        return found.text
    if isinstance(found, BackendChoice):
        return {"name": found.name, "data": found.data.text if found.data else None}
    if isinstance(found, tuple):
        return [str(each) for each in found]
    return str(found) if isinstance(found, Address | Network) else found


def _compact(value: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _envelope(body: Iterable[str]) -> Iterator[bytes]:
    """The file's bytes around a body that comes in pieces: version, body as text, its checksum."""
    digest = hashlib.sha256()
    yield f'{{"version": {_VERSION}, "body": "'.encode()
    for piece in body:
        digest.update(piece.encode())
        yield json.dumps(piece)[1:-1].encode("ascii")
    yield f'", "sha256": "{digest.hexdigest()}"}}'.encode()


def _body(
    view: View, lease: Lease | None, kept: tuple[Network, ...], saved_s: float
) -> Iterator[str]:
    """The JSON of a :class:`Copy`, a piece for some hundred entries."""
    plain = {"cluster_id": view.cluster_id, "revision": view.revision}
    yield f'{{"saved":{_compact(saved_s)},"lease":{_compact(_plain(lease))},'
    yield f'"newer":{{"lease":{_compact(_newer(lease))},"config":{_compact(_newer(view.config))},'
    yield '"leases":{'
    newer = ((each.subnet, _newer(each)) for each in view.leases)
    yield from _pieces(f"{_compact(str(at))}:{_compact(more)}" for at, more in newer if more)
    yield "}"
    for kind in _AS_RECORDS:
        yield f',"{kind.name}":{{'
        yield from _pieces(_record(kind, key, each) for key, each in _shown(view, kind).items())
        yield "}"
    yield "},"
    yield f'"kept":{_compact(_text(kept))},"view":'
    yield f'{_compact(plain)[:-1]},"config":{_compact(_plain(view.config))},"leases":['
    yield from _pieces(_compact(_plain(each)) for each in view.leases)
    yield '],"memory":{'
    yield from _pieces(
        f"{_compact(host)}:{_compact(str(net))}" for host, net in view.memory.items()
    )
    yield '},"reservations":{'
    reserved = view.reservations.items()
    yield from _pieces(f"{_compact(str(net))}:{_compact(host)}" for net, host in reserved)
    yield "}}}"


def _shown(view: View, kind: RecordKind[Any, Any]) -> Mapping[Any, Any]:
    found: Mapping[Any, Any] = getattr(view, kind.view)
    return found


def _record(kind: RecordKind[Any, Any], key: Any, value: Any) -> str:  # noqa: ANN401 - any kind's
    """Return one record as a JSON member: its value as text, and its revisions."""
    text = kind.encode(value).decode("ascii")
    found = [text, value.create_revision, value.mod_revision]
    return f"{_compact(kind.spell(key))}:{_compact(found)}"


def _records(kind: RecordKind[Any, Any], newer: dict[str, Any]) -> SharedMap[Any, Any]:
    """Read the records of a kind as from etcd."""
    found = {}
    for name, (text, created, modified) in newer.get(kind.name, {}).items():
        key = kind.key(name.encode())
        record = Record(b"", text.encode(), created, modified)
        found[key] = kind.read(key, record)
    return SharedMap(found)


def _pieces(entries: Iterable[str]) -> Iterator[str]:
    """The entries with commas between them, some hundred at a time."""
    waiting = iter(entries)
    before = ""
    while together := list(itertools.islice(waiting, _TOGETHER)):
        yield before + ",".join(together)
        before = ","


def _view(plain: dict[str, Any], newer: dict[str, Any]) -> View:
    """Read a view; a subnet that no host can hold comes back from no copy."""
    remembered = ((HostId(host), read_network(at)) for host, at in plain["memory"].items())
    memory = {host: subnet for host, subnet in remembered if is_leasable(subnet)}
    pairs = ((read_network(at), HostId(host)) for at, host in plain["reservations"].items())
    reserved: dict[Network, HostId] = {each: host for each, host in pairs if is_leasable(each)}
    leases = (
        _lease({**each, **newer["leases"].get(each["subnet"], {})}) for each in plain["leases"]
    )
    return View(
        cluster_id=int(plain["cluster_id"]),
        revision=int(plain["revision"]),
        config=_config({**plain["config"], **newer["config"]}) if plain["config"] else None,
        leases=tuple(each for each in leases if is_leasable(each.subnet)),
        memory=MappingProxyType(memory),
        reservations=MappingProxyType(reserved),
        cached=True,
        networks=_records(NETWORKS, newer),
        slices=_records(SLICES, newer),
    )


def _known(kind: type, plain: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a newer version wrote."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in plain.items() if name in names}


def _config(plain: dict[str, Any]) -> MeshConfig:
    options = plain.get("backend_options")
    return MeshConfig(
        **{
            **_known(MeshConfig, plain),
            "cidr": read_network(plain["cidr"]),
            "previous": tuple(map(read_network, plain.get("previous", ()))),
            "subnet_min": read_address(plain["subnet_min"]),
            "subnet_max": read_address(plain["subnet_max"]),
            "backend_options": BackendData(options) if options else None,
            "accepted": _choice(plain.get("accepted")),
            "access": Access(plain.get("access", Access.PUBLISHED)),
        }
    )


def _lease(plain: dict[str, Any]) -> Lease:
    published = plain.get("backend_data")
    return Lease(
        **{
            **_known(Lease, plain),
            "subnet": read_network(plain["subnet"]),
            "node_address": read_address(plain["node_address"]),
            "backend_data": BackendData(published) if published else None,
            "accepted": _choice(plain.get("accepted")),
        }
    )


def _choice(plain: dict[str, Any] | None) -> BackendChoice | None:
    if plain is None:
        return None
    data = plain["data"]
    return BackendChoice(plain["name"], BackendData(data) if data else None)
