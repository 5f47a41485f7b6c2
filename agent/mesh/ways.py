"""The device by which this host sends to each peer, and the largest packet there. Pure.

For people and documents; what is written to the kernel is in :mod:`agent.mesh.desired`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.mesh.backends import PeerObjects, container_mtu
from agent.mesh.peer_rules import PeerRules
from agent.mesh.world import World
from agent.model import LinkSpec, Route
from agent.model.family import Network

__all__ = ["OwnDevice", "Way", "own_device", "ways"]


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """The device of the backend by which this host sends.

    Attributes:
        mtu: The largest packet of a container that it takes.
        container_mtu: The MTU that Docker is given for containers.
    """

    name: str
    mtu: int
    container_mtu: int


@dataclass(frozen=True, slots=True)
class Way:
    """The way to one peer.

    Attributes:
        device: The link that packets leave by.
        direct: Packets are sent past every tunnel.
        mtu: The largest packet that passes whole, as far as both hosts say.
    """

    device: str
    direct: bool
    mtu: int


def own_device(world: World) -> OwnDevice | None:
    """Return this host's device, None while its backend cannot be set up."""
    rules = PeerRules.of(world)
    if not isinstance(rules, PeerRules):
        return None
    uplink = rules.host.uplink
    devices = (each for each in rules.sending.own.objects if isinstance(each, LinkSpec))
    device = next(devices, None)
    return OwnDevice(
        name=device.name if device else uplink.name,
        mtu=device.mtu if device else uplink.mtu,
        container_mtu=container_mtu(uplink, world.config),
    )


def ways(world: World) -> Mapping[Network, Way]:
    """Return the way to each subnet that this host routes to."""
    rules = PeerRules.of(world)
    if not isinstance(rules, PeerRules):
        return {}
    uplink = rules.host.uplink
    mtus = {each.name: each.mtu for each in rules.objects if isinstance(each, LinkSpec)}
    mtus[uplink.name] = uplink.mtu
    found: dict[Network, Way] = {}
    for subnet, peer in world.peers.items():
        outcome = rules.outcome(peer)
        if not isinstance(outcome, PeerObjects):
            continue
        for route in outcome.objects:
            if not isinstance(route, Route) or not route.link or route.destination != subnet:
                continue  # a silent peer's route holds the one address that is asked
            mtu = route.mtu or mtus.get(route.link, 0)
            found[subnet] = Way(route.link, direct=route.link == uplink.name, mtu=mtu)
    return found
