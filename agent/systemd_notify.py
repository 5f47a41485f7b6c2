"""Tell systemd of a service's state: sd_notify(3)'s datagram."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["notify"]


def notify(address: str, line: str) -> None:
    """Send a line such as ``READY=1``; nothing happens if systemd does not listen.

    Args:
        address: Of $NOTIFY_SOCKET, "" for none.
    """
    if not address:
        return
    # A leading "@" means the abstract namespace (sd_notify(3)).
    path = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),  # systemd going away must not stop the data path
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto(line.encode(), path)
