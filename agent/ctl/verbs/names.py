"""``agentctl names``: the names of containers and hosts, and which of them are shadowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table, clean

__all__ = ["TARGET", "run", "table"]

TARGET = "/v1/names"
_COLUMNS = (
    Column(title="NAME", shrink_to=16),
    Column(title="ADDRESS"),
    Column(title="HOST", shrink_to=8),
    Column(title="NETWORK", shrink_to=8, drop=2),
    Column(title="KIND", drop=3),
    Column(title="NOTE", drop=1),
)


def run(context: Context) -> int:
    """Print all names that this host's servers know; not every container sees each."""
    document = direct.ask(context, TARGET)
    pattern = context.args.pattern
    found = [
        each for each in document["names"] if pattern is None or _is_meant(each, document, pattern)
    ]
    document = {**document, "names": found}
    context.show_table(document, lambda: table(document))
    return 0


def _is_meant(name: Mapping[str, Any], document: Mapping[str, Any], pattern: str) -> bool:
    full = f"{name['name']}.{document['domain']}"
    hosts = {each["host"] for each in name["addresses"]}
    return any(fnmatchcase(each, pattern.lower()) for each in (name["name"], full, *hosts))


def table(document: Mapping[str, Any]) -> Table:
    """Return the names as a table, a row for each address."""
    if not document["domain"]:
        off = "this mesh has no names; to turn them on: agentctl config set --names on"
        return Table(_COLUMNS, empty=off)
    head = [f"names under {clean(document['domain'])}"]
    if not document["complete"]:
        head.append("not complete: etcd or Docker has not answered yet, see agentctl status")
    rows = [row for each in document["names"] for row in _rows(each)]
    return Table(_COLUMNS, rows, before=head, empty="no such name")


def _rows(name: Mapping[str, Any]) -> Iterator[list[object]]:
    for each in name["addresses"]:
        notes = []
        if name["shadowed_by"]:
            notes.append(f"shadowed by the {name['shadowed_by']}'s name")
        if not each["healthy"]:
            notes.append("not healthy")
        network = each["mesh_network"] or each["network"]
        note = ", ".join(notes) or None
        yield [name["name"], each["address"], each["host"], network, name["kind"], note]
