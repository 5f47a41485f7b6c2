"""The agent's own links, which all of their addresses and entries belong to."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from agent.kernel.netlink import NetlinkError
from agent.kernel.netlink.links import RawLink
from agent.model.objects import LINK_OWNER, LINK_PREFIX

__all__ = ["LinkForeign", "chosen_by_kernel", "is_own_link", "mark_of", "own_link"]

_AUTO: Final = "="
"""In the owner mark before the names of what was left to the kernel: "hostmesh =mac,mtu"."""


class LinkForeign(NetlinkError):
    """A link with a name of the agent's bears no owner mark."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "looking up a link",
            errno.EEXIST,
            f"the link {name} was made by another program; it is left alone",
        )


def mark_of(*, mac: str, mtu: int) -> str:
    """Return the alias of a link that was asked for with this MAC and MTU."""
    auto = [name for name, value in (("mac", mac), ("mtu", mtu)) if not value]
    return f"{LINK_OWNER} {_AUTO}{','.join(auto)}" if auto else LINK_OWNER


def chosen_by_kernel(alias: str) -> frozenset[str]:
    """Return what the alias of one of the agent's links says was left to the kernel."""
    return frozenset(alias.partition(_AUTO)[2].split(","))


def is_own_link(link: RawLink) -> bool:
    """Whether a link bears the owner mark."""
    return link.name.startswith(LINK_PREFIX) and link.alias.partition(" ")[0] == LINK_OWNER


def own_link(link_of: Callable[[str], RawLink], name: str) -> RawLink:
    """Return the link of this name, which must be the agent's.

    Raises:
        NetlinkError: There is none, or it is another program's.
    """
    link = link_of(name)
    if not is_own_link(link):
        raise LinkForeign(name)
    return link
