"""Draw the map as SVG, and as a graph for Graphviz. Pure: the map's document in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from agent.ctl.output import clean
from agent.ctl.path.mesh_map import links_of

__all__ = ["dot", "svg"]

Peer = Mapping[str, Any]

_COLOURS = {
    "ok": "#17804a",
    "untested": "#5f8f76",
    "unknown": "#6a7686",
    "silent": "#955f00",
    "broken": "#c02b2b",
}
_TEXTS = {
    "ok": "a container answers",
    "untested": "up, not tested",
    "unknown": "not known",
    "silent": "no heartbeat",
    "broken": "broken",
}
_SPACE = "http://www.w3.org/2000/svg"
_WIDTH = 960
_HUB = (24, 220)
_LEFT = 400
_ROW, _HEAD, _GAP = 34, 40, 18
_COMPACT_FROM = 13
_COLUMNS = 4
_NAME_CHARS = 24
_STYLE = """
svg{font:14px Inter,system-ui,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
--page:#f4f6f8;--card:#fff;--line:#dde2e8;--text:#16202c;--soft:#566273;--accent:#2a5bd7}
@media(prefers-color-scheme:dark){svg{--page:#0d1218;--card:#151c25;--line:#28323f;--text:#e7edf4;
--soft:#9aa8b9;--accent:#8ab0ff}}
.page{fill:var(--page)}.card{fill:var(--card);stroke:var(--line)}
.hub{fill:var(--card);stroke:var(--accent);stroke-width:2}
text{fill:var(--text)}.soft{fill:var(--soft);font-size:12.5px}.name{font-weight:600}
.wire{fill:none;stroke-width:1.75;opacity:.75}.tunnel{stroke-dasharray:6 4}
"""


def svg(document: Mapping[str, Any]) -> str:
    """Return the map as one SVG file, for light and dark backgrounds."""
    groups = list(links_of(document).items())
    heights = [_height(peers) for _, peers in groups]
    height = max(150, sum(heights) + _GAP * max(0, len(heights) - 1)) + 88
    middle = 64 + (height - 88) / 2
    body: list[str] = []
    wires: list[str] = []
    top = 64.0
    for (link, peers), high in zip(groups, heights, strict=True):
        wires += _wires(peers, top, high, middle)
        body += _group(link, peers, top, high)
        top += high + _GAP
    title = f"{_short(document['host'].get('name'))} in the mesh {clean(document.get('mesh'))}"
    return "\n".join(
        (
            f'<svg xmlns="{_SPACE}" viewBox="0 0 {_WIDTH} {height:g}" role="img">',
            f"<title>{_text(title)}</title><style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height:g}" rx="12"/>',
            f'<text class="name" x="24" y="38" font-size="17">{_text(title)}</text>',
            *_age(document),
            *wires,
            *_hub(document, middle),
            *body,
            "</svg>\n",
        )
    )


def _age(document: Mapping[str, Any]) -> Iterator[str]:
    """Say that the map is old; nothing while etcd answers."""
    if document.get("stale"):
        ago = document.get("as_of_s_ago")
        text = "of unknown age" if ago is None else f"{ago:.0f} s old"
        yield f'<text class="soft" x="936" y="38" text-anchor="end">etcd unreachable, {text}</text>'


def _hub(document: Mapping[str, Any], middle: float) -> Iterator[str]:
    host = document["host"]
    left, width = _HUB
    yield f'<rect class="hub" x="{left}" y="{middle - 40:g}" width="{width}" height="80" rx="12"/>'
    lines = (
        host.get("name"),
        host.get("subnet"),
        f"{host.get('uplink')} {host.get('node_address')}",
    )
    for number, (line, style) in enumerate(zip(lines, ("name", "soft", "soft"), strict=True)):
        at = middle - 14 + 21 * number
        yield f'<text class="{style}" x="{left + 18}" y="{at:g}">{_text(_short(line))}</text>'


def _is_compact(peers: Sequence[Peer]) -> bool:
    return len(peers) >= _COMPACT_FROM


def _height(peers: Sequence[Peer]) -> float:
    rows = -(-len(peers) // _COLUMNS) if _is_compact(peers) else len(peers)
    return _HEAD + rows * _ROW + 4


def _group(link: str | None, peers: Sequence[Peer], top: float, high: float) -> Iterator[str]:
    width = _WIDTH - _LEFT - 24
    yield (
        f'<rect class="card" x="{_LEFT}" y="{top:g}" width="{width}" height="{high:g}" rx="12"/>'
    )
    yield f'<text x="{_LEFT + 16}" y="{top + 25:g}">{_text(_title(link, peers))}</text>'
    columns = _COLUMNS if _is_compact(peers) else 1
    for number, peer in enumerate(peers):
        x = _LEFT + 16 + (number % columns) * (width - 24) / columns
        y = top + _HEAD + (number // columns) * _ROW + 18
        colour = _COLOURS[peer["state"]]
        name = _short(peer["host_name"] or peer["node_address"], 14 if columns > 1 else _NAME_CHARS)
        yield f'<circle cx="{x + 6:g}" cy="{y - 5:g}" r="5" fill="{colour}"/>'
        yield f'<text class="name" x="{x + 20:g}" y="{y:g}">{_text(name)}</text>'
        if columns == 1:
            yield f'<text class="soft" x="{x + 210:g}" y="{y:g}">{_text(peer["subnet"])}</text>'
            said = _TEXTS[peer["state"]]
            yield f'<text class="soft" x="{x + 350:g}" y="{y:g}">{said}</text>'


def _wires(peers: Sequence[Peer], top: float, high: float, middle: float) -> Iterator[str]:
    start = _HUB[0] + _HUB[1]
    ends = [(top + high / 2, _worst(peers))]
    if not _is_compact(peers):
        ends = [
            (top + _HEAD + number * _ROW + 13, peer["state"]) for number, peer in enumerate(peers)
        ]
    style = "wire tunnel" if peers[0]["direct"] is False else "wire"
    for y, state in ends:
        yield (
            f'<path class="{style}" stroke="{_COLOURS[state]}"'
            f' d="M{start} {middle:g}C{start + 90} {middle:g} {_LEFT - 90} {y:g} {_LEFT} {y:g}"/>'
        )


def _worst(peers: Sequence[Peer]) -> str:
    order = list(_COLOURS)
    return max((str(each["state"]) for each in peers), key=order.index)


def _title(link: str | None, peers: Sequence[Peer]) -> str:
    if link is None:
        return f"no route: {len(peers)}"
    way = "direct" if peers[0]["direct"] else "tunnel"
    return f"{clean(link)}, {way}, {clean(peers[0].get('backend'))}: {len(peers)}"


def _short(value: object, most: int = 40) -> str:
    text = clean(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(value: object) -> str:
    """Return text for XML: without characters that XML cannot hold."""
    text = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value))
    return escape(text)


def dot(document: Mapping[str, Any]) -> str:
    """Return the map as an undirected graph in Graphviz' language."""
    host = document["host"]
    lines = [
        "graph hostmesh {",
        '  rankdir=LR; node [shape=box, style=rounded, fontname="sans-serif"];',
        f"  own [label={_quoted(host.get('name'), host.get('subnet'))}, penwidth=2];",
    ]
    number = 0
    for cluster, (link, peers) in enumerate(links_of(document).items()):
        lines.append(f"  subgraph cluster{cluster} {{ label={_quoted(_title(link, peers))};")
        first = number
        for peer in peers:
            colour = _COLOURS[peer["state"]]
            label = _quoted(peer["host_name"] or peer["node_address"], peer["subnet"])
            lines.append(f'    peer{number} [label={label}, color="{colour}"];')
            number += 1
        lines.append("  }")
        for offset, peer in enumerate(peers):
            style = "dashed" if peer["direct"] is False else "solid"
            colour = _COLOURS[peer["state"]]
            lines.append(f'  own -- peer{first + offset} [style={style}, color="{colour}"];')
    return "\n".join((*lines, "}\n"))


def _quoted(*values: object) -> str:
    r"""Return a quoted label: a backslash begins an escape, and \n ends a line."""
    cleaned = (clean(each).replace("\\", "\\\\").replace('"', '\\"') for each in values)
    return '"' + "\\n".join(cleaned) + '"'
