"""Verbs that make the agent act: join, leave, cleanup, etcd accept, docker restart, reload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.ctl import direct
from agent.ctl.client import AgentSilentError
from agent.ctl.context import Context
from agent.errors import AgentUnavailable, Refused
from agent.settings.text import printable

if TYPE_CHECKING:
    from agent.settings import Settings

__all__ = ["accept", "cleanup", "join", "leave", "reload", "restart"]

_CLEANING = "Hostmesh's routes, rules and Docker settings to be removed"
_NO_QUESTION = "agentctl docker restart --now --yes does not ask"


def leave(context: Context) -> int:
    """Release the subnet, remove Hostmesh's settings, stay out until ``join``."""
    context.need_root("let this host leave")
    force: bool = context.args.force

    def offline(settings: Settings) -> Mapping[str, Any]:
        from agent.standalone.leave import leave_offline  # noqa: PLC0415 - imports every package

        return leave_offline(settings, force=force).document()

    document, _ = _post(
        context,
        "/v1/leave",
        {"force": force},
        "leaving without it",
        offline,
        "this host to leave: routes, rules, the subnet, and Docker if it must restart",
    )
    return context.report(document)


def join(context: Context) -> int:
    """Join again after a leave."""
    context.need_root("let this host join")

    def offline(settings: Settings) -> Mapping[str, Any]:
        from agent.standalone.leave import join_offline  # noqa: PLC0415 - as above

        return join_offline(settings).document()

    document, by_agent = _post(
        context,
        "/v1/join",
        {},
        "it joins when it is started",
        offline,
        "this host to join, after a leave that may still be running",
    )
    status = context.report(document)
    return status if by_agent else 0  # "start the agent" is not something that failed


def cleanup(context: Context) -> int:
    """Remove Hostmesh's settings and keep the subnet. Refused while the agent runs."""
    context.need_root("clean this host")
    from agent.standalone.leave import cleanup as clean_host  # noqa: PLC0415 - as above

    direct.log_to_stderr()
    with context.progress.waiting_for(_CLEANING, context.timeout_s):
        document = clean_host(context.settings).document()
    return context.report(document)


def _post(
    context: Context,
    target: str,
    body: Mapping[str, Any],
    remark: str,
    offline: Callable[[Settings], Mapping[str, Any]],
    waits_for: str,
) -> tuple[Mapping[str, Any], bool]:
    """Ask the agent, or act without it; return the outcome and whether it is the agent's.

    Raises:
        AgentSilentError: An agent runs, and may still be busy with the request.
    """
    try:
        return context.client.post(target, body, waits_for=waits_for), True
    except AgentSilentError:
        raise
    except AgentUnavailable as error:
        context.remark(f"{error.message}; {remark}")
        direct.log_to_stderr()
        with context.progress.waiting_for(waits_for, context.timeout_s):
            return offline(context.settings), False


def accept(context: Context) -> int:
    """Make the agent use the view of etcd that raised an alarm."""
    document = context.client.post("/v1/etcd/accept", {})
    return context.report(document, nothing="nothing to accept")


def reload(context: Context) -> int:
    """Make the agent read its settings again; a key that needs a restart is no failure.

    ``systemctl reload`` runs this, and fails where the file is wrong.

    Raises:
        SettingsError: They are wrong; the agent goes on with the previous settings.
    """
    context.report(context.client.post("/v1/reload", {}), nothing="nothing changed")
    return 0


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
    ready = outlook.get("state") == "ready" and not outlook.get("pending")
    if ready and not context.args.replace:  # a ready Docker may have a dns of the operator's
        nothing = {"version": 1, "done": [], "todo": []}
        return context.report(nothing, nothing="Docker needs no restart")
    running = _names(outlook, "running")
    stops = bool(running) and outlook.get("live_restore") is not True
    if stops and not context.args.yes:
        for line in _facts(outlook, running):
            context.remark(line)
        if not context.confirm("Restart Docker now?", unasked=_NO_QUESTION):
            raise Refused("Docker was not restarted", hint=_NO_QUESTION)
    # An operator who saw no container has not agreed to stop one that was started since.
    given = {"now": bool(running) or context.args.yes, "replace": context.args.replace}
    body = {name: True for name, value in given.items() if value}
    document = context.client.post(
        "/v1/docker/restart", body, waits_for="Docker to restart, one host of the mesh at a time"
    )
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
