"""``agentctl network ls`` and ``inspect``: the networks that span hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table, clean, duration
from agent.ctl.stale import banner
from agent.errors import UsageError
from agent.settings.text import nearest, shown

__all__ = ["inspect", "ls", "parts_table", "table"]

_READY = "ready"
_COLUMNS = (
    Column(title="NETWORK", shrink_to=8),
    Column(title="SIZE", drop=2),
    Column(title="ACCESS", drop=1),
    Column(title="HOSTS", right=True),
    Column(title="CONTAINERS", right=True, drop=3),
    Column(title="STATE", shrink_to=16),
)
_PARTS = (
    Column(title="  HOST", shrink_to=10),
    Column(title="SUBNET"),
    Column(title="SINCE", right=True, drop=1),
    Column(title="CONTAINERS", right=True, drop=2),
    Column(title="STATE", shrink_to=16),
)
_HOST_ID = Column(title="HOST ID", shrink_to=8, drop=3)


def ls(context: Context) -> int:
    """List the mesh networks as the agent sees them, or as etcd has them without an agent."""
    document = direct.ask(context, "/v1/networks")
    context.show_table(document, lambda: table(document))
    return 0


def inspect(context: Context) -> int:
    """Show one mesh network, and each host's part of it.

    Raises:
        UsageError: There is none of that name.
    """
    document = direct.ask(context, "/v1/networks")
    name = context.args.name
    found = [each for each in document["networks"] if each["name"] == name]
    if not found:
        near = nearest(name, [str(each["name"]) for each in document["networks"]])
        raise UsageError(
            f"there is no network {shown(name)}",
            hint=f"did you mean {near}?" if near else "agentctl network ls",
        )
    document = {**document, "networks": found}
    context.show_table(document, lambda: parts_table(document, wide=context.is_wide))
    return 0


def table(document: Mapping[str, Any]) -> Table:
    """Return the networks of GET /v1/networks as a table."""
    rows = [_row(each) for each in document["networks"]]
    return Table(_COLUMNS, rows, warnings=banner(document), empty="there is no mesh network")


def parts_table(document: Mapping[str, Any], *, wide: bool) -> Table:
    """Return the first network of GET /v1/networks, with a row for each host."""
    network = document["networks"][0]
    parts = network["parts"]
    names = {each["host_id"]: each["host_name"] for each in parts}
    hosts = ", ".join(clean(names.get(each) or each) for each in network["hosts"]) or "all"
    record = "no record: the label of Docker networks alone"
    if network["record"]:
        record = f"hosts {hosts}; slices /{network['size']}; access {_access(network)}"
    before = [f"network {clean(network['name'])}: {record}"]
    before += ["it is being removed"] if network["removed"] else []
    columns = _PARTS + ((_HOST_ID,) if wide else ())
    return Table(
        columns,
        [_part_row(each, wide=wide) for each in parts],
        warnings=banner(document),
        before=before,
    )


def _row(network: Mapping[str, Any]) -> list[object]:
    parts = network["parts"]
    there = [each for each in parts if each["subnet"] is not None]
    counts = [each["containers"] for each in there]
    return [
        network["name"],
        f"/{network['size']}" if network["record"] else None,
        _access(network),
        f"{len(there)} of {len(parts)}",
        sum(counts) if None not in counts else None,
        _state(network),
    ]


def _access(network: Mapping[str, Any]) -> object:
    return network["access"] or ("as the mesh" if network["record"] else None)


def _state(network: Mapping[str, Any]) -> str:
    """Return what a network waits for, from the parts that are not done."""
    open_parts = [each for each in network["parts"] if each["state"] != _READY]
    if not open_parts:
        return "removed" if network["removed"] else "ready"
    first = open_parts[0]
    reason = f" ({first['waits_for']})" if first["waits_for"] else ""
    more = f" and {len(open_parts) - 1} more" if len(open_parts) > 1 else ""
    return f"{first['state']}: {first['host_name'] or first['host_id']}{reason}{more}"


def _part_row(part: Mapping[str, Any], *, wide: bool) -> list[object]:
    reason = f": {part['waits_for']}" if part["waits_for"] else ""
    row: list[object] = [
        f"{'*' if part['own'] else ' '} {part['host_name'] or '-'}",
        part["subnet"],
        duration(part["since_s_ago"]),
        part["containers"],
        f"{part['state']}{reason}",
    ]
    return [*row, part["host_id"]] if wide else row
