"""Netlink: the transport, the layout of messages, and links by name.

No library's, because libraries lack what a long-running agent needs: dumps that the kernel filters,
interrupted dumps detected, one acknowledgement for many requests, deadlines,
and no descriptor or thread per caller (docs/dependencies.md).
"""

from __future__ import annotations

from agent.kernel.netlink.message import HEADER, attribute, attributes, messages, nested
from agent.kernel.netlink.socket import (
    GROUP_ADDRESSES,
    GROUP_LINKS,
    GROUP_NEIGHBOURS,
    GROUP_ROUTES,
    NetlinkError,
    NetlinkSocket,
    NotAnswered,
)

__all__ = [
    "GROUP_ADDRESSES",
    "GROUP_LINKS",
    "GROUP_NEIGHBOURS",
    "GROUP_ROUTES",
    "HEADER",
    "NetlinkError",
    "NetlinkSocket",
    "NotAnswered",
    "attribute",
    "attributes",
    "messages",
    "nested",
]
