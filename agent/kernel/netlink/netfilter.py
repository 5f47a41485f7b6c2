"""Parts that all netfilter messages of netlink share: nf_tables, ipset, connection tracking.

Sources: linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["BODY_AT", "NETFILTER", "about"]

NETFILTER: Final = 12
"""NETLINK_NETFILTER of linux/netlink.h."""

_HEAD: Final = struct.Struct("!BBH")
"""struct nfgenmsg: family, version, resource id."""

BODY_AT: Final = _HEAD.size
"""Where a message's attributes begin."""


def about(af: int = 0) -> bytes:
    """Return the head of a message about one family, or about all."""
    return _HEAD.pack(af, 0, 0)
