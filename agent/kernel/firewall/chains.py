"""Our chains' rules for what is wanted. Pure: the same wants give the same text.

Each rule carries its purpose as a comment. The number of rules depends on the host's own
Docker networks, never on the number of peers and containers: those are members of sets.

Mesh traffic is recognised by the interface it came in by as well as by its addresses.
Addresses alone let a container of one Docker network reach an unpublished port of another
one on the same host, which Docker had blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from types import MappingProxyType
from typing import Any, Final

from agent.kernel.firewall.rule_text import join_words
from agent.mesh.firewall import (
    Access,
    DesiredFirewall,
    Ingress,
    LocalBridge,
    WantedNetwork,
    set_name,
)
from agent.model.family import Family, Network

__all__ = [
    "DOCKER_CHAIN",
    "DOCKER_USER",
    "ENTRIES",
    "OURS",
    "closing_chains",
    "jump_to",
    "our_chains",
    "shut_out",
]

OURS: Final = "HOSTMESH-"
"""Every chain of ours bears this prefix, and no other chain does."""

FORWARD: Final = OURS + "FORWARD"
INBOUND: Final = OURS + "INBOUND"
PREROUTING: Final = OURS + "PREROUTING"
SENDERS: Final = OURS + "SENDERS"
POSTROUTING: Final = OURS + "POSTROUTING"

DOCKER_USER: Final = "DOCKER-USER"
DOCKER_CHAIN: Final = "DOCKER"
"""Docker's chain of published ports, on every engine since 1.13: Docker's rules are there."""

ENTRIES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "raw": ("PREROUTING", PREROUTING),
        "filter": ("FORWARD", FORWARD),
        "nat": ("POSTROUTING", POSTROUTING),
    }
)
"""Table -> (built-in chain that traffic comes through, our chain that it must reach)."""

_REPLIES: Final = "RELATED,ESTABLISHED"

Chains = Mapping[str, tuple[str, ...]]


def jump_to(chain: str) -> str:
    """Body of the one rule that leads from a foreign chain into ``chain``."""
    return _rule("hostmesh: everything of ours is in this chain", chain)


def our_chains(wants: DesiredFirewall) -> Mapping[str, Chains]:
    """Table -> chain -> rule bodies."""
    # Members of sets are no rules: without them what was asked before is found at once.
    none: frozenset[Any] = frozenset()
    ingress = tuple(Ingress(name, none) for name in wants.interfaces)
    return _our_chains(replace(wants, ingress=ingress, published=none, senders=none))


@lru_cache(maxsize=4)
def _our_chains(wants: DesiredFirewall) -> Mapping[str, Chains]:
    """Cached: most passes ask for the same again."""
    return MappingProxyType(
        {
            "raw": MappingProxyType({PREROUTING: _prerouting(wants), SENDERS: _senders(wants)}),
            "filter": MappingProxyType({FORWARD: _forward(wants), INBOUND: _inbound(wants)}),
            "nat": MappingProxyType({POSTROUTING: _postrouting(wants)}),
        }
    )


def closing_chains(leases: tuple[Network, ...], interfaces: Iterable[str]) -> Chains:
    """Chains of the filter table that close this host's subnets and open nothing.

    For the time before Docker has said which networks there are: its containers may run already.

    Args:
        leases: Every subnet of this host.
        interfaces: Names of every interface by which a packet from outside may come.
    """
    return MappingProxyType({FORWARD: (*_within_host(leases, interfaces), *shut_out(leases))})


def _within_host(leases: tuple[Network, ...], interfaces: Iterable[str]) -> Iterator[str]:
    """Yield the first rules of the forwarding chain: addresses of this host as source."""
    pairs = tuple(product(leases, leases))
    for interface, (source, dest) in product(interfaces, pairs):
        yield _rule("hostmesh: forged, own addresses do not come from outside", "DROP",
                    source=source, dest=dest, inp=interface)  # fmt: skip
    for source, dest in pairs:
        yield _rule("hostmesh: between networks of this host Docker decides", "RETURN",
                    source=source, dest=dest)  # fmt: skip


def shut_out(leases: tuple[Network, ...]) -> tuple[str, ...]:
    """Return the last rules of the forwarding chain: nothing else enters ``leases``."""
    return tuple(
        _rule("hostmesh: strangers reach published ports of the host only", "DROP",
              dest=lease, not_states=f"{_REPLIES},DNAT")
        for lease in leases
    )  # fmt: skip


def _prerouting(wants: DesiredFirewall) -> tuple[str, ...]:
    """Ahead of the DROP that Docker 28 keeps here for every container.

    Raw comes before connection tracking un-NATs, so replies die in it too. A source in the mesh
    that may not come by an interface is dropped here whatever the flow's state: a packet written
    into a running flow has no address of its own to be told by.
    """
    closed = [network.subnet for network in wants.networks if network.closed]
    held = (
        _rule("hostmesh: not from the subnet of the bridge", SENDERS,
              source=bridge.subnet, not_source=True, inp=bridge.name)
        for bridge in _held(wants)
    )  # fmt: skip
    return (
        *held,
        *(rule for up in wants.interfaces for rule in _coming_in(wants, up, closed)),
    )


def _coming_in(wants: DesiredFirewall, up: str, closed: list[Network]) -> Iterator[str]:
    sources = (set_name("in", wants.family, up), "src")
    for lease in wants.leases:
        yield _rule("hostmesh: own addresses do not come from outside", "RETURN",
                    source=lease, inp=up)  # fmt: skip
    for lease, cidr in product(wants.leases, wants.cidrs):
        yield _rule("hostmesh: forged, or a host that may not deliver by this interface", "DROP",
                    source=cidr, dest=lease, inp=up, not_set=sources)  # fmt: skip
    for subnet in closed:
        yield _rule("hostmesh: closed network, left to Docker", "RETURN", dest=subnet, inp=up)
    for lease in wants.leases:
        yield _rule("hostmesh: other hosts and their containers", "ACCEPT",
                    dest=lease, inp=up, match_set=sources)  # fmt: skip


def _held(wants: DesiredFirewall) -> Iterator[LocalBridge]:
    """Bridges whose containers are held to the bridge's own subnet.

    Not one that is the uplink as well (a Docker network on the LAN's own bridge): the traffic of
    every other host comes in by it.
    """
    return (bridge for bridge in wants.bridges if bridge.name not in wants.interfaces)


def _senders(wants: DesiredFirewall) -> tuple[str, ...]:
    """Mesh traffic that a container sends with an address which its bridge does not have.

    Docker grants NET_RAW, so a container writes any source it likes. Other hosts believe the
    source of what arrives by their uplink: it can be checked here only. Within one bridge
    nothing is checked, with br_netfilter neither: a container there may route for others.
    """
    return (
        _rule("hostmesh: of a container with several networks", "RETURN",
              match_set=(set_name("senders", wants.family), "src,src")),
        *(_rule("hostmesh: forged, from a container", "DROP", source=cidr) for cidr in wants.cidrs),
        *(
            _rule("hostmesh: forged, as another host", "DROP",
                  match_set=(set_name("in", wants.family, up), "src"))
            for up in wants.interfaces
        ),
        *(
            _rule("hostmesh: stays within the bridge", "RETURN",
                  dest=bridge.subnet, inp=bridge.name)
            for bridge in _held(wants)
            if bridge.subnet is not None
        ),
        *(
            _rule("hostmesh: forged, to the mesh from elsewhere", "DROP", dest=cidr)
            for cidr in wants.cidrs
        ),
    )  # fmt: skip


def _forward(wants: DesiredFirewall) -> tuple[str, ...]:
    leases = wants.leases
    return (
        *_within_host(leases, wants.interfaces),
        *(rule for up in wants.interfaces for rule in _forward_by(wants, up)),
        *(
            _rule("hostmesh: from a Docker network of this host, left to Docker", "RETURN",
                  dest=lease, inp=bridge.name)
            for bridge in wants.bridges
            if bridge.subnet is not None
            for lease in leases
        ),
        *shut_out(leases),
    )  # fmt: skip


def _forward_by(wants: DesiredFirewall, up: str) -> Iterator[str]:
    """Mesh traffic by one interface, in and out.

    The set alone is not enough on the way out of a network: it holds node addresses, too, and
    whether a container reaches a host itself is Docker's to decide.
    """
    name = set_name("in", wants.family, up)
    for network, cidr in product(wants.networks, wants.cidrs):
        if network.internal:
            yield _rule("hostmesh: internal network", "DROP", dest=cidr, inp=network.bridge, out=up)
    for lease in wants.leases:
        yield _rule("hostmesh: from other hosts and their containers", INBOUND,
                    dest=lease, inp=up, match_set=(name, "src"))  # fmt: skip
        yield _rule("hostmesh: replies to other hosts and their containers", "ACCEPT",
                    source=lease, out=up, match_set=(name, "dst"), states=_REPLIES)  # fmt: skip
    for network, cidr in product(wants.networks, wants.cidrs):
        if not network.closed:
            yield _rule("hostmesh: to containers of other hosts", "ACCEPT",
                        source=network.subnet, dest=cidr, inp=network.bridge, out=up,
                        match_set=(name, "dst"))  # fmt: skip


def _inbound(wants: DesiredFirewall) -> tuple[str, ...]:
    """Mesh traffic to this host's containers. What falls through meets FORWARD's last rule."""
    closed = [network.subnet for network in wants.networks if network.closed]
    accepting = [network for network in wants.networks if not network.closed]
    return (
        # Neither masqueraded nor DNATed: a flow that began while the network was open.
        *(_rule("hostmesh: closed network, running flows too", "DROP", dest=subnet,
                not_states="SNAT,DNAT") for subnet in closed),
        *(_rule("hostmesh: closed network", "RETURN", dest=subnet) for subnet in closed),
        _rule("hostmesh: replies", "ACCEPT", states=_REPLIES),
        *(
            body
            for network in accepting
            for body in _opened(network, wants.family)
        ),
    )  # fmt: skip


def _opened(network: WantedNetwork, family: Family) -> tuple[str, ...]:
    """Rules for one network that is not closed.

    A published network looks its ports up in a set, and falls through to the DROP after it.
    Docker's own chain does not say at which address of the host a port is published.
    """
    subnet, bridge = network.subnet, network.bridge
    if network.access is Access.OPEN:
        return (_rule("hostmesh: open network", "ACCEPT", dest=subnet, out=bridge),)
    return (
        _rule("hostmesh: ICMP", "ACCEPT", dest=subnet, out=bridge, protocol=family.icmp),
        _rule("hostmesh: published ports", "ACCEPT",
              dest=subnet, out=bridge, match_set=(set_name("published", family), "dst,dst")),
    )  # fmt: skip


def _postrouting(wants: DesiredFirewall) -> tuple[str, ...]:
    """Ahead of Docker's MASQUERADE: containers of other hosts see true source addresses.

    By range, not by set: NAT is decided once per flow, and the first packet to a new peer may be
    ahead of its member. The set holds node addresses, too, which see this host's own address.
    """
    leases = wants.leases
    return (
        *(
            _rule("hostmesh: within this host Docker decides", "RETURN", source=source, dest=dest)
            for source, dest in product(leases, leases)
        ),
        *(
            _rule("hostmesh: closed network, left to Docker", "RETURN", source=network.subnet)
            for network in wants.networks
            if network.closed
        ),
        *(
            _rule("hostmesh: true source addresses within the mesh", "ACCEPT",
                  source=lease, dest=cidr, out=up)
            for up, lease, cidr in product(wants.interfaces, leases, wants.cidrs)
        ),
    )  # fmt: skip


def _rule(
    comment: str,
    target: str,
    *,
    source: Network | None = None,
    not_source: bool = False,
    dest: Network | None = None,
    inp: str = "",
    out: str = "",
    protocol: str = "",
    match_set: tuple[str, str] | None = None,
    not_set: tuple[str, str] | None = None,
    states: str = "",
    not_states: str = "",
) -> str:
    """One rule's body, in the order iptables-save prints."""
    words: list[str] = []
    words += ([*(["!"] if not_source else []), "-s", str(source)]) if source else []
    words += ["-d", str(dest)] if dest else []
    words += ["-i", inp] if inp else []
    words += ["-o", out] if out else []
    words += ["-p", protocol] if protocol else []
    words += ["-m", "set", "--match-set", *match_set] if match_set else []
    words += ["-m", "set", "!", "--match-set", *not_set] if not_set else []
    words += ["-m", "conntrack", "--ctstate", states] if states else []
    words += ["-m", "conntrack", "!", "--ctstate", not_states] if not_states else []
    words += ["-m", "comment", "--comment", comment, "-j", target]
    return join_words(tuple(words))
