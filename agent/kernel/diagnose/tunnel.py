"""Find the tunnel to a peer, and try whether it carries packets, and how large ones.

The peer's own device is asked: no container is needed, and no rule of FORWARD decides.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.errors import KernelError
from agent.kernel.diagnose.ping import Echo, Pinger
from agent.kernel.lookup import Decision, decide, neighbour_on, tunnel_end
from agent.kernel.netlink import NetlinkSocket
from agent.kernel.netlink.links import find_link
from agent.kernel.tables.links import LinkTable
from agent.kernel.wireguard.tool import PeerState, WireGuardTool
from agent.model import LinkSpec
from agent.model.family import Address, Network
from agent.model.wireguard import read_endpoint

__all__ = ["Trial", "Tunnel", "peer_state", "try_tunnel", "tunnel_to"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The way of packets to a peer by one of the agent's devices.

    Attributes:
        link: The device of this host.
        port: The device's UDP port here, 0 where it is not known.
        far: The address that outer packets are sent to; None where the device knows none.
        far_port: Their UDP port.
        public_key: The peer's, as the device knows it; "" where it has none.
        own_key: The device's, "" where it has none.
    """

    link: LinkSpec
    port: int = 0
    far: Address | None = None
    far_port: int = 0
    public_key: str = ""
    own_key: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether only the two ends can read what is in its packets."""
        return self.link.options is None


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of trying a tunnel.

    Attributes:
        largest: Bytes of the largest packet that passes whole, None without an answer.
    """

    tunnel: Tunnel
    echo: Echo
    largest: int | None

    @property
    def works(self) -> bool:
        """Whether packets pass that are as large as the device says."""
        return self.largest == self.tunnel.link.mtu

    @property
    def found(self) -> str:
        """Return the result in words."""
        name, mtu, echo = self.tunnel.link.name, self.tunnel.link.mtu, self.echo
        if not echo.rtt_s:
            port = f", UDP port {self.tunnel.port}" if self.tunnel.port else ""
            return f"nothing comes back through {name}{port}" + (
                f": {echo.problem}" if echo.problem else ""
            )
        if self.works:
            return f"{name} passes {mtu} bytes whole"
        return f"of {mtu} bytes {name} passes {self.largest or 'less than 576'} only"


def tunnel_to(address: Address) -> Tunnel | None:
    """Return the tunnel by which packets to an address leave, None where they leave by none.

    Of WireGuard's only root learns more than the device.

    Raises:
        KernelError: The kernel, or wg, does not say.
    """
    way = decide(address)
    link = next((each for each in LinkTable().list_all().own if each.name == way.link), None)
    if link is None:
        return None
    if link.options is not None:
        far = _behind_vxlan(address, way, link)
        return Tunnel(link=link, port=link.options.port, far=far, far_port=link.options.port)
    state = WireGuardTool().show(link.name) if os.geteuid() == 0 else None
    if state is None:
        return Tunnel(link=link)
    peer = next((each for each in state.peers if _holds(each, address)), None)
    if peer is None:
        return Tunnel(link=link, port=state.port, own_key=state.public_key)
    try:
        endpoint = read_endpoint(peer.endpoint)
    except ValueError:  # none is known
        endpoint = None
    return Tunnel(
        link=link,
        port=state.port,
        far=endpoint.address if endpoint else None,
        far_port=endpoint.port if endpoint else 0,
        public_key=peer.public_key,
        own_key=state.public_key,
    )


def peer_state(tunnel: Tunnel) -> PeerState | None:
    """Return wg's state of the peer, None where there is none.

    Raises:
        KernelError: wg does not say.
    """
    state = WireGuardTool().show(tunnel.link.name) if tunnel.public_key else None
    peers = () if state is None else state.peers
    return next((each for each in peers if each.public_key == tunnel.public_key), None)


def _behind_vxlan(address: Address, way: Decision, link: LinkSpec) -> Address | None:
    with NetlinkSocket() as connection:
        index = find_link(connection, link.name).number
    neighbour = neighbour_on(way.gateway or address, index)
    return None if neighbour is None else tunnel_end(neighbour.mac, index)


def _holds(peer: PeerState, address: Address) -> bool:
    return any(address in each for each in peer.ranges)


def try_tunnel(subnet: Network, echoes: int) -> Trial | None:
    """Ask a peer's own device through the tunnel; None where no tunnel leads there.

    Raises:
        NotRoot: This user may not send ICMP.
        KernelError: The kernel does not say, or there is no socket.
    """
    tunnel = tunnel_to(subnet.network_address)
    if tunnel is None:
        return None
    pinger = Pinger(subnet.network_address)
    try:
        echo = pinger.echo(echoes)
        return Trial(tunnel, echo, pinger.largest(tunnel.link.mtu) if echo.rtt_s else None)
    except OSError as error:
        raise KernelError(f"cannot ping through {tunnel.link.name}: {error.strerror}") from error
    finally:
        pinger.close()
