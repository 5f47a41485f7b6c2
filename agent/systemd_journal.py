"""Events for systemd's journal with fields of their own, by its native protocol.

``journalctl HOSTMESH_CONDITION=etcd-unreachable`` finds what ``grep`` would, and MESSAGE_ID is the
same for one kind of event on every host. Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["SOCKET", "JournalSocket", "event_id", "fields_of"]

SOCKET = Path("/run/systemd/journal/socket")

_NAMESPACE = uuid.UUID("3f0c1d1e-5d0a-4b0e-9d57-6f5f1f7c2a11")
_LENGTH = struct.Struct("<Q")
_OWN = ("condition", "subject", "subnet", "host_id")
"""Keys of an event that become fields HOSTMESH_…, because people search for them."""


def event_id(name: str) -> str:
    """128 bits in hexadecimal, the same for one event or condition everywhere and for ever."""
    return uuid.uuid5(_NAMESPACE, name).hex


def fields_of(event: Mapping[str, Any], line: str, priority: int) -> dict[str, str]:
    """Return the journal's fields of one event that is redacted and printable already.

    Args:
        line: The whole event as it is written elsewhere, for MESSAGE.
        priority: syslog(3)'s.
    """
    name = str(event.get("event", ""))
    fields = {
        "MESSAGE": line,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "hostmesh-agent",
        "HOSTMESH_EVENT": name,
        # One id for a condition, whether it begins or ends.
        "MESSAGE_ID": event_id(str(event.get("condition") or name)),
    }
    for key in _OWN:
        if event.get(key):
            fields[f"HOSTMESH_{key.upper()}"] = str(event[key])
    return fields


class JournalSocket:
    """Sends events to the journal; one that is not there is an error of the caller's choice.

    Args:
        path: The journal's socket.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(0)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one event; False when the journal did not take it (gone, full, too large)."""
        try:
            self._socket.sendto(b"".join(map(_field, fields, fields.values())), self._path)
        except OSError:
            return False
        return True


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")
    if b"\n" not in raw:
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + _LENGTH.pack(len(raw)) + raw + b"\n"
