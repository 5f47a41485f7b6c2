"""``agentctl leave``, ``join`` and ``cleanup``: through the agent, or by ourselves without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.client import AgentSilentError
from agent.ctl.context import Context
from agent.ctl.output import sentence
from agent.errors import AgentUnavailable

__all__ = ["cleanup", "join", "leave"]

_UNFINISHED = 1


def leave(context: Context) -> int:
    """Give the lease back, remove what is ours, stay out until ``join``."""
    context.need_root("let this host leave")
    try:
        document: Mapping[str, Any] = context.client.post(
            "/v1/leave", {"force": context.args.force}
        )
    except AgentSilentError:
        raise  # it runs, and may be at it still
    except AgentUnavailable as error:
        context.remark(f"{error.message}; leaving without it")
        from agent.daemon.membership import leave_offline  # noqa: PLC0415 - pulls in every room

        direct.log_to_stderr()
        document = leave_offline(context.settings, force=context.args.force).document()
    return _report(context, document)


def join(context: Context) -> int:
    """Join again after a leave."""
    context.need_root("let this host join")
    try:
        document: Mapping[str, Any] = context.client.post("/v1/join", {})
    except AgentSilentError:
        raise  # it runs, and may be at it still
    except AgentUnavailable as error:
        context.remark(f"{error.message}; noted for when it starts")
        from agent.daemon.membership import join_offline  # noqa: PLC0415 - as above

        direct.log_to_stderr()
        document = join_offline(context.settings).document()
        _report(context, document)
        return 0  # "start the agent" is not something that failed
    return _report(context, document)


def cleanup(context: Context) -> int:
    """Remove what is ours from this host; the lease stays. Refused while the agent runs."""
    context.need_root("clean this host")
    from agent.daemon.membership import cleanup as clean_host  # noqa: PLC0415 - as above

    direct.log_to_stderr()
    return _report(context, clean_host(context.settings).document())


def _report(context: Context, document: Mapping[str, Any]) -> int:
    """Print what was done; 1 when something is left to do."""
    todo = document.get("todo") or []
    if context.form == "json":
        context.say_json(document)
        return _UNFINISHED if todo else 0
    done = document.get("done") or []
    for line in done:
        context.say(sentence(line))
    for line in todo:
        context.remark(f"left to do: {sentence(line)}")
    if not done and not todo:
        context.say("nothing to do")
    return _UNFINISHED if todo else 0
