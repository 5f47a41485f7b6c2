"""``agentctl docker restart``: the operator's word that dockerd may restart under containers."""

from __future__ import annotations

from agent.ctl.context import Context
from agent.errors import Refused

__all__ = ["restart"]


def restart(context: Context) -> int:
    """Let the agent restart dockerd if it still has to, containers or not.

    Raises:
        Refused: Without --now: containers stop when dockerd restarts.
    """
    if not context.args.now:
        raise Refused(
            "containers stop while dockerd restarts, unless it has live-restore",
            hint="agentctl docker restart --now does it; agentctl status says whether it is needed",
        )
    document = context.client.post("/v1/docker/restart", {"now": True})
    return context.report(document, nothing="dockerd needs no restart")
