"""What every backend answers: how packets reach one peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.mesh.world import World
from agent.model import Condition, Lease, Route, Uplink
from agent.model.family import Network

__all__ = ["RouteBackend"]


class RouteBackend(Protocol):
    """One way for packets to travel between hosts, named as flannel names it."""

    @property
    def name(self) -> str:
        """The value of Backend.Type and BackendType, ``host-gw`` for example."""

    @property
    def overhead_bytes(self) -> int:
        """What it adds to each packet: containers' MTU is the uplink's less this."""

    def peer_route(
        self, peer: Lease, on_link: Sequence[Network], uplink: Uplink, world: World
    ) -> Route | Condition:
        """The route to ``peer``'s subnet, or why this host cannot have one.

        The peer's record has passed :mod:`agent.mesh.desired`'s checks already. Depends on the
        arguments only, so that one peer's change costs one call.

        Args:
            on_link: Every range that the uplink reaches without a gateway.
        """
