"""``agentctl reload``: ``systemctl reload`` runs it, and fails where the file is wrong."""

from __future__ import annotations

from agent.ctl.context import Context

__all__ = ["run"]


def run(context: Context) -> int:
    """Make the agent read its settings again; a key that needs a restart is no failure.

    Raises:
        SettingsError: They are wrong; the agent goes on with the previous settings.
    """
    context.report(context.client.post("/v1/reload", {}), nothing="nothing changed")
    return 0
