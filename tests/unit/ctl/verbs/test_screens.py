"""status, hosts and map of small, large, fresh, stale and hostile meshes, as an operator sees them.

Hosts come in natural order, trouble is never cut off, and colours are for terminals only.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.output import lay_out, natural
from agent.ctl.path.mesh_map import map_document
from agent.ctl.stale import count_states
from agent.ctl.verbs import hosts, leases, status
from agent.ctl.verbs.diagnose import map as map_verb
from tests.unit.ctl.asked import run
from tests.unit.ctl.golden import check_golden
from tests.unit.ctl.meshes import (
    COLOURED,
    DOWN,
    PLAIN,
    SILENT,
    STALE,
    UNKNOWN,
    host,
    leases_of,
    row,
    status_of,
)
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]
MIXED = (
    host(10, agent_version="0.1.1", outdated=True, conditions=["docker-restart-pending"]),
    host(1),
    host(3, **DOWN),
    host(2, conditions=["route-fight", "rp-filter-strict", "docker-swarm"], containers=0),
    host(4, **SILENT),
    host(
        5,
        host_id=None,
        host_name="",
        backend="vxlan",
        **{**SILENT, **dict.fromkeys(("alive", "heartbeat", "silent_s", "last_seen_s"))},
    ),
)
WAITING = {
    key: value
    for key, value in host(6, conditions=["no-free-subnet"]).items()
    if key in ("host_id", "host_name", "node_address", "agent_version", "outdated", "conditions")
} | {"containers": 0}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("wide", [False, True])
def test_golden_hosts(width: int, wide: bool) -> None:
    document = leases_of(*MIXED, without_lease=[WAITING])
    lines = lay_out(hosts.table(document, wide=wide), None if wide else width)
    name = f"hosts{'-wide' if wide else ''}-{width}.txt"
    check_golden(name, lines, width=None if wide else width)


def test_golden_hosts_while_etcd_is_away() -> None:
    document = leases_of(*(host(number, **UNKNOWN) for number in (1, 2, 10)), **STALE)
    lines = lay_out(hosts.table(document, wide=False), 80)
    check_golden("hosts-stale-80.txt", [_without_time(each) for each in lines], width=80)


def _without_time(line: str) -> str:
    """Return a line without the clock's time in it, which depends on the zone."""
    head, found, _ = line.partition("as of ")
    return f"{head}{found}TIME" if found else line


def test_hosts_of_a_fresh_mesh_and_of_one_host() -> None:
    assert lay_out(hosts.table(leases_of(), wide=False), 80) == ["no host is in the mesh"]
    lines = lay_out(hosts.table(leases_of(host(1)), wide=False), 100)
    assert " ".join(lines[1].split()) == "* host1 10.64.1.0/24 up 2 s ago 0.2.0 vxlan 3 -"
    assert lines[2:] == ["1 host: 1 up"]


def test_hosts_of_an_agent_before_0_2_show_what_there_is() -> None:
    added = ("agent_version", "outdated", "containers", "conditions", "reachable")
    old = {key: value for key, value in host(1).items() if key not in added}
    document = {key: leases_of(old)[key] for key in ("version", "cached", "leases", "set_aside")}
    lines = lay_out(hosts.table({**document, "previous": []}, wide=True), None)
    assert lines[1].split()[:5] == [*["*", "host1", "10.64.1.0/24", "up", "2"]]


def test_300_hosts_are_in_natural_order_with_trouble_and_old_versions_named() -> None:
    found = [host(number) for number in range(1, 301)]
    found[6] |= DOWN
    for number in range(100, 112):
        found[number] |= {"agent_version": "0.1.1", "outdated": True}
    unordered = leases_of(*sorted(found, key=lambda e: str(e["host_name"])))
    lines = lay_out(hosts.table(unordered, wide=False), 80)
    names = [each.split()[1 if each.startswith("*") else 0] for each in lines[1:301]]
    assert names == [f"host{number}" for number in range(1, 301)]
    assert lines[301] == "300 hosts: 299 up, 1 down"
    assert lines[302].startswith("older than hostmesh 0.2.0: host101, host102, host103,")
    assert " ".join(lines[302:]).split(" and ")[1].split() == ["2", "more;", "upgrade", "them"]
    assert all(len(each) <= 80 for each in lines)


def test_what_hosts_watch_says_of_a_change() -> None:
    before, after = leases_of(host(1), host(2)), leases_of(
        host(1, agent_version="0.3.0", conditions=["route-fight"]), host(2, **DOWN)
    )  # fmt: skip
    assert sorted(leases.changes(before, after)) == [
        "10.64.1.0/24 host1 conditions: - -> route-fight",
        "10.64.1.0/24 host1 version: 0.2.0 -> 0.3.0",
        "10.64.2.0/24 host2 Docker: ready -> -",
        "10.64.2.0/24 host2 state: up -> no heartbeat",
    ]
    away = leases_of(host(1, **UNKNOWN), host(2, **UNKNOWN), **STALE)
    assert leases.changes(before, away) == [
        "etcd unreachable: last known state, heartbeats unknown"
    ]


# --- status ----------------------------------------------------------------------------------


def condition(name: str, severity: str, cause: str, hint: str) -> dict[str, Any]:
    return {"name": name, "subject": "", "severity": severity, "cause": cause, "hint": hint,
            "since_s_ago": 29.0}  # fmt: skip


def checked(number: int, rtt_ms: float | None, failed: str = "") -> dict[str, Any]:
    """Return a peer of GET /v1/check."""
    tests = [{"test": failed or "path", "result": "failed" if failed else "ok"}]
    return {"subnet": host(number)["subnet"], "rtt_ms": rtt_ms, "tests": tests}


def test_golden_status_of_three_hosts_with_conditions_of_each_severity() -> None:
    found = (
        condition("docker-config-refused", "error", "dockerd refuses daemon.json: x", "correct x"),
        condition("peer-dead", "warning", "host2 is down", "agentctl remove host2"),
        condition("docker-absent", "info", "no Docker Engine answers", "install it"),
    )
    peers = (
        host(10, conditions=["docker-config-refused", "docker-swarm"]),
        host(3, conditions=["docker-config-refused"]),
        host(2, **DOWN),
    )
    document = status_of(*peers, state="degraded", conditions=list(found))
    check_of = {"checked_s_ago": 180.0, "peers": [checked(10, 0.31), checked(2, None, "path")]}
    check_golden(
        "status-three-80.txt",
        status.lines(document, wide=False, width=80, palette=PLAIN, check=check_of),
        width=80,
    )


@pytest.mark.parametrize(
    ("more", "head", "rest"),
    [
        (
            {"state": "waiting", "subnet": None, "mesh": None},
            "host1  no subnet  WAITING  hostmesh 0.2.0, up 3 d",
            "mesh    no config: agentctl config init",
        ),
        (
            {"state": "left", "subnet": None},
            "host1  no subnet  LEFT  hostmesh 0.2.0, up 3 d",
            "mesh    10.64.0.0/10, 0 of 16384 subnets used, vxlan",
        ),
    ],
)
def test_status_of_a_host_with_nothing(more: dict[str, object], head: str, rest: str) -> None:
    lines = status.lines(status_of(**more), wide=False, width=80, palette=PLAIN)
    assert (lines[0], lines[1]) == (head, rest)
    assert lines[-2:] == ["PEERS   none", "no problems"]


def test_status_of_300_hosts_shows_trouble_first_and_fits_a_screen() -> None:
    peers = [host(number) for number in range(300, 1, -1)]
    peers[0] |= {"conditions": ["docker-restart-pending"]}
    peers[100] |= DOWN
    lines = status.lines(status_of(*peers), wide=False, width=80, palette=PLAIN)
    assert [each.split()[-5 if each.startswith("P") else 0] for each in lines[3:6]] == [
        "host200", "host300", "host2",
    ]  # fmt: skip
    assert len(lines) <= 24
    assert "and 289 more: agentctl status -o wide (299 peers: 298 up, 1 down)" in lines[-2]


# --- all of them -----------------------------------------------------------------------------

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "a\r\nb\tc",
    "\u202egnp.exe",
    "e" + "\u0301" * 300,
    "名" * 80,
    "x" * 5000,
    "9" * 5000,
    "\ud800",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_promise_8_long_and_hostile_names_harm_no_screen(name: str) -> None:
    bad = {**host(2), **dict.fromkeys(("host_name", "node_address", "agent_version"), name)}
    bad |= {"subnet": name, "conditions": [name] * 8, "outdated": True, "container": name}
    bad["backend"] = name
    document = {**leases_of(host(1)), "leases": [bad, host(1)], "newest_version": name}
    drawn = {**status_of(host(2)), "peers": [bad]}
    found = map_document(drawn, {"routes": [{**row(bad), "link": name, "state": name}]})
    many = map_document(
        {**drawn, "peers": [{**bad, "subnet": f"{name}{number}"} for number in range(60)]},
        {"routes": [{**row(bad), "destination": f"{name}{number}"} for number in range(60)]},
    )
    for wide in (False, True):
        lines = lay_out(hosts.table(document, wide=wide), None if wide else 80)
        lines += status.lines(drawn, wide=wide, width=80, palette=PLAIN)
        for each in (found, many):
            lines += map_verb.lines(each, wide=wide, width=None if wide else 80, palette=PLAIN)
        lines += map_verb.changes(map_document(status_of(), {}), found)
        lines += leases.changes(leases_of(host(1)), document)
        for line in lines:
            assert line.isprintable(), ascii(line)
            assert not any(unicodedata.combining(char) for char in line)
            line.encode()


def test_colours_mark_trouble_only() -> None:
    lines = lay_out(hosts.table(leases_of(*MIXED), wide=False), 160, paint=COLOURED.paint)
    starts = {"host1 ": "* ", "host3 ": "\x1b[31m", "host4 ": "\x1b[33m", "host10 ": "\x1b[33m"}
    for name, start in starts.items():
        assert next(each for each in lines if name in each).startswith(start)


def test_natural_order() -> None:
    names = ["host10", "host2", "host1", "web-10-a", "web-9-b", "2", "", "host02", "9" * 5000]
    assert sorted(names, key=natural) == [
        "", "2", "9" * 5000, "host1", "host2", "host02", "host10", "web-9-b", "web-10-a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "0 hosts"),
        ([host(1)], "1 host: 1 up"),
        ([host(1, **DOWN)], "1 host: 1 down"),
        (
            [*MIXED, WAITING],
            "7 hosts: 3 up, 1 down, 1 without heartbeat, 1 flannel, 1 waiting for a subnet",
        ),
        ([host(1, **UNKNOWN)], "1 host: 1 unknown"),
    ],
)
def test_hosts_are_counted_by_state(found: list[dict[str, Any]], text: str) -> None:
    assert count_states(found, "host") == text


def test_hosts_and_map_ask_the_agent(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = {
        "GET /v1/leases": leases_of(host(1)),
        "GET /v1/status": status_of(host(2)),
        "GET /v1/routes": {"routes": [row(host(2))]},
    }
    with serving(socket_path, documents):
        assert run(socket_path, "hosts") == 0
        assert "host1" in capsys.readouterr().out
        assert run(socket_path, "hosts", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == documents["GET /v1/leases"]
        assert run(socket_path, "map", "-o", "json") == 0
        check("map", json.loads(capsys.readouterr().out))
        for verb in ("hosts", "map"):
            assert run(socket_path, verb, "--watch", "--timeout", "100ms") == 0
            assert io.StringIO(capsys.readouterr().out).read() == ""  # nothing changed


def test_the_wide_status_names_etcds_endpoints_below_etcd() -> None:
    lines = status.lines(status_of(host(2)), wide=True, width=120, palette=PLAIN)
    at = lines.index("etcd    ok (2 s ago)")
    assert lines[at + 1] == "        https://192.168.0.9:2379, from settings"


def test_the_status_shows_the_last_check_of_each_peer_unless_it_is_old(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    documents: dict[str, Any] = {"GET /v1/status": status_of(host(2), host(3))}
    peers = [checked(2, 0.024), checked(3, 1.5, "mtu")]
    for ago_s, shown in ((60.0, True), (3600.0, False), (None, False)):
        documents["GET /v1/check"] = {"checked_s_ago": ago_s, "peers": peers}
        with serving(socket_path, documents):
            assert run(socket_path, "status") == 0
        text = capsys.readouterr().out
        assert ("up, 0.02 ms" in text) is shown
        assert ("up, 1.50 ms, mtu failed 60 s ago: agentctl check" in text) is shown
    del documents["GET /v1/check"]  # an agent before 0.2
    with serving(socket_path, documents):
        assert run(socket_path, "status") == 0
