"""The page as a file: the agent's documents of this moment within it."""

from __future__ import annotations

import time
from typing import Any

from agent.ctl import direct
from agent.ctl.client import NO_ANSWER, Document
from agent.ctl.context import Context
from agent.daemon.ui.feed import SECTIONS
from agent.daemon.ui.page import snapshot_page
from agent.errors import HostmeshError

__all__ = ["snapshot"]


def snapshot(context: Context) -> str:
    """Return the page with all sections; without an agent, those that can be made without one."""
    sections: dict[str, Any] = {"status": direct.ask(context, "/v1/status")}
    for name, source in SECTIONS.items():
        if name not in sections:
            found = _section(context, source.path, offline=sections["status"]["source"] == "host")
            if found is not None:
                sections[name] = found
    return snapshot_page({"at": time.time(), "sections": sections}).decode()


def _section(context: Context, path: str, *, offline: bool) -> Document | None:
    """Return a document or its error; None where an agent is needed for it."""
    try:
        if not offline:
            return context.client.get(path)
        from agent.standalone.offline import DOCUMENTS  # noqa: PLC0415 - imports every package

        return direct.without_agent(context, path) if path in DOCUMENTS else None
    except NO_ANSWER:
        return None
    except HostmeshError as error:
        return {"error": {"message": error.message, "hint": error.hint, "code": error.code}}
