"""``agentctl firewall show``: the agent's rules as installed, or as it would write them."""

from __future__ import annotations

from agent.ctl import direct
from agent.ctl.client import Document
from agent.ctl.context import Context
from agent.ctl.output import sentence
from agent.errors import CannotTell

__all__ = ["show"]

_TARGET = "/v1/firewall"


def show(context: Context) -> int:
    """Print the agent's rules in the form of iptables-save.

    Raises:
        CannotTell: --dry-run, and this host holds no subnet to make rules for.
        AgentUnavailable: --dry-run, and no agent runs.
    """
    dry_run = context.args.dry_run  # only the agent knows what it would write
    document = context.client.get(_TARGET) if dry_run else direct.ask(context, _TARGET)
    context.show(document, lambda: map(sentence, _rules(context, document)))
    return 0


def _rules(context: Context, document: Document) -> list[str]:
    if not context.args.dry_run:
        return document.get("rules") or ["no rule of Hostmesh is installed"]
    rules: list[str] | None = document.get("restore")
    if rules is None:
        raise CannotTell(
            "this host holds no subnet, so there are no rules to write",
            hint="agentctl status says why",
        )
    return rules
