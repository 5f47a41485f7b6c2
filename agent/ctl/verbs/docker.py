"""``agentctl docker restart``: permit a restart of Docker while containers run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.ctl.context import Context
from agent.errors import Refused
from agent.settings.text import printable

__all__ = ["restart"]

_UNASKED = "agentctl docker restart --now --yes does not ask"


def restart(context: Context) -> int:
    """Make the agent restart Docker if it needs that, even while containers run.

    List the containers that stop, and those that may not start again, and ask.

    Raises:
        Refused: Without --now; without --yes where there is no terminal; or the answer was no.
    """
    if not context.args.now:
        raise Refused(
            "containers stop while Docker restarts, unless it has live-restore",
            hint="agentctl status says whether it is needed; then agentctl docker restart --now",
        )
    outlook = context.client.get("/v1/docker")
    if outlook.get("state") == "ready" and not outlook.get("pending"):
        nothing = {"version": 1, "done": [], "todo": []}
        return context.report(nothing, nothing="Docker needs no restart")
    running = _names(outlook, "running")
    stops = bool(running) and outlook.get("live_restore") is not True
    if stops and not context.args.yes:
        for line in _facts(outlook, running):
            context.remark(line)
        if not context.confirm("Restart Docker now?", unasked=_UNASKED):
            raise Refused("Docker was not restarted", hint=_UNASKED)
    # An operator who saw no container has not agreed to stop one that was started since.
    body = {
        name: True
        for name, given in (
            ("now", bool(running) or context.args.yes),
            ("replace", context.args.replace),
        )
        if given
    }
    document = context.client.post("/v1/docker/restart", body)
    return context.report(document, nothing="Docker needs no restart")


def _facts(outlook: Mapping[str, Any], running: tuple[str, ...]) -> Iterator[str]:
    """Yield the facts that the operator needs for the answer."""
    if outlook.get("pending"):
        yield printable(str(outlook["pending"]))
    staying = _names(outlook, "stay_down")
    back = tuple(name for name in running if name not in staying)
    if back:
        yield f"stop, and are started again by Docker: {', '.join(back)}"
    if staying:
        yield f"stop, and may not be started again by Docker: {', '.join(staying)}"
        yield f"start them again afterwards: docker start {' '.join(staying)}"


def _names(outlook: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = outlook.get(key)
    return tuple(printable(str(name)) for name in names) if isinstance(names, list) else ()
