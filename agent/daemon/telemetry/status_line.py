"""Report the host's state to systemd and the log, once per change."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from agent.daemon.state.agent_state import AgentState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.systemd import Notifier
from agent.model import Severity
from agent.settings.text import printable

__all__ = ["StatusLine"]


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
