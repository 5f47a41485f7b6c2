"""Decide which askers are served: containers of this host's bridges, and this host itself."""

from __future__ import annotations

import enum
import fcntl
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from agent.dns.zone import Zone
from agent.model.family import Address, Network, read_address, read_interface

__all__ = ["Admission", "Refused"]

_DOCKERS_BRIDGE: Final = re.compile(r"docker0|br-[0-9a-f]{12}|hm-[0-9a-f]{10}")
"""Names that Docker and the agent give to bridges: a container may ask before the agent has
written of its network."""
_REMEMBER_S: Final = 5.0
_MOST: Final = 8192
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_ADDRESS_AT: Final = slice(20, 24)


class Refused(enum.Enum):
    """The sender is no container of this host."""

    STRANGER = "stranger"


class Admission:
    """Judges senders by source address and by the interface that a query came in by.

    Args:
        zone: Its local facts name the bridges.
        clock: Monotonic seconds.
    """

    def __init__(self, zone: Zone, clock: Callable[[], float] = time.monotonic) -> None:
        self._zone = zone
        self._clock = clock
        self._known: dict[tuple[str, int], Address | Refused | None] = {}
        self._facts: object = None
        self._forget_s = 0.0

    def judge(self, source: str, interface: int) -> Address | Refused | None:
        """Return the container's address, None for this host itself, or that it is refused.

        Args:
            source: The address that the query came from.
            interface: The index of the interface that it came in by.
        """
        now_s = self._clock()
        if now_s >= self._forget_s or self._facts is not self._zone.local:
            self._known.clear()
            self._facts, self._forget_s = self._zone.local, now_s + _REMEMBER_S
        key = (source, interface)
        try:
            return self._known[key]
        except KeyError:
            pass
        if len(self._known) >= _MOST:
            self._known.clear()
        found = self._known[key] = self._decide(source, interface)
        return found

    def _decide(self, source: str, interface: int) -> Address | Refused | None:
        try:
            name = socket.if_indextoname(interface)
            address = read_address(source)
        except (OSError, ValueError):
            return Refused.STRANGER
        if name == "lo":
            return None
        local = self._zone.local
        networks = local.networks if local else ()
        if any(each.bridge == name and _in(address, each.subnets) for each in networks):
            return address
        if _DOCKERS_BRIDGE.fullmatch(name) and _in(address, _subnets_of(name)):
            return address
        return Refused.STRANGER


def _in(address: Address, subnets: tuple[Network, ...]) -> bool:
    return any(address in each for each in subnets)


def _subnets_of(link: str) -> tuple[Network, ...]:
    """Return the subnet of a link's first address, () if it has none (netdevice(7))."""
    request = struct.pack("40s", link.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            address, mask = (
                socket.inet_ntop(
                    socket.AF_INET, fcntl.ioctl(any_socket, code, request)[_ADDRESS_AT]
                )
                for code in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:
            return ()
    return (read_interface(f"{address}/{mask}").network,)
