"""``agentctl map``: a drawing of this host, its links and its peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agent.ctl import direct
from agent.ctl.client import Document
from agent.ctl.context import Context
from agent.ctl.output import Column, Palette, clean, cut, flow, render_table, sentence
from agent.ctl.stale import banner, state_of

__all__ = ["document_of", "lines", "run"]

_MOST = 40
_UNICODE = {
    "ok": "●",
    "silent": "○",
    "unknown": "?",
    "untested": "·",
    "broken": "✗",
    "tee": "├─",
    "end": "└─",
    "bar": "│",
}
_ASCII = {
    "ok": "*",
    "silent": "o",
    "unknown": "?",
    "untested": "-",
    "broken": "x",
    "tee": "|-",
    "end": "`-",
    "bar": "|",
}
_PATHS = {True: "ok", False: "failed", None: "untested"}
_NOT_TESTED: Mapping[str, bool] = MappingProxyType({})
_STYLES = {"ok": "good", "silent": "warn", "unknown": "warn", "untested": "dim", "broken": "bad"}
_COLUMNS = (
    Column(title="", shrink_to=8),
    Column(title=""),
    Column(title="", drop=1),
    Column(title="", shrink_to=12),
)


def run(context: Context) -> int:
    """Draw the mesh as this host sees it."""
    status, routes = (direct.ask(context, f"/v1/{each}") for each in ("status", "routes"))
    from agent.ctl.path.container_path import tested_peers  # noqa: PLC0415 - costs 0.3 s

    tested = tested_peers(context, status, status.get("peers", []))
    document = document_of(status, routes, *tested)
    wide = context.form == "wide"
    encoding = (getattr(context.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    signs = _UNICODE if encoding == "utf8" else _ASCII
    width = None if wide else context.width
    context.show(
        document,
        lambda: lines(document, wide=wide, width=width, palette=context.palette, signs=signs),
    )
    return 0


def document_of(
    status: Mapping[str, Any],
    routes: Mapping[str, Any],
    answered: Mapping[str, bool] = _NOT_TESTED,
    untested: str | None = None,
) -> Document:
    """Return the map as a document: this host, and each peer with its link and state.

    Args:
        answered: By peer's subnet: whether a container there answered one on this host.
        untested: Why no container was asked, "" when some were.
    """
    by_subnet = {row["destination"]: row for row in routes.get("routes", [])}
    peers = []
    for peer in status.get("peers", []):
        row = by_subnet.get(peer["subnet"], {})
        peers.append(
            {
                "host_name": peer["host_name"],
                "subnet": peer["subnet"],
                "node_address": peer["node_address"],
                "link": row.get("link"),
                "gateway": row.get("gateway"),
                "direct": _is_direct(row, status),
                "route": row.get("state") or "none",
                "kind": row.get("kind"),
                "alive": peer["alive"],
                "heartbeat": peer.get("heartbeat"),
                "last_seen_s": peer.get("last_seen_s"),
                "container": peer.get("container"),
                "path": _PATHS[answered.get(peer["subnet"])],
                "state": _state(peer, row, answered=answered.get(peer["subnet"])),
            }
        )
    host = status.get("host", {})
    return {
        "version": 1,
        "host": {**host, "subnet": status.get("subnet"), "state": status.get("state")},
        "mesh": (status.get("mesh") or {}).get("cidr"),
        **{key: status.get(key) for key in ("cached", "stale", "as_of", "as_of_s_ago")},
        "untested": untested or None,
        "peers": peers,
    }


def _is_direct(row: Mapping[str, Any], status: Mapping[str, Any]) -> bool | None:
    """Whether packets to the peer are sent past every tunnel; None without a route."""
    link, uplink = row.get("link"), status.get("host", {}).get("uplink")
    return None if link is None or uplink is None else link == uplink


def _state(peer: Mapping[str, Any], row: Mapping[str, Any], *, answered: bool | None) -> str:
    """Sum up one peer: "ok" only where a container of it answered one of this host."""
    if row.get("state") != "installed" or row.get("kind") != "unicast":
        return "broken"
    if peer.get("heartbeat") == "unknown":
        return "unknown"
    if peer.get("alive") is False:
        return "silent"
    return {True: "ok", False: "broken", None: "untested"}[answered]


def lines(
    document: Mapping[str, Any],
    *,
    wide: bool,
    width: int | None,
    palette: Palette,
    signs: Mapping[str, str] = _UNICODE,
) -> list[str]:
    """Draw the document; broken peers come first, and at most 40 peers unless ``wide``."""
    host = document["host"]
    head = f"{clean(host.get('name'))}  {clean(host.get('subnet'))}  {clean(host.get('state'))}"
    if width is not None:
        head = cut(head, width)
    found = [palette.paint("warn", each) for each in banner(document)]
    found += [palette.paint("strong", head), signs["bar"]]
    uplink = f"{clean(host.get('uplink'))} {clean(host.get('node_address'))}"
    found += flow(
        f"{uplink}  mesh {clean(document.get('mesh'))}", width, first=f"{signs['end']} ", rest=3
    )
    if document.get("untested"):
        text = f"containers' path not tested: {sentence(document['untested'])}"
        found += flow(text, width, first="   ", rest=3)
    order = ("broken", "silent", "unknown", "untested", "ok")
    peers = sorted(document["peers"], key=lambda peer: order.index(peer["state"]))
    listed = peers if wide else peers[:_MOST]
    rest = len(peers) - len(listed)
    found += _rows(listed, rest, width, palette, signs)
    if rest:
        found.append(f"   {signs['end']} and {rest} more: agentctl map -o wide")
    return found


def _rows(
    peers: Sequence[Mapping[str, Any]],
    rest: int,
    width: int | None,
    palette: Palette,
    signs: Mapping[str, str],
) -> list[str]:
    if not peers:
        return [f"   {signs['end']} no peers"]
    cells = [[e["host_name"], e["subnet"], _way(e), _state_text(e)] for e in peers]
    table = render_table(_COLUMNS, cells, None if width is None else width - 8)[1:]
    drawn = []
    for number, (peer, row) in enumerate(zip(peers, table, strict=True)):
        last = number == len(peers) - 1 and not rest
        sign = palette.paint(_STYLES[peer["state"]], signs[peer["state"]])
        drawn.append(f"   {signs['end' if last else 'tee']} {sign} {row}")
    return drawn


def _way(peer: Mapping[str, Any]) -> str:
    """The host's address, and the tunnel to it where there is one."""
    tunnel = f" in {clean(peer.get('link'))}" if peer.get("direct") is False else ""
    return f"via {clean(peer['node_address'])}{tunnel}"


def _state_text(peer: Mapping[str, Any]) -> str:
    unreachable = peer.get("kind") == "unreachable"
    state = state_of({**peer, "reachable": not unreachable})
    if unreachable:
        return f"{state}, unreachable"
    if peer["state"] == "ok":
        return f"{state}, a container answers"
    if peer["state"] == "untested":
        return f"{state}, not tested" + ("" if peer.get("container") else ": no container known")
    if peer.get("path") == "failed" and peer.get("route") == "installed":
        return f"{state}, {clean(peer.get('container'))} does not answer"
    return f"{state}, route {clean(peer['route'])}"
