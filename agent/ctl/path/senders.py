"""Choose which containers of this host send the packets of a test, and send from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from agent.ctl.path.ends import LocalHost
from agent.kernel.diagnose.namespace import in_network_of
from agent.model import Container, DockerNetwork
from agent.model.family import Address, Network, address_order
from agent.model.network import NETWORK_LABEL

__all__ = ["Sender", "containers_of", "host_itself", "inside", "no_sender"]

_MOST_SENDERS: Final = 3
"""A container may drop pings by its own rules, so others of its network are used, too."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a test's packets.

    Attributes:
        address: Their source.
        bridge: The link by which they enter FORWARD.
        container: None for this host itself, whose packets do not pass FORWARD.
    """

    address: Address
    bridge: str
    container: Container | None = None

    @property
    def name(self) -> str:
        """Address and container, for a message."""
        if self.container is None:
            return f"{self.address} of this host itself"
        return f"{self.address}, container {self.container.name}"


def containers_of(
    place: LocalHost, subnet: Network, named: str | None, mesh_network: str = ""
) -> tuple[Sender, ...]:
    """Return containers to send from, the best first: the named one, and others of its network.

    Without a name those on docker0.

    Args:
        subnet: This host's lease.
        named: The container in this host's heartbeat, whose network is open to the mesh.
        mesh_network: The network to send from if a container of this host is on it; "" for none.
    """
    if mesh_network and (found := on_network(place, subnet, mesh_network)):
        return found
    every = tuple(_every(place, subnet))
    bridge = next((each.bridge for _, each in every if str(each.address) == named), None)
    fits = [
        each for network, each in every if each.bridge == bridge or (not bridge and network.default)
    ]
    fits.sort(key=lambda each: (str(each.address) != named, address_order(each.address)))
    return tuple(fits[:_MOST_SENDERS])


def on_network(place: LocalHost, subnet: Network, mesh_network: str) -> tuple[Sender, ...]:
    """Return containers of this host on a mesh network."""
    found = (
        each
        for network, each in _every(place, subnet)
        if network.labels.get(NETWORK_LABEL) == mesh_network
    )
    return tuple(islice(found, _MOST_SENDERS))


def _every(place: LocalHost, subnet: Network) -> Iterator[tuple[DockerNetwork, Sender]]:
    """Yield containers with their network; with several networks one may send by another bridge."""
    networks = {each.id: each for each in place.networks if not each.internal}
    for container in place.containers:
        if len(container.attachments) == 1:
            spot = container.attachments[0]
            if spot.address in subnet and spot.network in networks:
                network = networks[spot.network]
                yield network, Sender(spot.address, network.bridge, container)


def host_itself(place: LocalHost, subnet: Network) -> tuple[Sender, ...]:
    """Return this host itself as the sender, if a link has an address in its lease."""
    found = (
        Sender(each.ip, link.name)
        for link in place.links
        for each in link.addresses
        if each.ip in subnet
    )
    return tuple(islice(found, 1))


def no_sender(place: LocalHost) -> str:
    """Return why no container sends."""
    if place.problem:
        return f"Docker does not answer here: {place.problem}"
    return "no container runs here"


def inside(place: LocalHost, sender: Sender, function: Callable[[], T]) -> T:
    """Call a function in the network namespace of a sender.

    Raises:
        HostmeshError: The container has ended; and what the function raises.
    """
    if sender.container is None:
        return function()
    return in_network_of(place.engine.process_of(sender.container.id), function)
