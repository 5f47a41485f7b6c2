"""Give hosts of a lab the backend wireguard: the kernel of the machine may have none."""

from collections.abc import Mapping
from typing import Any

from hostmesh_lab.underlay.topology import WIREGUARD, Topology, host_number

__all__ = ["PACKAGES", "settings"]

PACKAGES = ("wireguard-go", "wireguard-tools")
_START = "wireguard-go hm-wg && ip link set hm-wg alias hostmesh"


def settings(topology: Topology, index: int) -> Mapping[str, Mapping[str, Any]]:
    """Return the agent's settings of host `index` (from 1): how it is started, and reached."""
    found: dict[str, Mapping[str, Any]] = {"wireguard": {"start_command": ["sh", "-c", _START]}}
    endpoint = _public_endpoint(topology, index)
    if endpoint:
        found["host"] = {"public_endpoint": endpoint}
    return found


def _public_endpoint(topology: Topology, index: int) -> str:
    """Return where a host behind NAT is reached: a forwarded port, "none", or "" without NAT."""
    link = topology.place(index)[0]
    for router in topology.routers:
        if not router.masquerade or link not in {each.link for each in router.nics[1:]}:
            continue
        own = topology.link(link).addresses(host_number(index))[0]
        outside = topology.link(router.nics[0].link).addresses(router.nics[0].number)[0]
        ports = [each.port for each in router.forwards if each.to == f"{own}:{WIREGUARD}"]
        return f"{outside}:{ports[0]}" if ports else "none"
    return ""
