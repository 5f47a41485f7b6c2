"""The protocol of backends: this host's objects, one peer's objects, and published data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.model import BackendData, Condition, HostId, Lease, MeshConfig, Route, Uplink
from agent.model.family import Address, Family, Network, family_of
from agent.model.objects import FdbEntry, LinkAddress, LinkSpec, Neighbour
from agent.model.untrusted import Fields
from agent.model.wireguard import AllowedIp, WireGuardDevice, WireGuardPeer

__all__ = [
    "Backend",
    "HostObjects",
    "KernelObject",
    "PeerObjects",
    "ThisHost",
    "TunnelPort",
    "outer_mtu",
    "peer_same_address",
    "published_by",
]

_MIN_MTU, _MAX_MTU = 576, 65535
"""The MTU that every IPv4 host accepts (RFC 791), and the largest of its length field."""

KernelObject = (
    Route
    | LinkSpec
    | LinkAddress
    | Neighbour
    | FdbEntry
    | WireGuardDevice
    | WireGuardPeer
    | AllowedIp
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisHost:
    """All that a backend may depend on beside a peer's lease: equal hosts, equal answers.

    Attributes:
        on_link: Every range that the uplink reaches without a gateway.
        subnets: Of this host, the one for new networks first; none before the first claim.
        protocol, table, metric: Of every route.
    """

    config: MeshConfig
    uplink: Uplink
    on_link: tuple[Network, ...]
    subnets: tuple[Network, ...]
    host_id: HostId
    protocol: int
    table: int
    metric: int

    @property
    def options(self) -> Fields:
        """The backend's options in the mesh's config, to be read field by field."""
        options = self.config.backend_options
        return Fields({} if options is None else options.fields)

    def shares_link_with(self, address: Address) -> bool:
        """Whether the uplink reaches ``address`` without a gateway."""
        return any(address in each for each in self.on_link)

    def is_direct(self, peer: Lease) -> bool:
        """Whether the peer is on the link, and on no other segment of the same range.

        A flannel host does not say which segment it is on.
        """
        same = peer.host_id is None or peer.link == self.uplink.link
        return same and self.shares_link_with(peer.node_address)

    @property
    def source(self) -> Address | None:
        """The source of packets that this host's own processes send into a tunnel."""
        return self.subnets[0].network_address if self.subnets else None

    def addresses_of(self, link: str) -> tuple[LinkAddress, ...]:
        """Return the addresses of a tunnel's device: the network address of each subnet."""
        return tuple(
            LinkAddress(link=link, interface=family_of(each).interface(each.network_address))
            for each in self.subnets
        )

    def smaller_mtu(self, peer: Lease, overhead: int = 0) -> int:
        """Return the largest packet that the peer takes, 0 where this host takes no larger one.

        Senders get "fragmentation needed" then, where a switch would drop the packet unseen. A
        record may name a number that no host can have: it counts as none.
        """
        smaller = _MIN_MTU <= peer.mtu < outer_mtu(self.uplink, self.options)
        return peer.mtu - overhead if smaller else 0

    def direct_route(self, peer: Lease) -> Route:
        """Return the route that leads past a tunnel to a peer on the link."""
        mtu = self.smaller_mtu(peer)
        return self.route(peer.subnet, peer.node_address, self.uplink.name, mtu=mtu)

    def route(
        self,
        destination: Network,
        gateway: Address | None,
        link: str,
        *,
        source: Address | None = None,
        onlink: bool = False,
        mtu: int = 0,
    ) -> Route:
        """Return a route with the agent's protocol.

        Args:
            gateway: None where every address is on ``link``.
            source: Of packets of this host's own processes; None for the link's address.
            onlink: The gateway is on the link though no address of the link says so.
            mtu: Largest packet that the peer takes, 0 for the link's.
        """
        return Route(
            destination=destination,
            gateway=gateway,
            link=link,
            prefsrc=source,
            onlink=onlink,
            mtu=mtu,
            protocol=self.protocol,
            table=self.table,
            metric=self.metric,
        )


@dataclass(frozen=True, slots=True)
class TunnelPort:
    """The UDP port by which a tunnel's packets come in.

    Attributes:
        link: The tunnel's device.
        authenticated: The device drops what no peer has signed: open to every address, since a
            peer's may change. Otherwise the port is open to node addresses of peers only.
    """

    port: int
    link: str
    authenticated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostObjects:
    """Objects that a backend needs on this host, independent of peers.

    Attributes:
        objects: Links, their addresses, and so on.
        ingress: Names of the links by which peers' packets come in.
        ports: UDP ports by which tunnels' packets come in.
        published: The data that peers need of this host, written with its lease.
    """

    objects: tuple[KernelObject, ...] = ()
    ingress: tuple[str, ...] = ()
    ports: tuple[TunnelPort, ...] = ()
    published: BackendData | None = None


@dataclass(frozen=True, slots=True)
class PeerObjects:
    """Objects for one lease of a peer.

    Attributes:
        objects: In any order. Another peer may want one of them, too.
        ingress: Names of the links by which this peer may deliver packets now.
        condition: Why the objects are not those that the mesh's config asks for.
    """

    objects: tuple[KernelObject, ...]
    ingress: tuple[str, ...] = ()
    condition: Condition | None = None


class Backend(Protocol):
    """One way for packets to travel between hosts, named as flannel names it.

    Its answers depend on the arguments only, so that one peer's change costs one call.
    """

    @property
    def name(self) -> str:
        """The value of Backend.Type and BackendType, ``host-gw`` for example."""

    def overhead(self, family: Family) -> int:
        """Return the bytes that it adds to each packet between nodes of this family."""

    def host_objects(self, host: ThisHost) -> HostObjects | Condition:
        """Return the objects of this host, or why it cannot take part with this backend.

        Also asked before this host has a lease: what it publishes is written with the claim.

        Raises:
            ValueError: The options are not usable; the reason is fit to be shown.
        """

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects | Condition:
        """Return the objects that lead to ``peer``'s subnet, or why there can be none.

        The lease has passed the checks of :mod:`agent.mesh.peer_rules` already, but for its
        ``backend_data``: a record may say anything there (:func:`published_by`).

        Raises:
            ValueError: The peer's data is not usable; the reason is fit to be shown.
        """


def published_by(peer: Lease) -> Fields:
    """Return what a peer publishes, to be read field by field with its type and range."""
    return Fields({} if peer.backend_data is None else peer.backend_data.fields)


def outer_mtu(uplink: Uplink, options: Fields) -> int:
    """Return the largest packet between node addresses: the uplink's, or the config's if smaller.

    Raises:
        ValueError: The option ``MTU`` is not usable.
    """
    return min(uplink.mtu, options.integer("MTU", _MIN_MTU, _MAX_MTU, default=_MAX_MTU))


def peer_same_address(peer: Lease) -> Condition:
    """Return the condition for a peer that claims this host's node address."""
    return Condition(
        name="peer-same-address",
        subject=str(peer.subnet),
        cause=f"the owner of {peer.subnet} has this host's node address {peer.node_address}",
        hint="two hosts have one address, or an old record of this host is still there: "
        "see agentctl leases",
    )
