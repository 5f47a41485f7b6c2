"""Running flows that were masqueraded while NAT rules were out of order.

NAT is decided once per flow: after the rules are right again a running ping keeps its wrong
source until its conntrack entry goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Final

import structlog
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

__all__ = ["Flows"]

_SRC_NAT: Final = 1 << 4
"""IPS_SRC_NAT of linux/netfilter/nf_conntrack_common.h."""
_Ranges = tuple[IPv4Network, ...]

_MAX_FLOWS: Final = 10_000
_DEADLINE_S: Final = 3.0

_log = structlog.get_logger(__name__)


class Flows:
    """The kernel's connection tracking table, in the namespace of the calling thread."""

    def free_masqueraded(self, leases: _Ranges, cidrs: _Ranges) -> int:
        """Forget flows from own subnets to the mesh whose replies go elsewhere than to the source.

        Returns:
            How many were forgotten. At most 10,000, and no more than 3 s are spent; an error
            is logged, not raised: the rules are right by now, and flows end by themselves.
        """
        freed = 0
        deadline = time.monotonic() + _DEADLINE_S
        try:
            with NFCTSocket() as table:
                wrong = list(_masqueraded(table, leases, cidrs, deadline))
                for flow in wrong:
                    if time.monotonic() > deadline:
                        _log.warning("firewall-flows-left", left=len(wrong) - freed)
                        break
                    freed += _forget(table, flow)
        except (NetlinkError, OSError) as error:
            _log.warning("firewall-flows-unreadable", error=str(error))
        return freed


def _masqueraded(
    table: Any,  # noqa: ANN401
    leases: _Ranges,
    cidrs: _Ranges,
    deadline: float,
) -> Iterator[NFCTAttrTuple]:
    """Originating halves of wrong flows.

    The kernel leaves out flows without source NAT since 5.15; before, all are looked at.
    """
    for count, entry in enumerate(table.dump(status=_SRC_NAT, status_mask=_SRC_NAT)):
        if count >= _MAX_FLOWS or time.monotonic() > deadline:
            return
        orig = entry.get_attr("CTA_TUPLE_ORIG")
        reply = entry.get_attr("CTA_TUPLE_REPLY")
        source, dest = _address(orig, "SRC"), _address(orig, "DST")
        back = _address(reply, "DST")
        if source is None or dest is None or not (_in(source, leases) and _in(dest, cidrs)):
            continue
        if not _in(dest, leases) and back != source:
            yield NFCTAttrTuple.from_netlink(2, orig)


def _in(address: IPv4Address, ranges: _Ranges) -> bool:
    return any(address in each for each in ranges)


def _address(half: Any, side: str) -> IPv4Address | None:  # noqa: ANN401
    ip = half.get_attr("CTA_TUPLE_IP") if half is not None else None
    text = ip.get_attr(f"CTA_IP_V4_{side}") if ip is not None else None
    try:
        return None if text is None else IPv4Address(text)
    except AddressValueError:
        return None


def _forget(table: Any, flow: NFCTAttrTuple) -> int:  # noqa: ANN401
    """Delete one flow; 0 when it ended by itself meanwhile."""
    try:
        table.entry("del", tuple_orig=flow)
    except NetlinkError:
        return 0
    return 1
