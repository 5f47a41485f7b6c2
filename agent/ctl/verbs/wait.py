"""``agentctl wait``: for scripts that set a host up, and the unit that Docker waits for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agent.ctl.client import AgentClient
from agent.ctl.context import Context
from agent.ctl.output import clean, sentence
from agent.ctl.polling import rounds
from agent.errors import AgentUnavailable, CannotTell, HostmeshError, UsageError

__all__ = ["run"]

_PAUSE_S = 0.25
_ONE_REQUEST_S = 5.0


def run(context: Context) -> int:
    """Wait until the host is ready, or daemon.json is decided.

    Raises:
        HostmeshError: Not within --timeout; the message has the state and the conditions.
        CannotTell: No agent answered all that time.
    """
    if context.args.ready and context.args.docker_config:
        raise UsageError(
            "--ready and --docker-config exclude each other", hint="agentctl wait --help"
        )
    timeout_s = context.timeout_s
    reached = _docker_is_decided if context.args.docker_config else _is_ready
    client = AgentClient(context.client.path, min(timeout_s, _ONE_REQUEST_S))
    last: Mapping[str, Any] = {}
    away: AgentUnavailable | None = None
    with context.progress.waiting_for("hostmesh-agent", timeout_s) as now_for:
        for _ in rounds(_PAUSE_S, time.monotonic() + timeout_s):
            try:
                last, away = client.get("/v1/status"), None
            except AgentUnavailable as error:
                away = error
                now_for(error.message)
                continue
            if line := reached(last):
                context.show(last, lambda: (line,))
                return 0
            now_for(f"this host to be ready, now {_why(last)}")
    if away is not None:
        raise CannotTell(f"not ready after {timeout_s:g} s: {away.message}", hint=away.hint)
    raise HostmeshError(f"not ready after {timeout_s:g} s: {_why(last)}", hint="agentctl status")


def _is_ready(document: Mapping[str, Any]) -> str:
    if document.get("state") != "ready":
        return ""
    return f"ready: {clean(document.get('subnet'))}"


def _docker_is_decided(document: Mapping[str, Any]) -> str:
    docker = document.get("docker")
    config = docker.get("config") if isinstance(docker, Mapping) else None
    if document.get("state") == "left":
        return "left the mesh: Docker is not configured"
    if config == "written":
        return f"written: {clean(document.get('subnet'))}"
    return f"not written: {_why(document)}" if config == "held" else ""


def _why(document: Mapping[str, Any]) -> str:
    conditions = document.get("conditions") or []
    causes = "; ".join(
        f"{clean(each.get('name'))}: {sentence(each.get('cause'))}" for each in conditions
    )
    return clean(document.get("state")) + (f" ({causes})" if causes else "")
