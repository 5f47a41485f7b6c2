"""``agentctl containers``: the running containers of every host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table
from agent.ctl.stale import banner
from agent.model import NETWORKS_LEVEL
from agent.registry.operations.hosts import HostRef, meant

__all__ = ["run", "service_of", "table"]

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
    found = document["containers"]
    if context.args.host is not None:
        found = meant(found, context.args.host, _host)
    found = [each for each in found if _is_meant(each, context.args.pattern)]
    document = {**document, "containers": found}
    context.show_table(document, lambda: table(document, wide=context.is_wide))
    return 0


def table(document: Mapping[str, Any], *, wide: bool) -> Table:
    """Return the containers as a table, a row for each address; ``wide`` adds columns."""
    return Table(
        columns=_COLUMNS + (_WIDE if wide else ()),
        rows=[row for each in document["containers"] for row in _rows(each, wide=wide)],
        warnings=banner(document),
        empty=_none(document.get("level")),
    )


def _none(level: int | None) -> str:
    """Return the line in place of an empty table."""
    if level is None or level >= NETWORKS_LEVEL:
        return "no such container runs in the mesh"
    return (
        f"hosts publish their containers from level {NETWORKS_LEVEL} on, and the config has level"
        f" {level}: agentctl config set --level {NETWORKS_LEVEL}"
    )


def service_of(container: Mapping[str, Any]) -> str:
    """Return Compose's names of a container, "" without Compose."""
    return "/".join(filter(None, (container["project"], container["service"])))


def _host(container: Mapping[str, Any]) -> HostRef:
    names = frozenset({str(container["host_name"])})
    return HostRef(host_id=container["host_id"], names=names)


def _is_meant(container: Mapping[str, Any], pattern: str | None) -> bool:
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
