"""``agentctl reload``: what ``systemctl reload`` runs, so that a wrong file makes it fail."""

from __future__ import annotations

from agent.ctl.client import AgentClient
from agent.ctl.context import Context
from agent.errors import SettingsError
from agent.settings import AgentSettings

__all__ = ["run"]


def run(context: Context) -> int:
    """Have the agent read its settings again; what waits for a restart is told, and no failure.

    Raises:
        SettingsError: They are wrong; the agent goes on with those of before, and knows.
    """
    try:
        client = context.client
    except SettingsError:
        # The file that says where the socket is may be the one that is wrong.
        client = AgentClient(AgentSettings().socket, context.timeout_s)
    context.report(client.post("/v1/reload", {}), nothing="nothing changed")
    return 0
