"""``agentctl leases``: every host and its subnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.client import Document
from agent.ctl.context import Context
from agent.ctl.output import Column, Table, clean, duration
from agent.ctl.stale import banner, contact_changes, state_of

__all__ = ["changes", "run", "table"]

_COLUMNS = (
    Column(title="  HOST", shrink_to=10),
    Column(title="SUBNET"),
    Column(title="NODE ADDRESS"),
    Column(title="BACKEND", shrink_to=7, drop=1),
    Column(title="AGE", right=True, drop=2),
    Column(title="STATE"),
)
_FOLLOWED = {
    "host_id": "host",
    "node_address": "node address",
    "backend": "backend",
    "alive": "state",
    "docker": "Docker",
    "agent_version": "version",
    "conditions": "conditions",
}
_OF_HEARTBEAT = ("alive", "docker", "conditions")
_HOSTS_SHOWN = 10
_WIDE = (
    Column(title="LINK", shrink_to=6, drop=7),
    Column(title="DEVICE", drop=8),
    Column(title="MTU", right=True, drop=9),
    Column(title="LEFT", right=True, drop=5),
    Column(title="DOCKER", drop=3),
    Column(title="LEVEL", right=True, drop=6),
    Column(title="HOST ID", shrink_to=8, drop=4),
)


def run(context: Context) -> int:
    """Print the leases as the agent sees them, or as etcd has them when no agent answers."""
    if context.args.watch:
        from agent.ctl.watch import watch  # noqa: PLC0415 - only for that

        return watch(
            context, lambda client: client.get("/v1/leases"), lambda d: _screen(context, d), changes
        )
    document = direct.ask(context, "/v1/leases")
    context.show_table(document, lambda: table(document, wide=context.is_wide))
    return 0


def _screen(context: Context, document: Document) -> list[str]:
    return context.table_lines(table(document, wide=context.is_wide))


def changes(before: Document, now: Document) -> list[str]:
    """Return what is new in the second of two documents, a line each."""
    earlier = {lease.get("subnet"): lease for lease in before.get("leases", [])}
    later = {lease.get("subnet"): lease for lease in now.get("leases", [])}
    found = contact_changes(before, now)
    found += [f"{_who(later[each])} joined" for each in later if each not in earlier]
    found += [f"{_who(earlier[each])} left" for each in earlier if each not in later]
    for subnet, lease in later.items():
        old = earlier.get(subnet, lease)
        found += [
            f"{_who(lease)} {words}: {_shown(key, old)} -> {_shown(key, lease)}"
            for key, words in _FOLLOWED.items()
            if _shown(key, old) != _shown(key, lease) and not _is_guess(key, before, now, lease)
        ]
    return found


def _is_guess(key: str, before: Document, now: Document, lease: Mapping[str, Any]) -> bool:
    """Whether a difference comes from etcd's absence, not from the host."""
    if key in ("agent_version", "conditions") and lease.get("alive") is not True:
        return True
    if key not in _OF_HEARTBEAT or not (before.get("stale") or now.get("stale")):
        return False
    return bool(now.get("stale")) or lease.get("alive") is not False


def _who(lease: Mapping[str, Any]) -> str:
    return f"{clean(lease.get('subnet'))} {clean(lease.get('host_name'))}"


def _shown(key: str, lease: Mapping[str, Any]) -> str:
    if key == "alive":
        return state_of({"alive": lease.get(key)})
    return clean(", ".join(lease.get(key) or ()) if key == "conditions" else lease.get(key))


def table(document: Mapping[str, Any], *, wide: bool) -> Table:
    """Return the document of GET /v1/leases as a table; ``wide`` adds columns."""
    after = [_move(document)] if document.get("previous") else []
    after += [
        f"set aside: {clean(aside.get('key'))}: {clean(aside.get('reason'))}"
        for aside in document.get("set_aside", [])
    ]
    return Table(
        columns=_COLUMNS + (_WIDE if wide else ()),
        rows=[_row(each, wide=wide) for each in document["leases"]],
        warnings=banner(document),
        after=after,
        empty="no host has a lease",
    )


def _move(document: Mapping[str, Any]) -> str:
    """Name the CIDRs that the mesh moves away from, and the hosts that are still there."""
    ranges = clean(", ".join(map(str, document["previous"])))
    left = [each for each in document["leases"] if each.get("moving")]
    hosts = [clean(each.get("host_name") or each.get("node_address")) for each in left]
    more = len(hosts) - _HOSTS_SHOWN
    named = ", ".join(hosts[:_HOSTS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"the mesh moves away from {ranges}; still there: {named or 'no host'}"


def _row(lease: Mapping[str, Any], *, wide: bool) -> list[object]:
    row: list[object] = [
        f"{'*' if lease.get('own') else ' '} {lease.get('host_name') or '-'}",
        *(lease.get(key) for key in ("subnet", "node_address", "backend")),
        duration(lease.get("age_s")),
        state_of(lease),
    ]
    if wide:
        row += [lease.get("link"), _device(lease), lease.get("mtu")]
        row.append(duration(lease.get("ttl_left_s")))
        row += [lease.get(key) for key in ("docker", "level", "host_id")]
    return row


def _device(lease: Mapping[str, Any]) -> str | None:
    """Return the device by which this host sends there; "direct" where that is past a tunnel."""
    device = lease.get("device")
    return f"{device}, direct" if lease.get("direct") else device
