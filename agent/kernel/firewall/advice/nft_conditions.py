"""Conditions about chains made with nft that drop mesh traffic whatever iptables says. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from agent.kernel.firewall.advice.nft_chains import NftChain
from agent.kernel.firewall.advice.nft_rules import Packet, passes
from agent.kernel.firewall.advice.operator_rules import mesh_packets
from agent.mesh.firewall import DesiredFirewall
from agent.model import Condition
from agent.model.family import Network

__all__ = [
    "FIREWALLD",
    "NODES_AT_MOST",
    "chains_in_the_way",
    "dropped_sources",
    "mesh_sources",
    "nft_chains",
    "shown",
]

FIREWALLD: Final = "firewalld"
"""The table that firewalld writes with its nftables backend."""
NODES_AT_MOST: Final = 32
"""How many node addresses are judged, and given to firewalld: it makes rules for pairs of them."""


def mesh_sources(wants: DesiredFirewall) -> tuple[Network, ...]:
    """Return sources of traffic to containers: the mesh's ranges, then peers' node addresses."""
    return (*wants.cidrs, *wants.nodes[:NODES_AT_MOST])


def dropped_sources(chain: NftChain, wants: DesiredFirewall) -> tuple[Network, ...]:
    """Return those of :func:`mesh_sources` whose new flows do not surely pass the chain."""
    found = {source for source, packet in _packets(wants) if not _passes(chain, packet)}
    return tuple(source for source in mesh_sources(wants) if source in found)


def chains_in_the_way(chains: tuple[NftChain, ...], packet: Packet) -> tuple[NftChain, ...]:
    """Return the chains that such a new packet does not surely pass."""
    return tuple(chain for chain in chains if not _passes(chain, packet))


def nft_chains(chains: tuple[NftChain, ...], wants: DesiredFirewall) -> Iterator[Condition]:
    """Yield a condition for each chain that does not surely let the mesh pass."""
    for chain in chains:
        dropped = dropped_sources(chain, wants)
        if not dropped:
            continue
        if chain.table == FIREWALLD:
            yield _firewalld(chain, dropped)
            continue
        yield Condition(
            name="operator-nft-chain",
            subject=chain.place,
            cause=f"chain {chain.place} (nft) has {chain.how}: it drops new traffic between"
            f" containers here and {_listed(dropped)} whatever iptables says, unless a rule"
            " that tests more than interfaces and addresses accepts it",
            hint=f"accept it: {_nft_commands(chain, dropped, wants)}; also write these rules to"
            " the file that makes the chain",
        )


def _nft_commands(chain: NftChain, dropped: tuple[Network, ...], wants: DesiredFirewall) -> str:
    ip = wants.family.nft
    rules = [
        "ct state established,related",
        *(
            f"iifname {up} {ip} saddr {shown(each)} {ip} daddr {wants.lease}"
            for up, each in product(wants.carrying, dropped)
        ),
        *(
            f"oifname {up} {ip} saddr {wants.lease} {ip} daddr {wants.cidr}"
            for up in wants.carrying
        ),
    ]
    return "; ".join(f"nft insert rule {chain.place} {rule} accept" for rule in rules)


def _firewalld(chain: NftChain, dropped: tuple[Network, ...]) -> Condition:
    sources = " ".join(f"--add-source={shown(each)}" for each in dropped)
    return Condition(
        name="firewalld-blocks-mesh",
        subject=chain.place,
        cause=f"firewalld (chain {chain.place}) does not let new traffic of {_listed(dropped)} pass"
        " to this host's containers, whatever iptables says",
        hint=f"firewall-cmd --permanent --zone=trusted {sources}; firewall-cmd --reload"
        ' (or set firewall.firewalld = "manage" in agent.toml and restart the agent)',
    )


def shown(source: Network) -> str:
    """Return a source as firewall-cmd takes and lists it: a host without its length."""
    return str(source.network_address) if source.prefixlen == source.max_prefixlen else str(source)


def _listed(sources: tuple[Network, ...]) -> str:
    return ", ".join(map(shown, sources))


def _packets(wants: DesiredFirewall) -> Iterator[tuple[Network, Packet]]:
    """Yield new flows, each with the source that has to be let in for it."""
    nodes = wants.nodes[:NODES_AT_MOST]
    for packet in mesh_packets(wants):
        inward = packet.get("-i") in wants.carrying
        source = packet["-s" if inward else "-d"]
        if isinstance(source, str | bool):
            continue
        yield source, packet
        if inward and source == wants.cidr:
            for node in nodes:
                yield node, {**packet, "-s": node}


def _passes(chain: NftChain, packet: Packet) -> bool:
    return passes(chain.rules, chain.name, packet, policy_drops=chain.policy_drops)
