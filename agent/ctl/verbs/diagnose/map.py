"""``agentctl map``: a drawing of this host, its links and its peers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from agent.ctl import direct
from agent.ctl.client import Document
from agent.ctl.context import Context
from agent.ctl.output import (
    STATE_STYLES,
    Column,
    Palette,
    clean,
    cut,
    flow,
    natural,
    render_table,
    sentence,
)
from agent.ctl.path.mesh_map import links_of, map_document
from agent.ctl.stale import banner, contact_changes, state_of

__all__ = ["changes", "lines", "run"]

_MOST = 40
_MOST_TROUBLED = 20
_MOST_LINES = 12
_TEST_EVERY_S = 5.0
_UNICODE = {
    "ok": "●",
    "silent": "○",
    "unknown": "?",
    "untested": "·",
    "broken": "✗",
    "tee": "├─ ",
    "end": "└─ ",
    "bar": "│  ",
}
_ASCII = {
    "ok": "*",
    "silent": "o",
    "unknown": "?",
    "untested": "-",
    "broken": "x",
    "tee": "|- ",
    "end": "`- ",
    "bar": "|  ",
}
_STYLES = {"ok": "good", "silent": "warn", "unknown": "warn", "untested": "dim", "broken": "bad"}
_TEXTS = {
    "ok": "reachable, a container answers",
    "untested": "up, not tested",
    "unknown": "unknown",
    "silent": "no heartbeat",
    "broken": "broken",
}
_COLUMNS = (
    Column(title="", shrink_to=8),
    Column(title=""),
    Column(title="", drop=1),
    Column(title="", shrink_to=30),
)
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,8})", re.DOTALL)


def run(context: Context) -> int:
    """Draw the mesh as this host sees it."""
    if context.args.watch:
        from agent.ctl.watch import watch  # noqa: PLC0415 - only for that

        tests = _Tests(context)
        return watch(
            context,
            lambda client: _document(client.get, tests.of),
            lambda document: _screen(context, document),
            changes,
        )
    if context.form == "html":
        from agent.ctl.web.snapshot import snapshot  # noqa: PLC0415 - only for that

        context.say(snapshot(context))
        return 0
    with context.progress.waiting_for("answers of every host's containers", context.timeout_s):
        document = _document(lambda path: direct.ask(context, path), _Tests(context).of)
    if context.form in ("svg", "dot"):
        from agent.ctl.web import drawing  # noqa: PLC0415 - only for that

        context.say(getattr(drawing, context.form)(document))
        return 0
    context.show(document, lambda: _screen(context, document))
    return 0


def _document(
    ask: Callable[[str], Document], tested: Callable[[Document], tuple[dict[str, bool], str]]
) -> Document:
    status, routes = ask("/v1/status"), ask("/v1/routes")
    return map_document(status, routes, *tested(status))


class _Tests:
    """Asks a container of each peer, and with --watch not more often than every five seconds."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._again_s = 0.0
        self._found: tuple[dict[str, bool], str] = {}, ""

    def of(self, status: Document) -> tuple[dict[str, bool], str]:
        """Return which peers' containers answer, and why none was asked."""
        from agent.ctl.path.container_path import tested_peers  # noqa: PLC0415 - costs 0.3 s

        if time.monotonic() >= self._again_s:
            self._found = tested_peers(self._context, status, status.get("peers", []))
            self._again_s = time.monotonic() + _TEST_EVERY_S
        return self._found


def _screen(context: Context, document: Document) -> list[str]:
    encoding = (getattr(context.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    wide = context.is_wide
    return lines(
        document,
        wide=wide,
        width=None if wide else context.width,
        palette=context.palette,
        signs=_UNICODE if encoding == "utf8" else _ASCII,
    )


def changes(before: Document, now: Document) -> list[str]:
    """Return what is new in the second of two maps, a line each."""
    earlier = {each["subnet"]: each for each in before["peers"]}
    later = {each["subnet"]: each for each in now["peers"]}
    found = contact_changes(before, now)
    found += [f"{_name(later[each])} joined" for each in later if each not in earlier]
    found += [f"{_name(earlier[each])} left" for each in earlier if each not in later]
    for subnet in later.keys() & earlier.keys():
        was, is_now = earlier[subnet], later[subnet]
        if "unknown" in (was["state"], is_now["state"]):
            continue  # etcd went or came back; the peer may not have changed
        for words, of in (("", _lasting), ("link: ", lambda peer: clean(peer["link"]))):
            if of(was) != of(is_now):
                found.append(f"{_name(is_now)} {words}{of(was)} -> {of(is_now)}")
    return found


def _lasting(peer: Mapping[str, Any]) -> str:
    """Return the state's text without the time that it lasts."""
    return _state_text({**peer, "last_seen_s": None})


def _name(peer: Mapping[str, Any]) -> str:
    return f"{clean(peer['host_name'])} {clean(peer['subnet'])}"


def lines(
    document: Mapping[str, Any],
    *,
    wide: bool,
    width: int | None,
    palette: Palette,
    signs: Mapping[str, str] = _UNICODE,
) -> list[str]:
    """Draw the document: a branch for each link, and on it the peers in natural order.

    With more than 40 peers and without ``wide``, peers without trouble are only named.
    """
    found = [palette.paint("warn", each) for each in banner(document)]
    found += _head(document, width, palette)
    if document.get("untested"):
        text = f"not tested from a container: {sentence(document['untested'])}"
        found += flow(text, width, first=signs["bar"], rest=len(signs["bar"]))
    else:
        found.append(signs["bar"].rstrip())
    brief = not wide and len(document["peers"]) > _MOST
    branches = list(links_of(document).items())
    if not branches:
        found.append(f"{signs['end']}no peers")
    for number, (link, peers) in enumerate(branches):
        last = number == len(branches) - 1
        found.append(signs["end" if last else "tee"] + _link_text(link, peers, document, width))
        trunk = " " * len(signs["bar"]) if last else signs["bar"]
        inner = None if width is None else width - 2 * len(trunk)
        draw = _Leaves(inner, palette, signs)
        found += [f"{trunk}{each}" for each in (draw.brief if brief else draw.rows)(peers)]
    return found


def _head(document: Mapping[str, Any], width: int | None, palette: Palette) -> list[str]:
    host, state = document["host"], clean(document["host"].get("state"))
    first = f"{clean(host.get('name'))}  {clean(host.get('subnet') or 'no subnet')}  "
    first += f"{palette.paint(STATE_STYLES.get(state, 'strong'), state.upper())}  "
    mesh = f"mesh {clean(document.get('mesh'))}"
    mesh += f", {clean(document['backend'])}" if document.get("backend") else ""
    return flow(mesh, width, first=first, rest=2)


def _link_text(
    link: str | None,
    peers: Sequence[Mapping[str, Any]],
    document: Mapping[str, Any],
    width: int | None,
) -> str:
    """Name the link, its kind and the number of hosts behind it."""
    many = f"{len(peers)} host" + ("" if len(peers) == 1 else "s")
    backends = ", ".join(sorted({clean(each["backend"]) for each in peers}))
    if link is None:
        text = f"no link: {many}"
    elif peers[0]["direct"] is False:
        text = f"{clean(link)}, tunnel ({backends}): {many}"
    else:
        address = document["host"].get("node_address")
        text = f"{clean(link)} {clean(address)}, direct ({backends}): {many}"
    return text if width is None else cut(text, width - len(_UNICODE["tee"]))


class _Leaves:
    """Draws the peers of one link.

    Args:
        width: Cells behind the branches, None: no limit.
    """

    def __init__(self, width: int | None, palette: Palette, signs: Mapping[str, str]) -> None:
        self._width = width
        self._palette = palette
        self._signs = signs

    def rows(self, peers: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a line for each peer."""
        return self._joined(self._rows(peers))

    def brief(self, peers: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a line for each peer in trouble, and name the others by state."""
        troubled = [each for each in peers if each["state"] in {"broken", "silent"}]
        shown = troubled[:_MOST_TROUBLED]
        listed = {id(each) for each in shown}
        others = sorted((each for each in peers if id(each) not in listed), key=_severity)
        leaves = self._rows(shown)
        for state, group in groupby(others, key=lambda each: str(each["state"])):
            leaves += [self._named(state, list(group))]
        return self._joined(leaves)

    def _joined(self, leaves: Sequence[Sequence[str]]) -> list[str]:
        found = []
        for number, leaf in enumerate(leaves):
            last = number == len(leaves) - 1
            found.append(self._signs["end" if last else "tee"] + leaf[0])
            trunk = " " * len(self._signs["bar"]) if last else self._signs["bar"]
            found += [f"{trunk}{each}" for each in leaf[1:]]
        return found

    def _rows(self, peers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        cells = [
            [each["host_name"], each["subnet"], each["node_address"], _state_text(each)]
            for each in peers
        ]
        width = None if self._width is None else self._width - 2
        table = render_table(_COLUMNS, cells, width)[1:]
        return [[f"{self._sign(p)} {row}"] for p, row in zip(peers, table, strict=True)]

    def _sign(self, peer: Mapping[str, Any]) -> str:
        return self._palette.paint(_STYLES[peer["state"]], self._signs[peer["state"]])

    def _named(self, state: str, peers: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return lines with the names of peers that have one state."""
        first = f"{self._sign(peers[0])} {len(peers)} {_TEXTS[state]}: "
        found = flow(", ".join(_folded(peers)), self._width, first=first, rest=2)
        if len(found) > _MOST_LINES:
            found = [*found[: _MOST_LINES - 1], "  and more: agentctl map -o wide"]
        return found


def _severity(peer: Mapping[str, Any]) -> int:
    return ("broken", "silent", "unknown", "untested", "ok").index(peer["state"])


def _folded(peers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield names, and one range for names that count on: host3-host50."""
    names = [clean(each["host_name"] or each["node_address"]) for each in peers]
    begin = end = ""
    for name in sorted(names, key=natural):
        if begin and _counts_on(end, name):
            end = name
            continue
        if begin:
            yield begin if begin == end else f"{begin}-{end}"
        begin = end = name
    yield begin if begin == end else f"{begin}-{end}"


def _counts_on(name: str, following: str) -> bool:
    """Return whether two names differ only in a number at the end, which is larger by one."""
    one, two = _NUMBERED.fullmatch(name), _NUMBERED.fullmatch(following)
    return bool(one and two) and one[1] == two[1] and int(one[2]) + 1 == int(two[2])  # type: ignore[index]


def _state_text(peer: Mapping[str, Any]) -> str:
    unreachable = peer.get("kind") == "unreachable"
    state = state_of({**peer, "reachable": not unreachable})
    if unreachable:
        return f"{state}, unreachable"
    if peer["route"] != "installed":
        return f"{state}, " + (
            "no route" if peer["route"] == "none" else f"route {clean(peer['route'])}"
        )
    if peer.get("path") == "ok":
        return f"{state}, a container answers"
    if peer.get("path") == "failed":
        return f"{state}, {clean(peer.get('container') or 'its container')} does not answer"
    if peer["state"] == "untested":
        return f"{state}, not tested" + ("" if peer.get("container") else ": no container known")
    return state
