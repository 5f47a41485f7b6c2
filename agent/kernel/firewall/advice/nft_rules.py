"""Decide whether a new packet surely passes a chain that was made with nft. Pure.

Known are interfaces, addresses, the protocol family and that the packet opens a flow which no NAT
has touched. A rule that tests anything else (ports, sets) decides about a part and is left out.
Sources: linux/netfilter/nf_tables.h; libnftnl's expressions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.kernel.netlink import attributes
from agent.model.family import IPV4, IPV6, Family, Network, family_of

__all__ = ["NftRule", "Rules", "decode_rule", "drops_all", "passes"]

_ACCEPT, _DROP, _JUMP, _GOTO, _RETURN = 1, 0, -3, -4, -5
_A_VERDICT: Final = 2
"""NFTA_DATA_VERDICT."""
_DEPTH: Final = 16
"""As deep as the kernel lets chains jump (NFT_JUMP_STACK_SIZE)."""
_HARMLESS: Final = frozenset({"counter", "log"})
_NAME_SIZE: Final = 16
_IN_NAME, _OUT_NAME, _FAMILY = 6, 7, 15
_META: Final = {_IN_NAME: "-i", _OUT_NAME: "-o"}
_ADDRESS_AT: Final[Mapping[Family, Mapping[int, str]]] = {
    IPV4: {12: "-s", 16: "-d"},
    IPV6: {8: "-s", 24: "-d"},
}
"""Offsets in the network header (RFC 791, RFC 8200)."""
_NETWORK_HEADER: Final = 1
_CT: Final = {0: 8, 2: 0}
"""ct state and ct status of a new flow: NF_CT_STATE_BIT(IP_CT_NEW), no flag."""
_NOT_EQUAL: Final = 1

Packet = Mapping[str, str | Network | bool]


@dataclass(frozen=True, slots=True)
class _Expression:
    """One expression: its name and its attributes, by number."""

    name: str
    said: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class NftRule:
    """One rule: its expressions in order."""

    expressions: tuple[_Expression, ...]

    @property
    def verdict(self) -> tuple[int | None, str]:
        """Its verdict on a packet that it fits, and the chain that it sends the packet to."""
        for each in self.expressions:
            if each.name == "reject":
                return _DROP, ""
            # It also loads the value of "meta mark set 5", which decides nothing.
            given = dict(attributes(each.said.get(2, b""), 0)) if each.name == "immediate" else {}
            if _A_VERDICT in given:
                data = dict(attributes(given[_A_VERDICT], 0))
                code = int.from_bytes(data.get(1, b""), signed=True)
                return code, data.get(2, b"").rstrip(b"\0").decode("utf-8", "replace")
        return None, ""


Rules = Mapping[str, tuple[NftRule, ...]]
"""A table's rules by chain."""


def decode_rule(expressions: bytes) -> NftRule:
    """Return the rule in an attribute NFTA_RULE_EXPRESSIONS."""
    found = []
    for _, expression in attributes(expressions, 0):
        said = dict(attributes(expression, 0))
        name = said.get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
        found.append(_Expression(name, dict(attributes(said.get(2, b""), 0))))
    return NftRule(tuple(found))


def drops_all(rule: NftRule) -> bool:
    """Whether the rule has no test, and drops or rejects."""
    others = {each.name for each in rule.expressions} - _HARMLESS - {"reject", "immediate"}
    return not others and rule.verdict[0] == _DROP


def passes(rules: Rules, chain: str, packet: Packet, *, policy_drops: bool) -> bool:
    """Whether every such packet surely passes a base chain, but for parts that rules single out.

    Args:
        rules: All rules of the chain's table.
        packet: -i, -o, -s and -d as far as they are given; an address may be a whole network.
        policy_drops: Whether packets at the end of the chain are dropped.
    """
    end = _through(rules, chain, packet, _DEPTH)
    return not policy_drops if end is None else end == _ACCEPT


def _through(rules: Rules, chain: str, packet: Packet, depth: int) -> int | None:
    """_ACCEPT or _DROP; None where the packet goes on behind the chain."""
    for rule in rules.get(chain, ()):
        code, target = rule.verdict
        if code is None or not _fits(rule, packet):
            continue
        if code in {_ACCEPT, _DROP}:
            return code
        if code == _RETURN:
            return None
        if code in {_JUMP, _GOTO}:
            found = _through(rules, target, packet, depth - 1) if depth else _DROP
            if found is not None or code == _GOTO:
                return found
    return None


def _fits(rule: NftRule, packet: Packet) -> bool:
    """Whether every such packet surely fits the rule."""
    return all(_results(rule, packet))


@dataclass(frozen=True, slots=True)
class _Register:
    """Value that a rule has loaded: bytes, a number or addresses, and the mask laid over it."""

    value: bytes | int | Network
    mask: int | None = None


def _results(rule: NftRule, packet: Packet) -> Iterator[bool | None]:
    """Yield the result of each test of the rule; None for one that is not known here."""
    registers: dict[bytes, _Register | None] = {}
    for each in rule.expressions:
        said = each.said
        if each.name in {"meta", "ct", "payload"}:
            registers[_register(said, 1)] = _loaded(each, packet)
        elif each.name == "bitwise":
            registers[_register(said, 2)] = _masked(registers.get(_register(said, 1)), said)
        elif each.name == "cmp":
            yield _compared(registers.get(_register(said, 1)), said)
        elif each.name not in _HARMLESS | {"immediate", "reject"}:
            yield None


def _register(said: Mapping[int, bytes], number: int) -> bytes:
    return said.get(number, b"")


def _loaded(expression: _Expression, packet: Packet) -> _Register | None:
    said = expression.said
    key = _number(said.get(2))
    if expression.name == "ct":
        return _Register(_CT[key]) if key in _CT else None
    if expression.name == "meta":
        if key == _FAMILY:  # NFPROTO_*, which are the numbers of AF_*
            return _Register(bytes([_family(packet).af]))
        name = packet.get(_META.get(key, ""))
        return _Register(name.encode().ljust(_NAME_SIZE, b"\0")) if isinstance(name, str) else None
    family = _family(packet)
    where = packet.get(_ADDRESS_AT[family].get(_number(said.get(3)), ""))
    whole = key == _NETWORK_HEADER and _number(said.get(4)) * 8 <= family.bits
    return None if not whole or isinstance(where, str | bool | None) else _Register(where)


def _family(packet: Packet) -> Family:
    found = (value for value in packet.values() if not isinstance(value, str | bool))
    return next(map(family_of, found), IPV4)


def _masked(register: _Register | None, said: Mapping[int, bytes]) -> _Register | None:
    """A mask is all that a bitwise expression of address, state or status has."""
    mask, other = _data(said.get(4)), _data(said.get(5))
    if register is None or not mask or other.strip(b"\0"):
        return None
    if isinstance(register.value, int):
        return _Register(register.value & int.from_bytes(mask, sys.byteorder))
    if isinstance(register.value, bytes) or register.mask is not None:
        return None
    return _Register(register.value, _whole(mask, register.value))


def _compared(register: _Register | None, said: Mapping[int, bytes]) -> bool | None:
    operator, value = _number(said.get(2)), _data(said.get(3))
    if register is None or operator not in {0, _NOT_EQUAL}:
        return None
    if isinstance(register.value, int):
        same: bool | None = register.value == int.from_bytes(value, sys.byteorder)
    elif isinstance(register.value, bytes):
        same = register.value[: len(value)] == value
    else:
        same = _within(register.value, register.mask, value)
    return same if operator == 0 or same is None else not same


def _within(known: Network, mask: int | None, value: bytes) -> bool | None:
    """Whether all of ``known`` equals ``value`` under the mask; None when a part does."""
    mask = _whole(b"\xff" * len(value), known) if mask is None else mask
    wanted = _whole(value, known)
    both = mask & int(known.netmask)
    if int(known.network_address) & both != wanted & both:
        return False
    return True if both == mask else None


def _whole(first: bytes, known: Network) -> int:
    """Return the first bytes of an address of that family as a whole one."""
    return int.from_bytes(first.ljust(family_of(known).bits // 8, b"\0"))


def _data(raw: bytes | None) -> bytes:
    return dict(attributes(raw or b"", 0)).get(1, b"")


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw) if raw else 0
