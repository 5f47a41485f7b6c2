"""Delete running flows that were masqueraded while NAT rules were wrong.

NAT is decided once per flow: when the rules are right again, a running ping keeps its wrong source
until its conntrack entry goes. Sources: linux/netfilter/nfnetlink_conntrack.h,
net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from agent.errors import KernelError
from agent.kernel.netlink import NetlinkSocket, attribute, attributes
from agent.kernel.netlink.message import ACK, NESTED, frame
from agent.kernel.netlink.netfilter import BODY_AT, NETFILTER, about
from agent.mesh.firewall import DesiredFirewall
from agent.model.family import IPV4, IPV6, Family, Network

__all__ = ["Flows", "FlowsLook"]

_GET: Final = 1 << 8 | 1
"""NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_GET."""
_DELETE: Final = 1 << 8 | 2
"""IPCTNL_MSG_CT_DELETE."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_ORIGINAL, _REPLY, _STATUS, _ZONE, _STATUS_MASK = 1, 2, 3, 18, 26
"""CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_ZONE, CTA_STATUS_MASK."""
_TUPLE_IP: Final = 1
_ENDS: Final = {IPV4: (1, 2), IPV6: (3, 4)}
"""CTA_TUPLE_IP; in it CTA_IP_V4_SRC and CTA_IP_V4_DST, CTA_IP_V6_SRC and CTA_IP_V6_DST."""
_SOURCE_NAT: Final = struct.pack("!I", 1 << 4)
"""IPS_SRC_NAT of linux/netfilter/nf_conntrack_common.h."""
_DEADLINE_S: Final = 3.0
_BATCH: Final = 500
_WHAT: Final = "listing masqueraded flows"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsLook:
    """One look through the kernel's flows.

    Attributes:
        freed: How many were deleted.
        left: How many were found and not deleted for want of time.
    """

    freed: int = 0
    left: int = 0

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        return not self.left


class Flows:
    """The kernel's connection tracking table, in the namespace of the calling thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def free_masqueraded(
        self, wants: DesiredFirewall, slices: Mapping[str, Iterable[Network]]
    ) -> FlowsLook:
        """Delete flows whose source the agent's NAT rules would keep, and which have another one.

        That is from a subnet of this host to the mesh outside this host, with replies that go
        elsewhere than to the source; from a closed network to other slices of its mesh network.

        Args:
            slices: Of the closed networks, by the names of their sets.

        Returns:
            At most about 3 s are spent on deleting. An error is logged, not raised: the rules are
            right by now, and flows end some time.
        """
        freed, left = 0, 0
        ends_s = self._clock() + _DEADLINE_S
        try:
            with NetlinkSocket(family=NETFILTER) as connection:
                wrong = connection.dump(
                    _GET, _question(wants.family), _WHAT, pick=_Wrong(wants, slices).key
                )
                for start in range(0, len(wrong), _BATCH):
                    if self._clock() > ends_s:
                        left = len(wrong) - start
                        break
                    freed += _forget(connection, wants.family, wrong[start : start + _BATCH])
        except KernelError as error:
            _log.warning("firewall-flows-unreadable", error=error.message)
        return FlowsLook(freed=freed, left=left)


class _Wrong:
    """Finds flows that have a source which they must not have."""

    def __init__(self, wants: DesiredFirewall, slices: Mapping[str, Iterable[Network]]) -> None:
        self._source, self._dest = _ENDS[wants.family]
        self._size = wants.family.bits // 8
        # The kernel writes addresses first: where to a flow goes is seen at a glance.
        one = _ATTRIBUTE.size + self._size
        self._head = struct.pack(
            "=HHHHH",
            _ORIGINAL | NESTED,
            _ATTRIBUTE.size + 2 * one,
            _TUPLE_IP | NESTED,
            one,
            self._source,
        )
        self._dest_head = _ATTRIBUTE.pack(one, self._dest)
        self._leases = _ranges(wants.leases)
        self._closed = tuple(
            (_ranges((each.subnet,)), _ranges(slices.get(each.slices, ())))
            for each in wants.networks
            if each.closed
        )
        self._cidrs = _ranges(wants.cidrs)

    def key(self, payload: bytes) -> bytes | None:
        """Return the attributes by which the kernel finds this flow; None when nothing is wrong."""
        if self._goes_elsewhere(payload):
            return None
        original = reply = zone = b""
        for number, value in attributes(payload, BODY_AT):
            if number == _ORIGINAL:
                original = value
            elif number == _REPLY:
                reply = value
            elif number == _ZONE:
                zone = value
        source, dest = self._addresses(original)
        _, back = self._addresses(reply)
        if source == back or not (_in(source, self._leases) and _in(dest, self._cidrs)):
            return None
        if _in(dest, self._leases):
            return None
        if any(_in(source, of) and not _in(dest, others) for of, others in self._closed):
            return None
        key = attribute(_ORIGINAL | NESTED, original)
        return key + attribute(_ZONE, zone) if zone else key

    def _goes_elsewhere(self, payload: bytes) -> bool:
        """Whether a flow surely does not go to the mesh, as most of very many do not."""
        head, dest = 16 + self._size, 20 + self._size
        is_usual = payload[6:16] == self._head and payload[head:dest] == self._dest_head
        to = int.from_bytes(payload[dest : dest + self._size])
        return is_usual and not _in(to, self._cidrs)

    def _addresses(self, half: bytes) -> tuple[int | None, int | None]:
        """Return source and destination of one direction of a flow; None for another family's."""
        source = dest = None
        for number, value in attributes(half, 0):
            if number == _TUPLE_IP:
                found = dict(attributes(value, 0))
                source, dest = (
                    None if raw is None else int.from_bytes(raw)
                    for raw in (found.get(self._source), found.get(self._dest))
                )
        return source, dest


def _ranges(networks: Iterable[Network]) -> tuple[tuple[int, int], ...]:
    """Return mask and address of each."""
    return tuple((int(each.netmask), int(each.network_address)) for each in networks)


def _in(address: int | None, ranges: tuple[tuple[int, int], ...]) -> bool:
    return address is not None and any(address & mask == net for mask, net in ranges)


def _question(family: Family) -> bytes:
    """Ask for flows of a family with source NAT. Kernels before 5.15 do not filter."""
    return about(family.af) + attribute(_STATUS, _SOURCE_NAT) + attribute(_STATUS_MASK, _SOURCE_NAT)


def _forget(connection: NetlinkSocket, family: Family, keys: Sequence[bytes]) -> int:
    """Delete these flows, and return how many there still were."""
    first = connection.next_sequences(len(keys))
    last = first + len(keys) - 1
    head = about(family.af)
    frames = [
        frame(_DELETE, ACK if sequence == last else 0, sequence, head + key)
        for sequence, key in enumerate(keys, first)
    ]
    failed = connection.batch(frames, "forgetting masqueraded flows")
    refused = [words for number, words in failed.values() if number != errno.ENOENT]
    if refused:
        _log.warning("firewall-flows-refused", count=len(refused), error=refused[0])
    return len(keys) - len(failed)
