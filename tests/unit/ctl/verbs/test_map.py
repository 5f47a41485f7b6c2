"""``agentctl map``: branches by link, states by the data path, natural order, 300 hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.ctl.path.mesh_map import map_document
from agent.ctl.verbs.diagnose import map as map_verb
from tests.unit.ctl.golden import check_golden
from tests.unit.ctl.meshes import DOWN, PLAIN, SILENT, STALE, UNKNOWN, host, row, status_of
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.unit


def map_of(
    peers: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    answered: Mapping[str, bool] | None = None,
    **more: object,
) -> dict[str, Any]:
    document = map_document(status_of(*peers, **more), {"routes": rows}, answered or {}, "")
    check("map", document)
    return document


SMALL = [host(10, container="10.64.10.2"), host(2), host(3, **DOWN), host(4, **SILENT)]
SMALL_ROWS = [
    row(SMALL[0]),
    row(SMALL[1], link="eth0", gateway="192.168.0.3"),
    row(SMALL[2], kind="unreachable", link=None),
    row(SMALL[3]),
]


@pytest.mark.parametrize("width", [80, 160])
def test_golden_map_of_tunnel_direct_down_and_silent_peers(width: int) -> None:
    document = map_of(SMALL, SMALL_ROWS, {"10.64.10.0/24": True})
    lines = map_verb.lines(document, wide=False, width=width, palette=PLAIN)
    check_golden(f"map-tunnel-{width}.txt", lines, width=width)


def test_promise_9_while_etcd_is_away_only_an_answer_is_a_fact() -> None:
    peers = [{**each, **UNKNOWN} for each in SMALL[:2]]
    peers.append({**host(5, container="10.64.5.2"), **UNKNOWN})
    rows = [*SMALL_ROWS[:2], row(peers[2])]
    document = map_of(peers, rows, {"10.64.10.0/24": True, "10.64.5.0/24": False}, **STALE)
    assert {each["host_name"]: each["state"] for each in document["peers"]} == {
        "host2": "unknown", "host5": "unknown", "host10": "ok",
    }  # fmt: skip
    lines = map_verb.lines(document, wide=False, width=120, palette=PLAIN)
    assert lines[0].startswith("! etcd unreachable for 53 s")
    assert lines[-1].endswith("unknown (was up 53 s ago), a container answers")


def test_a_map_of_300_hosts_draws_trouble_and_folds_the_rest() -> None:
    peers = [host(number, container=f"10.64.{number % 250}.2") for number in range(2, 301)]
    peers[150] |= DOWN
    peers[200]["host_name"] = "db7"
    rows = [row(each) for each in peers]
    rows[150] |= {"kind": "unreachable", "link": None}
    answered = {each["subnet"]: True for each in peers[:290]}
    lines = map_verb.lines(map_of(peers, rows, answered), wide=False, width=80, palette=PLAIN)
    assert lines[2:] == [
        "├─ hm-vxlan, tunnel (vxlan): 298 hosts",
        "│  ├─ · 9 up, not tested: host292-host300",
        "│  └─ ● 289 reachable, a container answers: db7, host2-host151, host153-host201,",
        "│       host203-host291",
        "└─ no link: 1 host",
        "   └─ ✗ host152  10.64.152.0/24  192.168.0.153  DOWN 29 s, unreachable",
    ]


def test_a_map_without_peers_and_of_a_host_that_left() -> None:
    lines = map_verb.lines(map_of([], []), wide=False, width=80, palette=PLAIN)
    assert lines[-1] == "└─ no peers"
    left = map_of([], [], state="left", subnet=None, mesh=None)
    assert map_verb.lines(left, wide=False, width=80, palette=PLAIN)[0] == (
        "host1  no subnet  LEFT  mesh -"
    )


def test_what_map_watch_says_of_a_change() -> None:
    before = map_of(SMALL[:2], SMALL_ROWS[:2])
    now = map_of(
        [{**SMALL[1], **DOWN}, host(7)],
        [row(SMALL[1], kind="unreachable", link=None), row(host(7))],
    )
    assert map_verb.changes(before, now) == [
        "host7 10.64.7.0/24 joined",
        "host10 10.64.10.0/24 left",
        "host2 10.64.2.0/24 up, not tested: no container known -> DOWN, unreachable",
        "host2 10.64.2.0/24 link: eth0 -> -",
    ]
    away = map_of([{**each, **UNKNOWN} for each in SMALL[:2]], SMALL_ROWS[:2], **STALE)
    assert map_verb.changes(before, away) == [
        "etcd unreachable: last known state, heartbeats unknown"
    ]
