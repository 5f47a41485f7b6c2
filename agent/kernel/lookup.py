"""The kernel's own decision on one packet, as ``ip route get DST from SRC iif LINK`` asks it."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import KernelError
from agent.kernel.netlink import NetlinkError, NetlinkSocket
from agent.kernel.netlink.links import LinkNames, dump_links
from agent.kernel.netlink.neighbours import (
    AF_BRIDGE,
    RTM_GETNEIGH,
    decode_neighbour,
    neighbour_request,
)
from agent.kernel.netlink.routes import RTM_GETROUTE, decode_route, route_lookup_request
from agent.model import Route
from agent.model.family import Address, family_of

__all__ = ["Decision", "NeighbourState", "decide", "neighbour_on", "path_to", "tunnel_end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which way a packet goes.

    Attributes:
        link: Name of the link it goes out by; None when it goes nowhere.
        gateway: The next hop; None when the destination is on the link itself.
        source: The address that a packet of this host's own is sent from.
        local: It is for this host.
        entry: The routing table's entry that decided; None before Linux 4.14.
        refusal: The kernel's error when there is no way, else "".
    """

    link: str | None = None
    gateway: Address | None = None
    source: Address | None = None
    local: bool = False
    entry: Route | None = None
    refusal: str = ""


def decide(destination: Address, *, source: Address | None = None, in_link: int = 0) -> Decision:
    """Ask the kernel (RTM_GETROUTE); it applies policy rules, forwarding and rp_filter, too.

    Args:
        destination: Where the packet goes.
        source: Its source address.
        in_link: Index of the link that it comes in by; 0 for this host's own.

    Raises:
        KernelError: No answer.
    """
    what = f"looking up the route to {destination}"
    with NetlinkSocket() as connection:
        names = LinkNames(lambda: dump_links(connection))

        def ask(*, entry: bool) -> Route | None:
            body = route_lookup_request(destination, source=source, in_link=in_link, entry=entry)
            return decode_route(connection.request(RTM_GETROUTE, body, what), names.of)

        try:
            found = ask(entry=False)
        except NetlinkError as error:
            return Decision(refusal=error.detail)
        try:
            entry = ask(entry=True)
        except NetlinkError:  # it changed in between
            entry = None
    if found is None:
        raise KernelError(f"{what}: the kernel's answer is no IPv4 route")
    return Decision(
        link=found.link,
        gateway=found.gateway,
        source=found.prefsrc,
        local=found.kind.startswith("local"),
        entry=entry,
    )


def path_to(destination: Address) -> Decision:
    """Ask which way a packet of this host's own would go.

    Raises:
        KernelError: No way there (the message has the kernel's words), or no answer.
    """
    found = decide(destination)
    if found.refusal:
        raise KernelError(f"looking up the route to {destination}: {found.refusal}")
    return found


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """An entry of the neighbour table: "valid", "failed" or "incomplete"."""

    state: str
    mac: str


def neighbour_on(address: Address, link_index: int | None = None) -> NeighbourState | None:
    """Return the entry for ``address`` on a link (None: on any), None when there is none.

    Raises:
        KernelError: The table could not be had.
    """
    body = neighbour_request(family_of(address).af)
    with NetlinkSocket() as connection:
        for payload in connection.dump(RTM_GETNEIGH, body, "listing neighbours"):
            found = decode_neighbour(payload)
            if found.address == address and link_index in {None, found.link_index}:
                state = "valid" if found.valid else "failed" if found.failed else "incomplete"
                return NeighbourState(state, found.mac)
    return None


def tunnel_end(mac: str, link_index: int) -> Address | None:
    """The address that a vxlan device sends frames for this MAC to, None when it has none.

    Raises:
        KernelError: The device's forwarding table could not be had.
    """
    body = neighbour_request(AF_BRIDGE, link_index)
    with NetlinkSocket() as connection:
        for payload in connection.dump(RTM_GETNEIGH, body, "listing forwarding entries"):
            found = decode_neighbour(payload)
            if (found.link_index, found.mac) == (link_index, mac) and found.address is not None:
                return found.address
    return None
