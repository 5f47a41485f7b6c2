"""``agentctl firewall show``: our rules as they stand."""

from __future__ import annotations

from agent.ctl.context import Context
from agent.ctl.output import sentence

__all__ = ["show"]


def show(context: Context) -> int:
    """Print the rules that the agent keeps, in the words of iptables-save."""
    document = context.client.get("/v1/firewall")
    if context.form == "json":
        context.say_json(document)
        return 0
    rules = document.get("rules") or ["no rule of ours stands"]
    for rule in rules:
        context.say(sentence(rule))
    return 0
