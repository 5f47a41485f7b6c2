"""``agentctl completion SHELL``, and the host names that the scripts ask for."""

from __future__ import annotations

import re

from agent.ctl.context import Context
from agent.errors import HostmeshError

__all__ = ["hosts", "run"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
"""A shell splits and expands what it is given as completions: other names are not offered."""


def run(context: Context) -> int:
    """Print the script for one shell, made of the parser that prints --help."""
    from agent.ctl.completions import SHELLS  # noqa: PLC0415 - only this verb needs it

    context.stdout.write(SHELLS[context.args.shell]())
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
