"""``agentctl diff``: changes that the agent would make. 0: none, 1: some, 3: unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl.context import Context
from agent.ctl.output import flow, sentence
from agent.ctl.stale import banner
from agent.errors import CannotTell, HostmeshError, NotRoot, SettingsError, UsageError

__all__ = ["lines", "run"]

_STATUSES = {"equal": 0, "drift": 1}


def run(context: Context) -> int:
    """Print the plan.

    Raises:
        CannotTell: There is no plan, for any reason: 3 means exactly that.
    """
    try:
        document = context.client.get("/v1/diff")
    except (NotRoot, SettingsError, UsageError):
        raise
    except HostmeshError as error:
        raise CannotTell(error.message, hint=error.hint) from error
    state = document.get("state")
    context.show(document, lambda: lines(document, context.width))
    if state not in _STATUSES:
        reason = sentence(document.get("reason") or "the agent has no complete picture now")
        raise CannotTell(f"whether anything differs is not known: {reason}", hint="agentctl status")
    return _STATUSES[state]


def lines(document: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Lay out the document of GET /v1/diff."""
    found = [*banner(document), *_found(document)]
    return [line for each in found for line in flow(each, width, rest=4)]


def _found(document: Mapping[str, Any]) -> list[str]:
    found = []
    for operation in document.get("operations") or []:
        route = sentence(operation.get("route") or operation.get("destination"))
        found.append(
            f"{sentence(operation.get('action'))} {route}: {sentence(operation.get('reason'))}"
        )
    found.extend(
        f"extra {sentence(each.get('route') or each.get('destination'))}: it is removed later"
        for each in document.get("held") or []
    )
    found.extend(f"conflict: {_words(each)}" for each in document.get("conflicts") or [])
    found.extend(f"firewall: {_words(each)}" for each in document.get("firewall") or [])
    if not found and document.get("state") == "equal":
        found.append("nothing differs")
    return found


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{sentence(key)} {sentence(each)}" for key, each in value.items())
    return sentence(value)
