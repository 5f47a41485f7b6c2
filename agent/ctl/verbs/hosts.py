"""``agentctl hosts``: every host for people: state, version, containers, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.client import Document
from agent.ctl.context import Context
from agent.ctl.output import Column, Table, clean, duration, natural
from agent.ctl.stale import age, banner, count_states, state_of
from agent.ctl.verbs.leases import changes

__all__ = ["run", "table"]

_NAMED = 10
_COLUMNS = (
    Column(title="  HOST", shrink_to=12),
    Column(title="SUBNET", drop=4),
    Column(title="STATE"),
    Column(title="LAST SEEN", right=True, drop=5),
    Column(title="VERSION", drop=6),
    Column(title="BACKEND", drop=3),
    Column(title="CONTAINERS", right=True, drop=2),
    Column(title="CONDITIONS", shrink_to=24),
)
_WIDE = (
    Column(title="NODE ADDRESS"),
    Column(title="DOCKER"),
    Column(title="HELD FOR", right=True),
    Column(title="HOST ID"),
)


def run(context: Context) -> int:
    """Print the hosts as the agent sees them, or as etcd has them when no agent answers."""
    if context.args.watch:
        from agent.ctl.watch import watch  # noqa: PLC0415 - only for that

        return watch(
            context,
            lambda client: client.get("/v1/leases"),
            lambda document: _screen(context, document),
            changes,
        )
    document = direct.ask(context, "/v1/leases")
    context.show_table(document, lambda: table(document, wide=context.is_wide))
    return 0


def _screen(context: Context, document: Document) -> list[str]:
    return context.table_lines(table(document, wide=context.is_wide))


def table(document: Mapping[str, Any], *, wide: bool) -> Table:
    """Return the document of GET /v1/leases for people, in natural order of names."""
    hosts = [*document["leases"], *document.get("without_lease", [])]
    hosts.sort(key=lambda each: (natural(_name(each)), natural(_subnet(each))))
    troubled = sum(bool(each.get("conditions")) for each in hosts)
    more = f"; {troubled} with conditions: agentctl status there" if troubled else ""
    after = [count_states(hosts, "host") + more, *_older(document, hosts)]
    return Table(
        columns=_COLUMNS + (_WIDE if wide else ()),
        rows=[_row(each, wide=wide) for each in hosts],
        styles=[_style(each) for each in hosts],
        warnings=banner(document),
        after=after if hosts else (),
        empty="no host is in the mesh",
    )


def _older(document: Mapping[str, Any], hosts: list[Mapping[str, Any]]) -> list[str]:
    """Name the hosts whose agents are older than the newest one."""
    older = [clean(_name(each)) for each in hosts if each.get("outdated")]
    if not older:
        return []
    more = f" and {len(older) - _NAMED} more" if len(older) > _NAMED else ""
    named = ", ".join(older[:_NAMED]) + more
    return [f"older than hostmesh {clean(document.get('newest_version'))}: {named}; upgrade them"]


def _name(host: Mapping[str, Any]) -> str:
    return str(host.get("host_name") or host.get("node_address") or "-")


def _subnet(host: Mapping[str, Any]) -> str:
    return str(host.get("subnet") or "no subnet")


def _row(host: Mapping[str, Any], *, wide: bool) -> list[object]:
    seen_s, version = host.get("last_seen_s"), host.get("agent_version")
    row: list[object] = [
        f"{'*' if host.get('own') else ' '} {_name(host)}",
        _subnet(host),
        _state(host),
        None if seen_s is None else f"{age(seen_s)} ago",
        f"{version} (older)" if host.get("outdated") else version,
        host.get("backend"),
        host.get("containers"),
        ", ".join(map(str, host.get("conditions") or ())),
    ]
    if wide:
        row += [host.get("node_address"), host.get("docker")]
        row += [duration(host.get("age_s")), host.get("host_id")]
    return row


def _state(host: Mapping[str, Any]) -> str:
    """Return the state without its time, which has a column of its own."""
    if "subnet" not in host:
        return "waiting"
    return state_of({**host, "last_seen_s": None, "silent_s": None})


def _style(host: Mapping[str, Any]) -> str:
    state = _state(host)
    if state == "DOWN":
        return "bad"
    calm = state in {"up", "flannel host"} and not (host.get("conditions") or host.get("outdated"))
    return "" if calm else "warn"
