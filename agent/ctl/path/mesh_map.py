"""Make the map as data: this host, the links that it sends by, and its peers. Pure.

Every drawing (text, SVG, dot) is made of this document.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from agent.ctl.client import Document
from agent.ctl.output import natural

__all__ = ["links_of", "map_document"]

_PATHS = {True: "ok", False: "failed", None: "untested"}
_NOT_TESTED: Mapping[str, bool] = MappingProxyType({})
_OF_PEER = (
    "host_id",
    "host_name",
    "subnet",
    "node_address",
    "backend",
    "alive",
    "heartbeat",
    "last_seen_s",
    "reachable",
    "container",
    "agent_version",
    "outdated",
    "containers",
    "conditions",
)


def map_document(
    status: Mapping[str, Any],
    routes: Mapping[str, Any],
    answered: Mapping[str, bool] = _NOT_TESTED,
    untested: str | None = None,
) -> Document:
    """Return this host, and each peer with its link and state, in natural order of names.

    Args:
        status, routes: Documents of the control socket.
        answered: By peer's subnet: whether a container there answered one on this host.
        untested: Why no container was asked, "" when some were.
    """
    by_subnet = {row["destination"]: row for row in routes.get("routes", [])}
    peers = sorted(status.get("peers", []), key=_order)
    host, mesh = status.get("host", {}), status.get("mesh") or {}
    return {
        "version": 1,
        "host": {**host, "subnet": status.get("subnet"), "state": status.get("state")},
        "mesh": mesh.get("cidr"),
        "backend": mesh.get("backend"),
        **{key: status.get(key) for key in ("cached", "stale", "as_of", "as_of_s_ago")},
        "untested": untested or None,
        "peers": [
            _peer(each, by_subnet.get(each["subnet"], {}), host, answered.get(each["subnet"]))
            for each in peers
        ],
    }


def _order(peer: Mapping[str, Any]) -> tuple[object, ...]:
    return natural(peer.get("host_name") or ""), natural(peer["subnet"])


def _peer(
    peer: Mapping[str, Any],
    row: Mapping[str, Any],
    host: Mapping[str, Any],
    answered: bool | None,  # noqa: FBT001 - as the field
) -> dict[str, Any]:
    link, uplink = row.get("link"), host.get("uplink")
    return {
        **{key: peer.get(key) for key in _OF_PEER},
        "link": link,
        "gateway": row.get("gateway"),
        "direct": None if link is None or uplink is None else link == uplink,
        "route": row.get("state") or "none",
        "kind": row.get("kind"),
        "path": _PATHS[answered],
        "state": _state(peer, row, answered=answered),
    }


def _state(peer: Mapping[str, Any], row: Mapping[str, Any], *, answered: bool | None) -> str:
    """Sum up one peer: "ok" only where a container of it answered one of this host.

    While etcd is away an answer is a fact. Silence is none, since that container may have ended.
    """
    if row.get("state") != "installed" or row.get("kind") != "unicast":
        return "broken"
    if peer.get("heartbeat") == "unknown":
        return "ok" if answered else "unknown"
    if peer.get("alive") is False:
        return "silent"
    return {True: "ok", False: "broken", None: "untested"}[answered]


def links_of(document: Mapping[str, Any]) -> dict[str | None, list[Mapping[str, Any]]]:
    """Return the peers of a map by the link that leads there; None: no link does.

    The uplink comes first, then tunnels, then peers without a link.
    """
    found: dict[str | None, list[Mapping[str, Any]]] = {}
    order = {True: 0, False: 1, None: 2}
    for peer in sorted(document["peers"], key=lambda each: order[each["direct"]]):
        found.setdefault(peer["link"], []).append(peer)
    return found
