"""``agentctl etcd accept``: accept etcd's data after an alarm."""

from __future__ import annotations

from agent.ctl.context import Context

__all__ = ["accept"]


def accept(context: Context) -> int:
    """Make the agent use the view that raised an alarm."""
    document = context.client.post("/v1/etcd/accept", {})
    return context.report(document, nothing="nothing to accept")
