"""``agentctl etcd accept``: the operator's word that what etcd says now is true."""

from __future__ import annotations

from agent.ctl.context import Context
from agent.ctl.output import sentence

__all__ = ["accept"]


def accept(context: Context) -> int:
    """Tell the agent to believe the view that raised an alarm."""
    document = context.client.post("/v1/etcd/accept", {})
    if context.form == "json":
        context.say_json(document)
        return 0
    for line in document.get("done") or ["nothing to accept"]:
        context.say(sentence(line))
    for line in document.get("todo") or []:
        context.remark(f"left to do: {sentence(line)}")
    return 0
