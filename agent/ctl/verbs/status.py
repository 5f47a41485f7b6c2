"""``agentctl status``: this host on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Palette, clean, duration, flow, render_table, sentence
from agent.ctl.stale import banner, heartbeat_words

__all__ = ["changes", "lines", "run"]

_STYLES = {
    "ready": "good",
    "degraded": "bad",
    "stopped": "bad",
    "silent": "bad",
    "error": "bad",
    "warning": "warn",
}
_AWAY: Mapping[Any, str] = {True: "connected", False: "away"}
_MAX_SILENT = 10  # one screen
_LABEL_CELLS = 11
_PEER_COLUMNS = (
    Column(title="PEER", shrink_to=10),
    Column(title="SUBNET"),
    Column(title="NODE ADDRESS"),
    Column(title="BACKEND", drop=1),
    Column(title="HEARTBEAT"),
    Column(title="LEVEL", right=True, drop=2),
)


def run(context: Context) -> int:
    """Print what the agent says of itself; 0 whatever the state (``wait --ready`` tells)."""
    if context.args.watch:
        from agent.ctl.watch import watch  # noqa: PLC0415 - only for that

        return watch(context, "/v1/status", lambda d: _screen(context, d), changes)
    document = direct.ask(context, "/v1/status")
    context.show(document, lambda: _screen(context, document))
    return 0


def _screen(context: Context, document: Mapping[str, Any]) -> list[str]:
    wide = context.form == "wide"
    return lines(document, wide=wide, width=context.width, palette=context.palette)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is new in the second of two documents, a line each."""
    found = []
    for name, old, new in (
        ("state", before.get("state"), now.get("state")),
        ("subnet", before.get("subnet"), now.get("subnet")),
        ("docker", _part(before, "docker").get("state"), _part(now, "docker").get("state")),
        ("etcd", _part(before, "etcd").get("connected"), _part(now, "etcd").get("connected")),
        ("drift", *(_drift(_part(each, "routes")) for each in (before, now))),
        (
            "repaired",
            _part(before, "repairs").get("count"),
            _part(now, "repairs").get("count"),
        ),
        ("peers", *(_counts(_list(each, "peers")) for each in (before, now))),
    ):
        if old != new:
            found.append(f"{name}: {clean(_AWAY.get(old, old))} -> {clean(_AWAY.get(new, new))}")
    earlier, later = _by_name(before), _by_name(now)
    found += [
        f"condition raised: {_heading(each)}: {sentence(each.get('cause'))}"
        for key, each in later.items()
        if key not in earlier
    ]
    found += [
        f"condition cleared: {_heading(each)}" for key, each in earlier.items() if key not in later
    ]
    return found


def _by_name(document: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    conditions = _list(document, "conditions")
    return {(str(each.get("name")), str(each.get("subject"))): each for each in conditions}


def _heading(condition: Mapping[str, Any]) -> str:
    about = f" ({clean(condition['subject'])})" if condition.get("subject") else ""
    return f"{clean(condition.get('name'))}{about}"


def lines(
    document: Mapping[str, Any], *, wide: bool, width: int | None, palette: Palette
) -> list[str]:
    """Lay out the document of GET /v1/status; ``wide`` lists every peer."""
    found = [palette.paint("warn", each) for each in banner(document)]
    for label, value in _facts(document):
        style = _STYLES.get(value) if label == "state" else None
        text = sentence(value)
        if style:
            found.append(f"{label:<{_LABEL_CELLS}}{palette.paint(style, text)}")
        else:
            found.extend(flow(text, width, first=f"{label:<{_LABEL_CELLS}}", rest=_LABEL_CELLS))
    found.extend(_peers(_list(document, "peers"), wide=wide, width=width))
    found.extend(_conditions(_list(document, "conditions"), width=width, palette=palette))
    return found


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = document.get(key)
    return part if isinstance(part, Mapping) else {}


def _list(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    part = document.get(key)
    return [each for each in part if isinstance(each, Mapping)] if isinstance(part, list) else []


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    host, mesh = _part(document, "host"), _part(document, "mesh")
    yield "host", f"{host.get('name')} ({host.get('id')})"
    yield "state", str(document.get("state"))
    former = document.get("former_subnet")
    yield (
        "subnet",
        str(document.get("subnet") or "none") + (f", leaving {former}" if former else ""),
    )
    if mesh:
        length, backend = mesh.get("subnet_len"), mesh.get("backend")
        if mesh.get("accepted_backend"):
            backend = f"{backend} ({mesh['accepted_backend']} is accepted, too)"
        leaving = ", ".join(map(str, mesh.get("previous") or ()))
        moving = f", moving from {leaving}" if leaving else ""
        level = "" if mesh.get("level") in {None, 1} else f", level {mesh['level']}"
        yield "mesh", f"{mesh.get('cidr')}, a /{length} for each host, {backend}{level}{moving}"
    else:
        yield "mesh", "no config: agentctl config init"
    if host.get("node_address"):
        yield "address", f"{host.get('node_address')} on {host.get('uplink')}"
    else:
        yield "address", "no uplink"
    yield "docker", _docker(_part(document, "docker"))
    etcd = _part(document, "etcd")
    yield "etcd", _etcd(etcd)
    if etcd.get("source"):
        yield "", _etcd_source(etcd)
    yield "routes", _routes(_part(document, "routes"))
    repairs = _part(document, "repairs")
    if repairs.get("count"):
        count, ago = repairs["count"], duration(repairs.get("last_s_ago"))
        since = f"{count} since the agent started, the last {ago} ago"
        yield "repaired", f"{since}: {repairs.get('last')}"
    elif repairs:
        yield "repaired", "nothing since the agent started"


def _routes(routes: Mapping[str, Any]) -> str:
    desired, installed, drift = (routes.get(each) for each in ("desired", "installed", "drift"))
    if desired is None:
        return "unknown"
    if installed is None:
        return f"unknown of {desired}"
    return f"{installed} of {desired}" + (f", {drift} drifted" if drift else "")


def _drift(routes: Mapping[str, Any]) -> object:
    drift = routes.get("drift")
    return "unknown" if drift is None else drift


def _docker(docker: Mapping[str, Any]) -> str:
    found = [str(docker.get("state"))]
    if docker.get("version"):
        found.append(f"version {docker['version']}")
    if docker.get("bridge"):
        found.append(f"docker0 {docker['bridge']}")
    if docker.get("network"):
        found.append(f"network hostmesh {docker['network']}")
    return ", ".join(found)


def _etcd(etcd: Mapping[str, Any]) -> str:
    found = ["connected" if etcd.get("connected") else "away"]
    if etcd.get("problem"):
        found.append(str(etcd["problem"]))
    if etcd.get("last_contact_s_ago") is not None:
        found.append(f"last contact {duration(etcd['last_contact_s_ago'])} ago")
    if etcd.get("revision") is not None:
        found.append(f"revision {etcd['revision']}")
    if etcd.get("cached"):
        found.append("working from this host's own copy")
    return ", ".join(found)


def _etcd_source(etcd: Mapping[str, Any]) -> str:
    """Where etcd is, and who said so."""
    endpoints = etcd.get("endpoints")
    told_by = etcd.get("told_by")
    if not isinstance(endpoints, list) or not endpoints:
        return "looked for in DNS: nothing found yet"
    found = ", ".join(str(each) for each in endpoints)
    if etcd.get("source") == "dns":
        return f"{found}, from DNS {told_by}"
    return f"{found}, from {told_by or 'settings'}"


def _peers(peers: Sequence[Mapping[str, Any]], *, wide: bool, width: int | None) -> Iterator[str]:
    silent = [peer for peer in peers if peer.get("alive") is False]
    yield f"{'peers':<{_LABEL_CELLS}}{_counts(peers)}"
    stale = [peer for peer in peers if peer.get("heartbeat") == "unknown"]
    listed = peers if wide else (stale or silent)[:_MAX_SILENT]
    if listed:
        columns = _PEER_COLUMNS if wide else _PEER_COLUMNS[:-1]
        rows = [_peer_row(peer)[: len(columns)] for peer in listed]
        room = None if width is None else width - 2
        yield from (f"  {line}" for line in render_table(columns, rows, room))
    if not wide and len(stale or silent) > _MAX_SILENT:
        yield f"  and {len(stale or silent) - _MAX_SILENT} more: agentctl status -o wide"


def _counts(peers: Sequence[Mapping[str, Any]]) -> str:
    silent = sum(peer.get("alive") is False for peer in peers)
    unknown = sum(peer.get("alive") is None for peer in peers)
    alive = len(peers) - silent - unknown
    counts = [f"{alive} alive"] if alive or not (silent or unknown) else []
    counts += [f"{silent} without heartbeat"] if silent else []
    counts += [f"{unknown} unknown"] if unknown else []
    return f"{len(peers)}" + (f": {', '.join(counts)}" if peers else "")


def _peer_row(peer: Mapping[str, Any]) -> list[object]:
    return [
        peer.get("host_name"),
        peer.get("subnet"),
        peer.get("node_address"),
        peer.get("backend"),
        heartbeat_words(peer),
        peer.get("level"),
    ]


def _conditions(
    conditions: Sequence[Mapping[str, Any]], *, width: int | None, palette: Palette
) -> Iterator[str]:
    if not conditions:
        yield f"{'conditions':<{_LABEL_CELLS}}none"
        return
    yield f"{'conditions':<{_LABEL_CELLS}}{len(conditions)}"
    for condition in conditions:
        severity = clean(condition.get("severity"))
        name = clean(condition.get("name"))
        about = f" ({clean(condition['subject'])})" if condition.get("subject") else ""
        known = condition.get("since_s_ago") is not None
        since = f" for {duration(condition['since_s_ago'])}" if known else ""
        painted = palette.paint(_STYLES.get(severity, "dim"), severity)
        heading = f"  {painted} {palette.paint('strong', name)}"
        yield from flow(f"{about}{since}", width, first=heading, rest=4)
        yield from flow(sentence(condition.get("cause")), width, first=" " * 4, rest=4)
        if condition.get("hint"):
            yield from flow(f"hint: {sentence(condition['hint'])}", width, first=" " * 4, rest=4)
