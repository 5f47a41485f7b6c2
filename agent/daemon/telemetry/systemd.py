"""Notify systemd: READY, STATUS, WATCHDOG (sd_notify(3), the datagram protocol)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from agent.settings.text import whole_number

__all__ = ["Notifier"]

_USEC_DIGITS = 18
_USEC = 1_000_000
_STATUS_CHARACTERS = 250


class Notifier:
    """Sends state lines to $NOTIFY_SOCKET; does nothing where there is none.

    Args:
        environ: The process environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watchdog_pid = environ.get("WATCHDOG_PID", "")
        usec = whole_number(environ.get("WATCHDOG_USEC", ""), digits=_USEC_DIGITS)
        mine = watchdog_pid in ("", str(os.getpid()))
        self.watchdog_s: float | None = usec / _USEC if usec is not None and mine else None
        self._ready = False
        self._status = ""

    def ready(self) -> None:
        """Say READY=1, once."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the one-line status that ``systemctl status`` shows; repeats are not sent.

        Args:
            text: Without line breaks; what is too long for one line is cut.
        """
        text = text if len(text) <= _STATUS_CHARACTERS else text[: _STATUS_CHARACTERS - 1] + "…"
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog; called by the loop itself, so that a stuck loop starves it.

        systemd's watchdog begins with READY, which may take any time. Until then the time to
        start is extended instead: a loop that is stuck before READY is restarted as well.
        """
        if self.watchdog_s is None:
            return
        self._send("WATCHDOG=1")
        if not self._ready:
            self._send(f"EXTEND_TIMEOUT_USEC={int(self.watchdog_s * _USEC)}")

    def stopping(self) -> None:
        """Say STOPPING=1."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        # A leading "@" means the abstract namespace (sd_notify(3)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),  # systemd going away must not stop the data path
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.sendto(line.encode(), address)
