"""``agentctl completion SHELL``, and the names of hosts for its scripts."""

from __future__ import annotations

import re

from agent.ctl.context import Context
from agent.errors import HostmeshError

__all__ = ["hosts", "run"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
"""Shells split and expand the completions that they are given: other names are not offered."""


def run(context: Context) -> int:
    """Print the script for one shell."""
    from agent.ctl.completions import script  # noqa: PLC0415 - shtab, which only this verb needs

    context.stdout.write(script(context.args.shell))
    return 0


def hosts(context: Context) -> int:
    """Print the names of hosts, one a line; nothing when no agent answers."""
    try:
        leases = context.client.get("/v1/leases").get("leases", [])
    except HostmeshError:
        return 0
    for name in sorted({str(lease.get("host_name")) for lease in leases}):
        if _NAME.fullmatch(name):
            context.say(name)
    return 0
