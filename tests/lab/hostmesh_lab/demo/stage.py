"""The demo's steps share this: the lab, findings so far, and how a claim is checked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import CIDR, Lab
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay.topology import BACKENDS, WIREGUARD

MESH = IPv4Network(CIDR)
WEB = "web"
READY_S = 60.0


@dataclass
class Stage:
    """The lab and each host's subnet and container as the steps found them."""

    lab: Lab
    note: Callable[[str], None]
    backend: str = BACKENDS[0]
    subnets: dict[str, IPv4Network] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        return self.lab.hosts[name]

    @property
    def tunnel(self) -> str:
        """The device through which packets between hosts travel, "" without one."""
        return {"vxlan": "hm-vxlan", "wireguard": "hm-wg"}.get(self.backend, "")

    @property
    def tunnel_port(self) -> int:
        """The UDP port of the tunnel's own packets."""
        return {"wireguard": WIREGUARD}.get(self.backend, 8472)

    @property
    def behind_nat(self) -> bool:
        """Whether a router gives some host's packets an address of its own."""
        return any(each.masquerade for each in self.lab.topology.routers)

    def add_container(self, name: str) -> str:
        """Start a container that serves pages; its address must be of the host's subnet."""
        address = self.host(name).start_container(WEB)
        require(
            IPv4Network(f"{address}/32").subnet_of(self.subnets[name]),
            f"the container on {name} has {address}, outside {self.subnets[name]}",
        )
        self.containers[name] = address
        return address

    def learn_subnet(self, name: str) -> IPv4Network:
        """A host's subnet, on which its agent, every peer's list and its Docker must agree."""
        host = self.host(name)
        lease = host.lease()
        if lease is None:
            raise LabError(f"{name} has no lease in its own list")
        subnet = IPv4Network(lease)
        require(
            subnet.prefixlen == 16 and subnet.subnet_of(MESH),
            f"{name} has {subnet}, not a /16 of {MESH}",
        )
        require(
            not any(subnet.overlaps(other) for peer, other in self.subnets.items() if peer != name),
            f"{name}'s {subnet} overlaps another host's",
        )
        self.subnets[name] = subnet
        return subnet


def require(claim: bool, otherwise: str) -> None:
    """A claim of the demo: if it does not hold, the step has failed."""
    if not claim:
        raise LabError(otherwise)
