"""Chains that somebody made with nft, beside iptables' own, and that drop what they do not let by.

The kernel asks every base chain of a hook: what one of them drops no ACCEPT in another brings back.
firewalld and /etc/nftables.conf make such chains. Their rules are not judged here.
Sources: linux/netfilter/nf_tables.h, linux/netfilter.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from agent.errors import KernelError
from agent.kernel.codec import attributes
from agent.kernel.netlink import NetlinkSocket

__all__ = ["NftChain", "dropping_chains"]

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8
_GET_CHAIN, _GET_RULE = _SUBSYSTEM | 4, _SUBSYSTEM | 7
_MESSAGE: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_FAMILIES: Final = {1: "inet", 2: "ip"}
"""NFPROTO_INET and NFPROTO_IPV4: what forwarded IPv4 packets meet."""
_FORWARD: Final = 2
"""NF_INET_FORWARD."""
_DROP: Final = 0
"""NF_DROP."""
_C_TABLE, _C_NAME, _C_HOOK, _C_POLICY = 1, 3, 4, 5
_H_NUMBER: Final = 1
_R_TABLE, _R_CHAIN, _R_EXPRESSIONS = 1, 2, 4
_E_NAME, _E_DATA = 1, 2
_I_DATA, _D_VERDICT, _V_CODE = 2, 2, 1
_HARMLESS: Final = frozenset({"counter", "log"})
_IPTABLES: Final = frozenset({"filter", "nat", "mangle", "raw", "security"})
_DOCKERS: Final = "docker-bridges"
"""Docker 29's own table; its condition is another."""


@dataclass(frozen=True, slots=True)
class NftChain:
    """A base chain of the forward hook, and how it drops: "policy drop", "a last rule"."""

    family: str
    table: str
    name: str
    how: str


def dropping_chains() -> tuple[NftChain, ...]:
    """Those of the calling thread's network namespace; none where the kernel has no nf_tables."""
    try:
        with NetlinkSocket(family=_NETLINK_NETFILTER) as connection:
            chains = connection.dump(_GET_CHAIN, _MESSAGE.pack(0, 0, 0), "listing nft chains")
            found = (_judged(connection, payload) for payload in chains)
            return tuple(chain for chain in found if chain is not None)
    except KernelError:  # no nf_tables, no such chains; or they change without pause
        return ()


def _judged(connection: NetlinkSocket, payload: bytes) -> NftChain | None:
    family = payload[0]
    said = dict(attributes(payload, _MESSAGE.size))
    hook = dict(attributes(said.get(_C_HOOK, b""), 0))
    table, name = _text(said.get(_C_TABLE, b"")), _text(said.get(_C_NAME, b""))
    own = family == 2 and table in _IPTABLES and name == "FORWARD"  # noqa: PLR2004 - NFPROTO_IPV4
    if family not in _FAMILIES or _number(hook.get(_H_NUMBER)) != _FORWARD:
        return None
    if own or table == _DOCKERS:
        return None
    if _number(said.get(_C_POLICY)) == _DROP:
        return NftChain(_FAMILIES[family], table, name, "policy drop")
    asked = _MESSAGE.pack(family, 0, 0)
    asked += _attribute(_R_TABLE, said[_C_TABLE]) + _attribute(_R_CHAIN, said[_C_NAME])
    rules = [
        rule
        for rule in connection.dump(_GET_RULE, asked, "listing nft rules")
        if dict(attributes(rule, _MESSAGE.size)).get(_R_CHAIN) == said[_C_NAME]
    ]
    if rules and _drops_all(rules[-1]):
        return NftChain(_FAMILIES[family], table, name, "a last rule that drops or rejects")
    return None


def _drops_all(rule: bytes) -> bool:
    """Whether the rule has no test, and drops or rejects."""
    listed = dict(attributes(rule, _MESSAGE.size)).get(_R_EXPRESSIONS, b"")
    drops = False
    for _, expression in attributes(listed, 0):
        said = dict(attributes(expression, 0))
        name = _text(said.get(_E_NAME, b""))
        if name == "reject" or (name == "immediate" and _is_drop(said.get(_E_DATA, b""))):
            drops = True
        elif name not in _HARMLESS:
            return False
    return drops


def _is_drop(immediate: bytes) -> bool:
    data = dict(attributes(immediate, 0)).get(_I_DATA, b"")
    verdict = dict(attributes(data, 0)).get(_D_VERDICT, b"")
    return _number(dict(attributes(verdict, 0)).get(_V_CODE)) == _DROP


def _number(raw: bytes | None) -> int | None:
    return int.from_bytes(raw) if raw else None


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _attribute(number: int, value: bytes) -> bytes:
    raw = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value
    return raw + bytes(-len(raw) % 4)
