"""Tells systemd and the log how the host stands, each once per change."""

from __future__ import annotations

import structlog

from agent.daemon.notify import Notifier
from agent.daemon.snapshot import Snapshot
from agent.daemon.status import is_ready

__all__ = ["Announcer"]


class Announcer:
    """Follows snapshots.

    READY goes to systemd when routes and rules are right, from etcd or from the host's copy:
    waiting for Docker there would be waiting for a unit that may be ordered after this one.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._was_ready = False
        self._log = structlog.get_logger("agent")

    def tell(self, snapshot: Snapshot) -> None:
        """Say what is new in ``snapshot``."""
        ready, reason = is_ready(snapshot)
        if ready and not self._was_ready:
            self._log.info("host-ready", summary=snapshot.summary)
        elif self._was_ready and not ready:
            self._log.info("host-not-ready", reason=reason)
        self._was_ready = ready
        if snapshot.passed or snapshot.known.left:
            self._notifier.ready()
        self._notifier.status(snapshot.summary)
