"""Check settings against each other."""

from __future__ import annotations

from collections.abc import Iterator

from agent.model import PRIVATE_RANGES, Bounds
from agent.model.family import Network, family_of
from agent.settings.sections import EtcdSettings, LeaseSettings, MeshSettings, Settings

__all__ = ["cross_checks"]

_MAX_SOCKET_PATH_BYTES = 107  # unix(7): sun_path is 108 bytes with its final zero
_MIN_SUBNET_BITS = 2  # flannel refuses a config with fewer than four subnets
_MAX_SUBNET_BITS = 16  # agent.mesh.ranges.MAX_SUBNETS

Problem = tuple[str, str]
"""("section.key", its fault)."""


def cross_checks(settings: Settings) -> Iterator[Problem]:
    """Yield every problem between the keys of ``settings``."""
    yield from _etcd(settings.etcd)
    if settings.mesh.cidr is not None:
        yield from _mesh(settings.mesh, settings.mesh.cidr)
    yield from _lease(settings.lease)
    if settings.ui.is_open and not settings.ui.open_to_network:
        why = "every machine that reaches it could read the page"
        what = f"{settings.ui.listen} is no loopback address, so {why}"
        yield "ui.listen", f"{what}; if they may, set ui.open_to_network = true, too"
    length = len(str(settings.agent.socket).encode())
    if length > _MAX_SOCKET_PATH_BYTES:
        why = f"the kernel takes {_MAX_SOCKET_PATH_BYTES} bytes for the control socket's path"
        yield "agent.run_dir", f"is too long: {why}, this one has {length}"


def _etcd(etcd: EtcdSettings) -> Iterator[Problem]:
    if etcd.cert_file and not etcd.key_file:
        yield "etcd.cert_file", "needs etcd.key_file beside it"
    if etcd.key_file and not etcd.cert_file:
        yield "etcd.key_file", "needs etcd.cert_file beside it"
    if etcd.username and not etcd.password_file:
        yield "etcd.username", "needs etcd.password_file beside it"
    if etcd.password_file and not etcd.username:
        yield "etcd.password_file", "needs etcd.username beside it"
    if etcd.endpoints and etcd.endpoints[0].startswith("http://"):
        for key in ("ca_file", "cert_file"):
            if getattr(etcd, key):
                yield f"etcd.{key}", "has no use: etcd.endpoints begin with http://, not https://"


def _mesh(mesh: MeshSettings, cidr: Network) -> Iterator[Problem]:
    length = mesh.subnet_len
    config = mesh.config()
    if mesh.within != PRIVATE_RANGES and config and Bounds(allowed=mesh.within).outside(config):
        yield "mesh.within", f"does not hold mesh.cidr {cidr}"
    spare_bits = length - cidr.prefixlen
    if spare_bits < _MIN_SUBNET_BITS:
        what = f"{cidr} does not hold four /{length}, the least for a mesh"
        yield "mesh.subnet_len", f"must be {cidr.prefixlen + 2} or more: mesh.cidr {what}"
        return
    if spare_bits > _MAX_SUBNET_BITS:
        least = cidr.prefixlen + _MAX_SUBNET_BITS
        yield "mesh.subnet_len", f"must be {least} or less: a mesh has 65536 subnets at most"
        return
    wrong = False
    for key in ("subnet_min", "subnet_max"):
        bound = getattr(mesh, key)
        if bound is None:
            continue
        subnet = family_of(bound).at(int(bound), length)
        if bound not in cidr:
            wrong = True
            yield f"mesh.{key}", f"{bound} is outside mesh.cidr {cidr}"
        elif subnet.network_address != bound:
            wrong = True
            yield (
                f"mesh.{key}",
                f"{bound} is not the first address of a /{length}; {subnet.network_address} is",
            )
    low, high = mesh.subnet_min, mesh.subnet_max
    if not wrong and low and high and int(low) > int(high):
        yield "mesh.subnet_min", f"{low} is above mesh.subnet_max {high}"


def _lease(lease: LeaseSettings) -> Iterator[Problem]:
    if lease.heartbeat_ttl_s >= lease.ttl_s:
        yield (
            "lease.heartbeat_ttl_s",
            f"must be shorter than lease.ttl_s ({lease.ttl_s}), not {lease.heartbeat_ttl_s}",
        )
    if lease.memory_ttl_s < lease.ttl_s:
        yield (
            "lease.memory_ttl_s",
            f"must not be shorter than lease.ttl_s ({lease.ttl_s}), not {lease.memory_ttl_s}",
        )
