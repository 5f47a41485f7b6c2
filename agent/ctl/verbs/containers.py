"""``agentctl containers``: the running containers of every host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, render_table
from agent.ctl.stale import banner

__all__ = ["lines", "run", "service_of"]

_LEAST_ID = 6
_COLUMNS = (
    Column(title="  HOST", shrink_to=10),
    Column(title="CONTAINER", shrink_to=12),
    Column(title="SERVICE", shrink_to=8, drop=2),
    Column(title="NETWORK", shrink_to=8),
    Column(title="ADDRESS"),
    Column(title="HEALTH", drop=1),
)
_WIDE = (
    Column(title="ACCESS", drop=4),
    Column(title="ALIASES", shrink_to=8, drop=3),
    Column(title="ID", drop=5),
)
_SHORT_ID = 12


def run(context: Context) -> int:
    """Print the containers as etcd has them, as far as their hosts may speak for them."""
    document = direct.ask(context, "/v1/containers")
    found = [each for each in document["containers"] if _is_meant(each, context)]
    document = {**document, "containers": found}
    wide = context.form == "wide"
    context.show(document, lambda: lines(document, wide=wide, width=context.width))
    return 0


def lines(document: Mapping[str, Any], *, wide: bool, width: int | None) -> list[str]:
    """Lay out the containers, a line for each address; ``wide`` adds columns and cuts nothing."""
    rows = [row for each in document["containers"] for row in _rows(each, wide=wide)]
    if not rows:
        return [*banner(document), "no such container runs in the mesh"]
    columns = _COLUMNS + (_WIDE if wide else ())
    return banner(document) + render_table(columns, rows, None if wide else width)


def service_of(container: Mapping[str, Any]) -> str:
    """Return Compose's names of a container, "" without Compose."""
    return "/".join(filter(None, (container["project"], container["service"])))


def _is_meant(container: Mapping[str, Any], context: Context) -> bool:
    host, pattern = context.args.host, context.args.pattern
    named = host is None or host in (container["host_name"], container["host_id"])
    if not named and (len(host) < _LEAST_ID or not container["host_id"].startswith(host)):
        return False
    names = (container["name"], container["service"] or "", service_of(container))
    return pattern is None or any(fnmatchcase(each, pattern) for each in names)


def _rows(container: Mapping[str, Any], *, wide: bool) -> Iterator[list[object]]:
    own = "*" if container["own"] else " "
    health = container["health"]
    for place in container["addresses"]:
        state = None if health == "none" else health
        if container["alive"] is not True:
            state = "host unknown" if container["alive"] is None else "host off"
        row: list[object] = [
            f"{own} {container['host_name'] or '-'}",
            container["name"],
            service_of(container),
            place["mesh_network"] or place["network"],
            place["address"],
            state,
        ]
        if wide:
            row += [place["access"], ", ".join(place["aliases"]), container["id"][:_SHORT_ID]]
        yield row
