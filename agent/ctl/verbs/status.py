"""``agentctl status``: this host on one screen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import (
    STATE_STYLES,
    Column,
    Palette,
    clean,
    flow,
    natural,
    render_table,
    sentence,
)
from agent.ctl.stale import age, banner, count_states, state_of
from agent.errors import HostmeshError

__all__ = ["changes", "lines", "run"]

_STYLES = {"error": "bad", "warning": "warn"}
_CONNECTED: Mapping[Any, str] = {True: "connected", False: "unreachable"}
_MAX_PEERS = 10  # one screen
_LABEL_CELLS = 8
_SEVERITY_CELLS = 9
_BRIEF_CELLS = 20
_PEER_COLUMNS = (
    Column(title="PEER", shrink_to=10),
    Column(title="SUBNET"),
    Column(title="STATE", shrink_to=20),
    Column(title="NODE ADDRESS", drop=3),
    Column(title="BACKEND", drop=1),
    Column(title="LEVEL", right=True, drop=2),
)
_BRIEF_COLUMNS = 3
_NO_CHECK: Mapping[str, Any] = MappingProxyType({})
_CHECK_LASTS_S = 1800.0  # twice the time between the agent's own checks


def run(context: Context) -> int:
    """Print the agent's status; return 0 in every state (``wait --ready`` tests the state)."""
    if context.args.watch:
        from agent.ctl.watch import watch  # noqa: PLC0415 - only for that

        return watch(
            context, lambda client: client.get("/v1/status"), partial(_screen, context), changes
        )
    document = direct.ask(context, "/v1/status")
    context.show(document, lambda: _screen(context, document))
    return 0


def _screen(context: Context, document: Mapping[str, Any]) -> list[str]:
    return lines(
        document,
        wide=context.is_wide,
        width=context.width,
        palette=context.palette,
        check=_last_check(context, document),
    )


def _last_check(context: Context, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the last check of all peers; nothing if it is too old to go with the status."""
    if document.get("source") != "agent" or document.get("stale"):
        return _NO_CHECK
    try:
        found = context.client.get("/v1/check")
    except HostmeshError:  # an agent before 0.2, or a file that agentctl check writes anew
        return _NO_CHECK
    ago_s = found.get("checked_s_ago")
    return found if ago_s is not None and ago_s <= _CHECK_LASTS_S else _NO_CHECK


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is new in the second of two documents, a line each."""
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
        ("peers", *(count_states(_list(each, "peers"), "peer") for each in (before, now))),
    ):
        if old != new:
            was, is_now = (clean(_CONNECTED.get(each, each)) for each in (old, new))
            found.append(f"{name}: {was} -> {is_now}")
    earlier, later = _by_name(before), _by_name(now)
    found += [
        f"condition raised: {_name(each)}: {sentence(each.get('cause'))}"
        for key, each in later.items()
        if key not in earlier
    ]
    found += [
        f"condition cleared: {_name(each)}" for key, each in earlier.items() if key not in later
    ]
    return found


def _by_name(document: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    conditions = _list(document, "conditions")
    return {(str(each.get("name")), str(each.get("subject"))): each for each in conditions}


def _name(condition: Mapping[str, Any]) -> str:
    about = f" ({clean(condition['subject'])})" if condition.get("subject") else ""
    return f"{clean(condition.get('name'))}{about}"


def lines(
    document: Mapping[str, Any],
    *,
    wide: bool,
    width: int | None,
    palette: Palette,
    check: Mapping[str, Any] = _NO_CHECK,
) -> list[str]:
    """Lay out the document of GET /v1/status; ``wide`` lists every peer and every detail.

    Args:
        check: The last check of all peers, GET /v1/check.
    """
    found = [palette.paint("warn", each) for each in banner(document)]
    found += _heading(document, width, palette)
    brief: list[str] = []
    for label, value in _facts(document, wide=wide):
        text = sentence(value)
        if not wide and label in {"etcd", "docker", "routes"} and len(text) <= _BRIEF_CELLS:
            brief.append(f"{label:<{_LABEL_CELLS}}{text:<{_BRIEF_CELLS}}")
        else:
            found += flow(text, width, first=f"{label:<{_LABEL_CELLS}}", rest=_LABEL_CELLS)
    together = "".join(brief).rstrip()
    fits = width is None or len(together) <= width
    found += [together] if together and fits else [each.rstrip() for each in brief]
    repairs = _part(document, "repairs")
    if repairs.get("count"):
        last = f"the last {age(repairs.get('last_s_ago'))} ago: {sentence(repairs.get('last'))}"
        found += flow(f"{clean(repairs['count'])}, {last}", width, first="repairs ", rest=8)
    found += _peers(_peers_of(document, check), wide=wide, width=width)
    found += _problems(_list(document, "conditions"), width=width, palette=palette)
    return found


def _heading(document: Mapping[str, Any], width: int | None, palette: Palette) -> list[str]:
    state, version = clean(document.get("state")), document.get("agent_version")
    former = document.get("former_subnet")
    leaving = f" (leaving {clean(former)})" if former else ""
    subnet = clean(document.get("subnet") or "no subnet")
    host = f"{clean(_part(document, 'host').get('name'))}  {subnet}{leaving}  "
    first = f"{host}{palette.paint(STATE_STYLES.get(state, 'strong'), state.upper())}  "
    program = f"hostmesh {clean(version)}" if version else "no agent answers"
    up = f", up {age(document['up_s'])}" if document.get("up_s") is not None else ""
    return flow(f"{program}{up}", width, first=first, rest=_LABEL_CELLS)


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = document.get(key)
    return part if isinstance(part, Mapping) else {}


def _list(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    part = document.get(key)
    return [each for each in part if isinstance(each, Mapping)] if isinstance(part, list) else []


def _facts(document: Mapping[str, Any], *, wide: bool) -> Iterator[tuple[str, str]]:
    host = _part(document, "host")
    yield "mesh", _mesh(document, wide=wide)
    if wide and _part(document, "mesh").get("device"):
        yield "device", _device(_part(document, "mesh"))
    if wide or not host.get("node_address"):
        address = f"{host.get('node_address')} on {host.get('uplink')}, host id {host.get('id')}"
        yield "address", address if host.get("node_address") else "no uplink"
    etcd = _part(document, "etcd")
    yield "etcd", _etcd(etcd, {each.get("cause") for each in _list(document, "conditions")})
    if etcd.get("source") and (wide or not etcd.get("connected")):
        yield "", _etcd_source(etcd)
    yield "docker", _docker(_part(document, "docker"), wide=wide)
    yield "routes", _routes(_part(document, "routes"))


def _mesh(document: Mapping[str, Any], *, wide: bool) -> str:
    mesh = _part(document, "mesh")
    if not mesh:
        return "no config: agentctl config init"
    used = len(_list(document, "peers")) + bool(document.get("subnet"))
    all_subnets = f"{used} of {mesh['subnets']} subnets used, " if mesh.get("subnets") else ""
    found = f"{mesh.get('cidr')}, {all_subnets}{mesh.get('backend')}"
    if wide:
        found += f", a /{mesh.get('subnet_len')} for each host, level {mesh.get('level', 1)}"
    if mesh.get("accepted_backend"):
        found += f", {mesh['accepted_backend']} is accepted, too"
    leaving = ", ".join(map(str, mesh.get("previous") or ()))
    return found + (f", moving from {leaving}" if leaving else "")


def _device(mesh: Mapping[str, Any]) -> str:
    return f"{mesh['device']}, MTU {mesh.get('device_mtu')}; containers {mesh.get('container_mtu')}"


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


def _docker(docker: Mapping[str, Any], *, wide: bool) -> str:
    ready = docker.get("state") == "ready"
    found = ["ok" if ready else str(docker.get("state"))]
    found += [str(docker["version"])] if docker.get("version") else []
    if wide or not ready:
        found += [f"docker0 {docker['bridge']}"] if docker.get("bridge") else []
        found += [f"network hostmesh {docker['network']}"] if docker.get("network") else []
    return ", ".join(found)


def _etcd(etcd: Mapping[str, Any], causes: Collection[object]) -> str:
    """Say whether etcd answers; a problem that is listed as a condition is not repeated."""
    is_new = etcd.get("problem") and etcd["problem"] not in causes
    problem = f": {etcd['problem']}" if is_new else ""
    found = f"ok{problem}" if etcd.get("connected") else f"unreachable{problem}"
    if etcd.get("last_contact_s_ago") is not None:
        found += f" ({age(etcd['last_contact_s_ago'])} ago)"
    return found + (", working from this host's own copy" if etcd.get("cached") else "")


def _etcd_source(etcd: Mapping[str, Any]) -> str:
    """Name etcd's endpoints and what named them."""
    endpoints, named_by = etcd.get("endpoints"), etcd.get("told_by")
    if not isinstance(endpoints, list) or not endpoints:
        return "searched in DNS: nothing found yet"
    found = ", ".join(str(each) for each in endpoints)
    if etcd.get("source") == "dns":
        return f"{found}, from DNS {named_by}"
    return f"{found}, from {named_by or 'settings'}"


def _peers(peers: Sequence[Mapping[str, Any]], *, wide: bool, width: int | None) -> Iterator[str]:
    """Yield a line for each peer; unless ``wide`` for ten, those with a problem first."""
    label, indent = f"{'PEERS':<{_LABEL_CELLS}}", " " * _LABEL_CELLS
    if not peers:
        yield f"{label}none"
        return
    listed = sorted(peers, key=lambda each: natural(each.get("host_name") or ""))
    if not wide:
        listed = sorted(listed, key=_wellness)[:_MAX_PEERS]
    columns = _PEER_COLUMNS if wide else _PEER_COLUMNS[:_BRIEF_COLUMNS]
    rows = [_peer_row(peer)[: len(columns)] for peer in listed]
    table = render_table(columns, rows, None if width is None else width - _LABEL_CELLS)
    for number, line in enumerate(table if wide else table[1:]):
        yield f"{indent if number else label}{line}"
    if len(peers) > len(listed):
        more = f"and {len(peers) - len(listed)} more: agentctl status -o wide"
        yield from flow(
            f"{more} ({count_states(peers, 'peer')})", width, first=indent, rest=_LABEL_CELLS
        )


def _peers_of(document: Mapping[str, Any], check: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the peers, each with its "trouble" and its "rtt_ms" by the last check.

    Conditions that this host has, too, are left out: PROBLEMS explains those.
    """
    own = {each.get("name") for each in _list(document, "conditions")}
    checked = {each.get("subnet"): each for each in _list(check, "peers")}
    found: list[Mapping[str, Any]] = []
    for peer in _list(document, "peers"):
        last = checked.get(peer.get("subnet"), _NO_CHECK)
        failed = [
            each.get("test") for each in _list(last, "tests") if each.get("result") == "failed"
        ]
        trouble = [str(each) for each in peer.get("conditions") or () if each not in own]
        if peer.get("alive") and failed:
            named = " and ".join(map(str, failed))
            trouble.append(f"{named} failed {age(check['checked_s_ago'])} ago: agentctl check")
        found.append({**peer, "trouble": trouble, "rtt_ms": last.get("rtt_ms")})
    return found


def _wellness(peer: Mapping[str, Any]) -> int:
    return 0 if peer.get("alive") is False else 1 if peer["trouble"] else 2


def _peer_row(peer: Mapping[str, Any]) -> list[object]:
    keys = ("node_address", "backend", "level")
    state = state_of(peer)
    if peer.get("alive") and peer["rtt_ms"] is not None:
        state += f", {peer['rtt_ms']:.2f} ms"
    state = ", ".join((state, *peer["trouble"]))
    names = [peer.get("host_name"), peer.get("subnet"), state]
    return [*names, *(peer.get(key) for key in keys)]


def _problems(
    conditions: Sequence[Mapping[str, Any]], *, width: int | None, palette: Palette
) -> Iterator[str]:
    """Yield each condition's cause, name and age, and its hint."""
    yield f"PROBLEMS ({len(conditions)})" if conditions else "no problems"
    indent = 2 + _SEVERITY_CELLS
    for condition in conditions:
        severity, since_s = clean(condition.get("severity")), condition.get("since_s_ago")
        cause, subject = sentence(condition.get("cause")), clean(condition.get("subject"))
        name = clean(condition.get("name"))
        name += f" {subject}" if condition.get("subject") and subject not in cause else ""
        since = f", {age(since_s)}" if since_s is not None else ""
        painted = palette.paint(_STYLES.get(severity, "dim"), f"{severity:<{_SEVERITY_CELLS}}")
        yield from flow(f"{cause} ({name}{since})", width, first=f"  {painted}", rest=indent)
        if condition.get("hint"):
            yield from flow(sentence(condition["hint"]), width, first=" " * indent, rest=indent)
