"""``agentctl leave``, ``join`` and ``cleanup``, with and without an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.client import AgentSilentError
from agent.ctl.context import Context
from agent.errors import AgentUnavailable

__all__ = ["cleanup", "join", "leave"]


def leave(context: Context) -> int:
    """Release the subnet, remove Hostmesh's settings, stay out until ``join``."""
    context.need_root("let this host leave")
    try:
        document: Mapping[str, Any] = context.client.post(
            "/v1/leave", {"force": context.args.force}
        )
    except AgentSilentError:
        raise  # it runs, and may still be busy with the request
    except AgentUnavailable as error:
        context.remark(f"{error.message}; leaving without it")
        from agent.standalone.leave import leave_offline  # noqa: PLC0415 - imports every package

        direct.log_to_stderr()
        document = leave_offline(context.settings, force=context.args.force).document()
    return context.report(document)


def join(context: Context) -> int:
    """Join again after a leave."""
    context.need_root("let this host join")
    try:
        document: Mapping[str, Any] = context.client.post("/v1/join", {})
    except AgentSilentError:
        raise  # it runs, and may still be busy with the request
    except AgentUnavailable as error:
        context.remark(f"{error.message}; it joins when it is started")
        from agent.standalone.leave import join_offline  # noqa: PLC0415 - as above

        direct.log_to_stderr()
        document = join_offline(context.settings).document()
        context.report(document)
        return 0  # "start the agent" is not something that failed
    return context.report(document)


def cleanup(context: Context) -> int:
    """Remove Hostmesh's settings and keep the subnet. Refused while the agent runs."""
    context.need_root("clean this host")
    from agent.standalone.leave import cleanup as clean_host  # noqa: PLC0415 - as above

    direct.log_to_stderr()
    return context.report(clean_host(context.settings).document())
