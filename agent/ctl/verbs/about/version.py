"""``agentctl version``: agentctl's and the agent's version."""

from __future__ import annotations

from agent import __version__
from agent.ctl.context import Context
from agent.ctl.output import clean
from agent.errors import HostmeshError

__all__ = ["run"]


def run(context: Context) -> int:
    """Print both versions; an agent that does not answer is no error."""
    try:
        running = context.client.get("/v1/status").get("agent_version")
    except HostmeshError:
        running = None
    document = {"version": 1, "agentctl": __version__, "hostmesh_agent": running}
    says = clean(running) if running else "does not answer"
    context.show(document, lambda: (f"agentctl {__version__}", f"hostmesh-agent {says}"))
    return 0
