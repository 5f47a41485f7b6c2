"""``agentctl etcd accept``: the operator's word that what etcd says now is true."""

from __future__ import annotations

from agent.ctl.context import Context

__all__ = ["accept"]


def accept(context: Context) -> int:
    """Tell the agent to believe the view that raised an alarm."""
    document = context.client.post("/v1/etcd/accept", {})
    return context.report(document, nothing="nothing to accept")
