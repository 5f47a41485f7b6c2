"""Notify systemd: READY, STATUS, WATCHDOG (sd_notify(3), the datagram protocol).

The status line and changes of readiness go to the log, too, once per change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import structlog

from agent.daemon.state.agent_state import AgentState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.model import Severity
from agent.settings.text import printable, whole_number
from agent.systemd_notify import notify

__all__ = ["Notifier", "StatusLine"]

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
        notify(self._address, line)


class StatusLine:
    """Follows snapshots.

    READY goes to systemd when the host is configured, from etcd or from its own copy: kernel and
    daemon.json. Waiting for Docker itself would be waiting for a unit that is ordered after.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._was_ready = False
        self._log = structlog.get_logger("agent")

    def report(self, state: AgentState, active: Sequence[ActiveCondition] = ()) -> None:
        """Report changes of ``state``.

        Args:
            active: The active conditions, the most severe first.
        """
        ready, reason = state.readiness
        if ready and not self._was_ready:
            self._log.info("host-ready", summary=state.summary)
        elif self._was_ready and not ready:
            self._log.info("host-not-ready", reason=reason)
        self._was_ready = ready
        if state.configured or state.mesh.left:
            self._notifier.ready()
        self._notifier.status(state.summary + _gravest(active))


def _gravest(active: Sequence[ActiveCondition]) -> str:
    """Return the first condition that needs the operator, for the end of a line."""
    grave = [one.condition for one in active if one.condition.severity is not Severity.INFO]
    if not grave:
        return ""
    more = f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""
    return f"; {grave[0].name}: {printable(grave[0].cause)}{more}"
