"""``agentctl version``: ours, and the agent's when it answers."""

from __future__ import annotations

from agent import __version__
from agent.ctl.context import Context
from agent.ctl.output import clean
from agent.errors import HostmeshError

__all__ = ["run"]


def run(context: Context) -> int:
    """Print both versions; without an agent only ours, and no error for that."""
    try:
        running = context.client.get("/v1/status").get("agent_version")
    except HostmeshError:
        running = None
    document = {"version": 1, "agentctl": __version__, "hostmesh_agent": running}
    says = clean(running) if running else "does not answer"
    context.show(document, lambda: (f"agentctl {__version__}", f"hostmesh-agent {says}"))
    return 0
