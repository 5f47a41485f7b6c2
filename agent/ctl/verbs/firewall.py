"""``agentctl firewall show``: our rules as they stand, or what would be written."""

from __future__ import annotations

from agent.ctl import direct
from agent.ctl.client import NO_ANSWER, Document
from agent.ctl.context import Context
from agent.ctl.output import sentence
from agent.errors import CannotTell

__all__ = ["show"]


def show(context: Context) -> int:
    """Print the rules that the agent keeps, in the words of iptables-save.

    Raises:
        CannotTell: --dry-run, and this host holds no subnet to make rules for.
        AgentUnavailable: --dry-run, and no agent runs.
    """
    document = _ask(context)
    context.show(document, lambda: map(sentence, _rules(context, document)))
    return 0


def _rules(context: Context, document: Document) -> list[str]:
    if not context.args.dry_run:
        return document.get("rules") or ["no rule of ours stands"]
    rules: list[str] | None = document.get("restore")
    if rules is None:
        raise CannotTell(
            "this host holds no subnet, so there are no rules to write",
            hint="agentctl status says why",
        )
    return rules


def _ask(context: Context) -> Document:
    """From the agent, else from the kernel; what would be written only the agent knows."""
    try:
        return context.client.get("/v1/firewall")
    except NO_ANSWER as error:
        if context.args.dry_run:
            raise
        context.need_root("read the rules from the kernel, and no agent answers")
        context.remark(f"{error.message}; from the kernel instead")
        return direct.without_agent(context, "/v1/firewall")
