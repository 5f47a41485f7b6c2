"""``agentctl docker restart``: the operator's word that dockerd may restart under containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.ctl.context import Context
from agent.errors import Refused
from agent.settings.text import printable

__all__ = ["restart"]

_UNASKED = "agentctl docker restart --now --yes restarts it unasked"


def restart(context: Context) -> int:
    """Let the agent restart dockerd if it still has to, containers or not.

    Lists who would stop, above all those that may not come back by themselves, and asks.

    Raises:
        Refused: Without --now; without --yes where nobody can be asked; or the answer was no.
    """
    if not context.args.now:
        raise Refused(
            "containers stop while dockerd restarts, unless it has live-restore",
            hint="agentctl docker restart --now does it; agentctl status says whether it is needed",
        )
    outlook = context.client.get("/v1/docker")
    if outlook.get("state") == "ready" and not outlook.get("pending"):
        nothing = {"version": 1, "done": [], "todo": []}
        return context.report(nothing, nothing="dockerd needs no restart")
    running = _names(outlook, "running")
    stops = bool(running) and outlook.get("live_restore") is not True
    if stops and not context.args.yes:
        for line in _told(outlook, running):
            context.remark(line)
        if not context.confirm("Restart Docker now?", unasked=_UNASKED):
            raise Refused("Docker was not restarted", hint=_UNASKED)
    # Who saw no container has not said yes to one that was started since.
    body = {
        name: True
        for name, given in (
            ("now", bool(running) or context.args.yes),
            ("replace", context.args.replace),
        )
        if given
    }
    document = context.client.post("/v1/docker/restart", body)
    return context.report(document, nothing="dockerd needs no restart")


def _told(outlook: Mapping[str, Any], running: tuple[str, ...]) -> Iterator[str]:
    """Yield what the operator should know before they say yes."""
    if outlook.get("pending"):
        yield printable(str(outlook["pending"]))
    staying = _names(outlook, "stay_down")
    back = tuple(name for name in running if name not in staying)
    if back:
        yield f"stop, and are started again by dockerd: {', '.join(back)}"
    if staying:
        yield f"stop, and may not come back by themselves: {', '.join(staying)}"
        yield f"start them again afterwards: docker start {' '.join(staying)}"


def _names(outlook: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = outlook.get(key)
    return tuple(printable(str(name)) for name in names) if isinstance(names, list) else ()
