"""``agentctl wait --ready``: for scripts that bring a host up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agent.ctl.client import AgentClient
from agent.ctl.context import Context
from agent.ctl.output import clean, sentence
from agent.errors import AgentUnavailable, CannotTell, HostmeshError

__all__ = ["run"]

_PAUSE_S = 0.25
_ONE_REQUEST_S = 5.0


def run(context: Context) -> int:
    """Wait until the host is ready.

    Raises:
        HostmeshError: Not within --timeout; the message has the state and the conditions.
        CannotTell: No agent answered all that time.
    """
    timeout_s = context.timeout_s
    deadline_s = time.monotonic() + timeout_s
    client = AgentClient(context.client.path, min(timeout_s, _ONE_REQUEST_S))
    last: Mapping[str, Any] = {}
    away: AgentUnavailable | None = None
    while True:
        try:
            last, away = client.get("/v1/status"), None
        except AgentUnavailable as error:
            away = error
        if away is None and last.get("state") == "ready":
            _say_ready(context, last)
            return 0
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        time.sleep(min(_PAUSE_S, left_s))
    if away is not None:
        raise CannotTell(f"not ready after {timeout_s:g} s: {away.message}", hint=away.hint)
    raise HostmeshError(f"not ready after {timeout_s:g} s: {_why(last)}", hint="agentctl status")


def _say_ready(context: Context, document: Mapping[str, Any]) -> None:
    if context.form == "json":
        context.say_json(document)
    else:
        context.say(f"ready: {clean(document.get('subnet'))}")


def _why(document: Mapping[str, Any]) -> str:
    conditions = document.get("conditions") or []
    causes = "; ".join(
        f"{clean(each.get('name'))}: {sentence(each.get('cause'))}" for each in conditions
    )
    return clean(document.get("state")) + (f" ({causes})" if causes else "")
