"""``agentctl reload``: what ``systemctl reload`` runs, so that a wrong file makes it fail."""

from __future__ import annotations

from agent.ctl.context import Context

__all__ = ["run"]


def run(context: Context) -> int:
    """Have the agent read its settings again; what waits for a restart is told, and no failure.

    Raises:
        SettingsError: They are wrong; the agent goes on with those of before, and knows.
    """
    context.report(context.client.post("/v1/reload", {}), nothing="nothing changed")
    return 0
