"""Sockets that take IPv4 packets off links, with a filter in the kernel.

Sources: packet(7), linux/filter.h, linux/bpf_common.h, linux/if_arp.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from agent.errors import KernelError, NotRoot

__all__ = [
    "BARE",
    "DESTINATION",
    "ETHERNET_BYTES",
    "PROTOCOL",
    "SNAP_BYTES",
    "SOURCE",
    "SO_TIMESTAMPNS",
    "UDP_PORT",
    "Instruction",
    "accept",
    "go_on",
    "open_tap",
]

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""

BARE: Final = 0xFFFE
"""ARPHRD_NONE: packets on the link begin with their IP header."""
ETHERNET_BYTES: Final = 14
SNAP_BYTES: Final = 192
PROTOCOL, SOURCE, DESTINATION, UDP_PORT = 9, 12, 16, 22
"""Places of fields, from the beginning of an IPv4 header without options (RFC 791, RFC 768)."""

_ETH_P_ALL: Final = 3  # outgoing frames are shown to taps of every protocol only
_ETH_P_IP: Final = 0x0800
_SO_ATTACH_FILTER: Final = 26
SO_TIMESTAMPNS: Final = 35
_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_PROMISC: Final = 1
_MEMBERSHIP: Final = struct.Struct("=iHH8x")  # struct packet_mreq

# Load a byte, half word or word at an offset, jump if equal, return.
_LD_B, _LD_H, _LD_W, _JEQ, _RET = 0x30, 0x28, 0x20, 0x15, 0x06
_SIZES: Final = {PROTOCOL: _LD_B, UDP_PORT: _LD_H, SOURCE: _LD_W, DESTINATION: _LD_W}
# SKF_AD_OFF and what it is about: the packet's protocol, the link's index and hardware type.
_NETWORK_PROTOCOL, _LINK_INDEX, _LINK_TYPE = 0xFFFF_F000, 0xFFFF_F008, 0xFFFF_F01C


def open_tap(
    links: Sequence[str],
    packets: Callable[[int], Sequence[Instruction]],
    *,
    promiscuous: bool = False,
) -> socket.socket:
    """Return a socket that gets IPv4 packets of these links, in the order of the kernel.

    Args:
        packets: Return instructions that accept packets, given where their IPv4 header begins.
        promiscuous: Also frames that are not for this host, while the socket is open.

    Raises:
        NotRoot: This user may not capture.
        KernelError: A link cannot be captured on.
    """
    try:
        indexes = [socket.if_nametoindex(link) for link in links]
    except OSError as error:
        raise KernelError(f"cannot capture on {', '.join(links)}: {error.strerror}") from error
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    except PermissionError as error:
        raise NotRoot("only root may capture packets", hint="run it with sudo") from error
    except OSError as error:
        raise KernelError(f"cannot open a socket to capture with: {error}") from error
    try:
        _attach(opened, _program(indexes, packets))
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for index in indexes if promiscuous else ():  # ends with the socket
            opened.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, _PROMISC, 0))
    except OSError as error:
        opened.close()
        raise KernelError(f"cannot set up a capture: {error.strerror}") from error
    return opened


def go_on(start: int, field: int, values: Sequence[int]) -> list[Instruction]:
    """Go on where a field of the IPv4 header at ``start`` has one of these values, else refuse."""
    return _go_on(_SIZES[field], start + field, values)


def accept(start: int, field: int, values: Sequence[int]) -> list[Instruction]:
    """Accept the packet where a field has one of these values, else go on."""
    tests = [(_JEQ, 0, 1, value) for value in values]
    take = (_RET, 0, 0, SNAP_BYTES)
    load = (_SIZES[field], 0, 0, start + field)
    return [load, *(each for test in tests for each in (test, take))]


def _go_on(size: int, at: int, values: Sequence[int]) -> list[Instruction]:
    tests = ((_JEQ, len(values) - number, 0, value) for number, value in enumerate(values))
    return [(size, 0, 0, at), *tests, (_RET, 0, 0, 0)]


def _program(
    links: Sequence[int], packets: Callable[[int], Sequence[Instruction]]
) -> list[Instruction]:
    refuse = (_RET, 0, 0, 0)
    bare = [*packets(0), refuse]
    return [
        *_go_on(_LD_W, _LINK_INDEX, links),
        *_go_on(_LD_W, _NETWORK_PROTOCOL, [_ETH_P_IP]),
        (_LD_W, 0, 0, _LINK_TYPE),
        (_JEQ, 0, len(bare), BARE),
        *bare,
        *packets(ETHERNET_BYTES),
        refuse,
    ]


def _attach(opened: socket.socket, program: Sequence[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, and where they are.
    fprog = struct.pack("@HP", len(program), ctypes.addressof(held))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
