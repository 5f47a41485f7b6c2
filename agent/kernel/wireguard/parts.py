"""The parts of WireGuard that the rest of the agent needs, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agent.kernel.wireguard.handshakes import Handshakes
from agent.kernel.wireguard.key import WireGuardKey
from agent.kernel.wireguard.tables import AllowedIpTable, DeviceTable, PeerTable
from agent.kernel.wireguard.tool import WireGuardTool
from agent.kernel.wireguard.userspace import Userspace
from agent.mesh.object_kinds import ALLOWED_IP, WIREGUARD, WIREGUARD_PEER
from agent.model.wireguard import AllowedIp, WireGuardDevice, WireGuardPeer
from agent.reconcile.object_kind import Kind

__all__ = ["WireGuardParts"]


@dataclass(frozen=True, slots=True)
class WireGuardParts:
    """The tables of the device's objects, their handshakes, and the start of wireguard-go."""

    userspace: Userspace
    handshakes: Handshakes
    tables: Mapping[type[Any], tuple[Kind[Any], Any]]

    @classmethod
    def of(cls, state_dir: Path, start_command: Sequence[str] = ()) -> Self:
        """Put them together.

        Args:
            state_dir: Of the private key.
            start_command: Starts wireguard-go; empty: systemd does.
        """
        tool = WireGuardTool()
        handshakes = Handshakes(tool)
        return cls(
            Userspace(start_command),
            handshakes,
            {
                WireGuardDevice: (WIREGUARD, DeviceTable(tool, WireGuardKey(state_dir).path)),
                WireGuardPeer: (WIREGUARD_PEER, PeerTable(tool, handshakes)),
                AllowedIp: (ALLOWED_IP, AllowedIpTable(tool)),
            },
        )
