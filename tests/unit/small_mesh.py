"""A mesh of a few hosts as values: what tests of the pure parts start from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from agent.model import HostId, Lease, MeshConfig, Uplink

CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
)


def lease(number: int) -> Lease:
    """Host ``number``'s; 0 is the host itself."""
    return Lease(
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{1 + number}"),
        backend="host-gw",
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
    )
