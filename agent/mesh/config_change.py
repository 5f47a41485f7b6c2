"""From one config of a running mesh to the next: what an operator may wish, worked out. Pure.

A larger CIDR and another SubnetLen for new leases only change what new leases look like. Another
CIDR is a move: the old one stays in use (``MeshConfig.previous``) until the last host has left it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.model import Access, MeshConfig
from agent.model.family import Address, Network, last_subnet, within

__all__ = ["ConfigWish", "left_behind", "wished_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigWish:
    """The wanted changes; None leaves a field as it is.

    Attributes:
        move: Keep what ``cidr`` replaces in use until its hosts have moved.
        finish: Stop using the CIDRs that the mesh moved away from.
        etcd_containers: "allow" or "closed".
        networks: "declared": only mesh networks with a record count; "any": labels alone, too.
        names: The domain of names; "" turns them off.
        flannel: None with another value of ``owners``: as it is by default then.
    """

    cidr: Network | None = None
    subnet_len: int | None = None
    subnet_min: Address | None = None
    subnet_max: Address | None = None
    access: Access | None = None
    level: int | None = None
    owners: bool | None = None
    flannel: bool | None = None
    etcd_containers: str | None = None
    networks: str | None = None
    names: str | None = None
    move: bool = False
    finish: bool = False


def wished_config(now: MeshConfig, wish: ConfigWish) -> MeshConfig:
    """The config that ``wish`` makes of ``now``; not yet held against what is in use.

    A bound that was the CIDR's own follows the CIDR and the length; one that was chosen stays.
    """
    cidr, length = wish.cidr or now.cidr, wish.subnet_len or now.subnet_len
    owners = now.owners if wish.owners is None else wish.owners
    flannel = now.flannel if owners is now.owners else not owners
    low, high = _bounds(now.cidr, now.subnet_len)
    first, last = _bounds(cidr, length)
    return replace(
        now,
        cidr=cidr,
        subnet_len=length,
        subnet_min=wish.subnet_min or (first if now.subnet_min == low else now.subnet_min),
        subnet_max=wish.subnet_max or (last if now.subnet_max == high else now.subnet_max),
        access=wish.access or now.access,
        level=wish.level or now.level,
        owners=owners,
        flannel=flannel if wish.flannel is None else wish.flannel,
        etcd_closed=wish.etcd_containers == "closed" if wish.etcd_containers else now.etcd_closed,
        declared_networks=wish.networks == "declared" if wish.networks else now.declared_networks,
        domain=now.domain if wish.names is None else wish.names,
        previous=_previous(now, cidr, wish),
    )


def _previous(now: MeshConfig, cidr: Network, wish: ConfigWish) -> tuple[Network, ...]:
    if wish.finish:
        return ()
    kept = now.cidrs if wish.move else now.previous
    return tuple(each for each in kept if not within(each, cidr))


def _bounds(cidr: Network, length: int) -> tuple[Address, Address]:
    """Network address of the first and of the last subnet; the CIDR's ends for a bad length."""
    fitting = min(max(length, cidr.prefixlen), cidr.max_prefixlen)
    return cidr.network_address, last_subnet(cidr, fitting).network_address


def left_behind(before: MeshConfig | None, after: MeshConfig) -> bool:
    """Whether some range of ``before`` is no part of the mesh any more."""
    return before is None or any(
        not any(within(old, new) for new in after.cidrs) for old in before.cidrs
    )
