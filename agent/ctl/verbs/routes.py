"""``agentctl routes``: the mesh's routes on this host, expected and installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table
from agent.ctl.stale import banner

__all__ = ["run", "table"]

_COLUMNS = (
    Column(title="DESTINATION"),
    Column(title="VIA"),
    Column(title="LINK", drop=2),
    Column(title="HOST", shrink_to=8),
    Column(title="STATE"),
)
_WIDE = (Column(title="WRITTEN BY", drop=1), Column(title="ROUTE", shrink_to=12, drop=1))


def run(context: Context) -> int:
    """Print the routes."""
    document = direct.ask(context, "/v1/routes")
    context.show_table(document, lambda: table(document, wide=context.is_wide))
    return 0


def table(document: Mapping[str, Any], *, wide: bool) -> Table:
    """Return the document of GET /v1/routes as a table; ``wide`` adds columns."""
    return Table(
        columns=_COLUMNS + (_WIDE if wide else ()),
        rows=[_row(route, wide=wide) for route in document.get("routes", [])],
        warnings=banner(document),
        empty="no routes",
    )


def _row(route: Mapping[str, Any], *, wide: bool) -> list[object]:
    via = route.get("gateway") or route.get("kind")
    state = route.get("state")
    if state == "conflict":
        state = f"conflict: written by {route.get('protocol')}"
    elif route.get("reachable") is False:
        state = f"{state}, host does not answer"
    row: list[object] = [
        route.get("destination"), via, route.get("link"), route.get("host_name"), state,
    ]  # fmt: skip
    return row + ([route.get("protocol"), route.get("text")] if wide else [])
