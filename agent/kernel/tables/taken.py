"""Which program has the VNI or the UDP port that a vxlan device of the agent's needs.

Sources: vxlan_config_validate and vxlan_sock_add in drivers/net/vxlan/vxlan_core.c; proc(5).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.kernel.netlink import NetlinkError
from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import attributes, u32_of
from agent.model import LinkSpec, VxlanOptions

__all__ = ["NeedTaken", "why_refused"]

_ID, _PORT = 1, 15
_UDP_TABLES: Final = ("udp", "udp6")
_LOCAL_AT, _INODE_AT = 1, 9
"""Columns of /proc/net/udp: local address and port, inode."""


class NeedTaken(NetlinkError):
    """Another program has what a device needs; it is left alone."""

    def __init__(self, what: str, number: int, detail: str, hint: str) -> None:
        super().__init__(what, number, f"{detail}; it is left alone")
        self.hint = hint


def why_refused(
    wanted: LinkSpec, refused: NetlinkError, links: Iterable[RawLink], proc: Path = Path("/proc")
) -> NetlinkError:
    """Return the refusal of a device with the name of the program that is in its way.

    Args:
        links: Every link of this host.
    """
    options = wanted.options
    if options is None or refused.errno not in {errno.EEXIST, errno.EADDRINUSE}:
        return refused
    what = f"link replace {wanted}"
    other = next((each for each in links if _has(each, options)), None)
    if other is not None and other.name != wanted.name:
        detail = f"the vxlan device {other.name} of another program has VNI {options.vni} and UDP"
        return NeedTaken(
            what,
            refused.errno,
            f"{detail} port {options.port}",
            f"remove it (ip link del {other.name}), or use another VNI: agentctl config set"
            " --backend vxlan --backend-options VNI=NUMBER",
        )
    if refused.errno != errno.EADDRINUSE:
        return refused
    user = _user_of(options.port, proc) or "a device or program of another kind"
    return NeedTaken(
        what,
        refused.errno,
        f"{user} uses UDP port {options.port}",
        "stop it, or use another port: agentctl config set --backend vxlan"
        " --backend-options Port=NUMBER",
    )


def _vni_and_port(link: RawLink) -> tuple[int, int] | None:
    """Return both of a vxlan device, None of another link."""
    if link.kind != "vxlan":
        return None
    found = dict(attributes(link.data))
    return u32_of(found[_ID]), int.from_bytes(found[_PORT])


def _has(link: RawLink, options: VxlanOptions) -> bool:
    return _vni_and_port(link) == (options.vni, options.port)


def _user_of(port: int, proc: Path) -> str:
    """Return the program that has a UDP port in this network namespace, "" if none is found."""
    inodes = {f"socket:[{each}]" for each in _inodes(port, proc)}
    for process in proc.glob("[0-9]*"):
        try:
            held = (each.readlink().name for each in (process / "fd").iterdir())
            if inodes.intersection(held):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # ended meanwhile
    return ""


def _inodes(port: int, proc: Path) -> Iterable[str]:
    suffix = f":{port:04X}"
    for table in _UDP_TABLES:
        try:
            lines = (proc / "thread-self" / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6
        for columns in map(str.split, lines):
            if columns[_LOCAL_AT].endswith(suffix):
                yield columns[_INODE_AT]
