"""List base chains made with nft, beside iptables' own, that drop packets they do not accept.

The kernel asks every base chain of a hook, and no ACCEPT in one undoes a DROP in another. firewalld
and /etc/nftables.conf make such chains. They are listed with their rules, for nft_rules.py.
Sources: linux/netfilter/nf_tables.h, linux/netfilter.h.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

from agent.errors import KernelError
from agent.kernel.firewall.advice.nft_rules import NftRule, Rules, decode_rule, drops_all
from agent.kernel.netlink import NetlinkError, NetlinkSocket, attribute, attributes
from agent.kernel.netlink.message import text_of
from agent.kernel.netlink.netfilter import BODY_AT, NETFILTER, about
from agent.model.family import IPV4, Family

__all__ = ["NftChain", "dropping_chains", "generation"]

_SUBSYSTEM: Final = 10 << 8
_GET_CHAIN, _GET_RULE, _GET_GENERATION = _SUBSYSTEM | 4, _SUBSYSTEM | 7, _SUBSYSTEM | 16
_INET: Final = 1
"""NFPROTO_INET: packets of either family meet its chains. NFPROTO_* of one family is its AF_*."""
_FORWARD: Final = 2
"""NF_INET_FORWARD."""
_DROP: Final = 0
"""NF_DROP."""
_G_ID: Final = 1
_C_TABLE, _C_NAME, _C_HOOK, _C_POLICY = 1, 3, 4, 5
_H_NUMBER: Final = 1
_R_TABLE, _R_CHAIN, _R_EXPRESSIONS = 1, 2, 4
_IPTABLES: Final = frozenset({"filter", "nat", "mangle", "raw", "security"})
_NO_NFTABLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""Errors of a kernel without nf_tables (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c)."""
_DOCKERS: Final = "docker-bridges"
"""Docker 29's own table, which has a condition of its own."""


@dataclass(frozen=True, slots=True)
class NftChain:
    """A base chain of the forward hook that drops what it does not accept.

    Attributes:
        how: For messages: "policy drop", "a last rule …".
        policy_drops: Whether the chain's policy drops.
        rules: All rules of the table, by chain.
    """

    family: str
    table: str
    name: str
    how: str
    policy_drops: bool = True
    rules: Rules = field(default_factory=dict, compare=False)

    @property
    def place(self) -> str:
        """As nft names it: "inet firewalld filter_FORWARD"."""
        return f"{self.family} {self.table} {self.name}"


def generation() -> int | None:
    """Return the kernel's count of nft transactions in the calling thread's network namespace.

    None where it is not known, such as on a kernel without nf_tables.
    """
    try:
        with NetlinkSocket(family=NETFILTER) as connection:
            found = connection.request(_GET_GENERATION, about(), "reading nft's generation")
    except KernelError:
        return None
    return _number(dict(attributes(found, BODY_AT)).get(_G_ID))


def dropping_chains(family: Family = IPV4) -> tuple[NftChain, ...]:
    """Return those of the calling thread's network namespace that packets of a family meet.

    None where the kernel has no nf_tables.

    Raises:
        KernelError: They could not be listed completely.
    """
    with NetlinkSocket(family=NETFILTER) as connection:
        try:
            chains = connection.dump(_GET_CHAIN, about(), "listing nft chains")
        except NetlinkError as error:
            if error.errno in _NO_NFTABLES:
                return ()
            raise
        found = (_judged(connection, payload, family) for payload in chains)
        return tuple(chain for chain in found if chain is not None)


def _judged(connection: NetlinkSocket, payload: bytes, of: Family) -> NftChain | None:
    names = {_INET: "inet", of.af: of.nft}
    family = payload[0]
    said = dict(attributes(payload, BODY_AT))
    hook = dict(attributes(said.get(_C_HOOK, b""), 0))
    table, name = text_of(said.get(_C_TABLE, b"")), text_of(said.get(_C_NAME, b""))
    own = family == of.af and table in _IPTABLES and name == "FORWARD"
    if family not in names or _number(hook.get(_H_NUMBER)) != _FORWARD:
        return None
    if own or table == _DOCKERS:
        return None
    policy_drops = _number(said.get(_C_POLICY)) == _DROP
    if not policy_drops:
        # The table of a chain that drops nothing may be large: kube-proxy's has 10,000 rules.
        last = _rules(connection, family, said[_C_TABLE], said[_C_NAME]).get(name, ())[-1:]
        if not any(map(drops_all, last)):
            return None
    rules = _rules(connection, family, said[_C_TABLE])
    how = "policy drop" if policy_drops else "a last rule that drops or rejects"
    return NftChain(names[family], table, name, how, policy_drops, rules)


def _rules(
    connection: NetlinkSocket, family: int, table: bytes, chain: bytes | None = None
) -> Rules:
    """Return the rules of a table, or of one chain in it, by chain and in order."""
    asked = about(family) + attribute(_R_TABLE, table)
    asked += b"" if chain is None else attribute(_R_CHAIN, chain)
    found: dict[str, list[NftRule]] = {}
    for payload in connection.dump(_GET_RULE, asked, "listing nft rules"):
        said = dict(attributes(payload, BODY_AT))
        if payload[0] == family and said.get(_R_TABLE) == table:
            rule = decode_rule(said.get(_R_EXPRESSIONS, b""))
            found.setdefault(text_of(said.get(_R_CHAIN, b"")), []).append(rule)
    return {chain: tuple(rules) for chain, rules in found.items()}


def _number(raw: bytes | None) -> int | None:
    return int.from_bytes(raw) if raw else None
