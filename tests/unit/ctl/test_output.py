"""Tables as they are printed: golden at 80 and 160 columns, and with names that mean harm."""

from __future__ import annotations

import io
import time
import unicodedata
from argparse import Namespace
from typing import Any

import pytest

from agent.ctl.context import Context
from agent.ctl.output import (
    Column,
    Palette,
    clean,
    duration,
    lay_out,
    render_table,
)
from agent.ctl.verbs import diff, leases, reserve, routes, status
from agent.ctl.verbs.diagnose import doctor, events, ping, trace
from agent.settings.text import printable
from tests.unit.ctl.golden import check_golden

pytestmark = pytest.mark.unit

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "a\r\nb\tc",
    "\u202egnp.exe",
    "\x9b31m",
    "e" + "\u0301" * 500,
    "名" * 80,
    "x" * 5000,
    "\ud800",
    "\u2028line",
)


def lease(number: int, **fields: object) -> dict[str, object]:
    return {
        "subnet": f"10.{64 + number}.0.0/16",
        "host_id": f"{number:032x}",
        "host_name": f"host{number}",
        "node_address": f"192.168.100.{number}",
        "backend": "host-gw",
        "age_s": 86400.0 * number,
        "ttl_left_s": 86400.0 - 60 * number,
        "alive": True,
        "silent_s": None,
        "level": 2,
        "docker": "ready",
        "own": False,
        "link": None,
        "device": "eth0",
        "direct": True,
        "mtu": 1500,
        **fields,
    }


LEASES: dict[str, Any] = {
    "version": 1,
    "cached": False,
    "leases": [
        lease(0, own=True, age_s=45.0, link="rack1", device="hm-vxlan", direct=None, mtu=1450),
        lease(1, alive=False, silent_s=185.0, docker=None, level=None),
        lease(2, host_name="a-rather-long-name-of-a-host.rack-17.dc-2.example.net"),
        lease(
            3,
            host_id=None,
            host_name="",
            age_s=None,
            ttl_left_s=None,
            alive=None,
            docker=None,
            level=None,
            device="hm-vxlan",
            direct=False,
            mtu=1350,
        ),
        lease(4, device=None, direct=None, mtu=None, alive=False, docker=None, level=None),
        lease(
            60,
            subnet="100.100.100.128/30",
            node_address="192.168.200.100",
            docker="pending",
            level=1,
        ),
    ],
    "set_aside": [{"key": "/hostmesh/subnets/x", "reason": "is not a subnet"}],
}
STATUS: dict[str, Any] = {
    "version": 1,
    "source": "agent",
    "agent_version": "0.1.0",
    "up_s": 259_500.0,
    "state": "degraded",
    "host": {
        "id": "0123456789abcdef0123456789abcdef",
        "name": "host0",
        "node_address": "192.168.100.10",
        "uplink": "eth0",
    },
    "subnet": "10.64.0.0/16",
    "docker": {"state": "pending", "version": "26.1.5", "bridge": "172.17.0.0/16"},
    "etcd": {
        "connected": False,
        "problem": "no endpoint answered",
        "last_contact_s_ago": 75.0,
        "cluster_id": "cdf818194e3a8c32",
        "revision": 1234,
        "cached": True,
    },
    "mesh": {
        "cidr": "10.64.0.0/10",
        "subnet_len": 16,
        "subnets": 64,
        "backend": "host-gw",
        "device": "eth0",
        "device_mtu": 1500,
        "container_mtu": 1500,
        "level": 2,
    },
    "routes": {"desired": 3, "installed": 2, "drift": 1},
    "repairs": {
        "count": 3,
        "last": "10.66.0.0/16 via 192.0.2.2 dev eth0 proto 140 was missing and was put right",
        "last_s_ago": 312.0,
    },
    "peers": [
        {**lease(1), "alive": True},
        {**lease(2), "alive": False, "reachable": False, "last_seen_s": 29.0},
        {**lease(3), "alive": None},
    ],
    "conditions": [
        {
            "name": "docker-pending",
            "subject": "dockerd",
            "severity": "error",
            "cause": "3 containers run, and giving docker0 its new address takes a restart of"
            " dockerd that would stop them all",
            "hint": "agentctl docker restart --now, or set docker.restart",
            "since_s_ago": 4000.0,
        },
        {
            "name": "etcd-away",
            "subject": "",
            "severity": "warning",
            "cause": "no endpoint answered",
            "hint": "",
            "since_s_ago": 75.0,
        },
    ],
}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("wide", [False, True])
def test_golden_leases(width: int, wide: bool) -> None:
    lines = lay_out(leases.table(LEASES, wide=wide), None if wide else width)
    check_golden(
        f"leases{'-wide' if wide else ''}-{width}.txt", lines, width=None if wide else width
    )


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("wide", [False, True])
def test_golden_status(width: int, wide: bool) -> None:
    lines = status.lines(STATUS, wide=wide, width=width, palette=Palette(colours=False))
    check_golden(f"status{'-wide' if wide else ''}-{width}.txt", lines, width=width)


def test_the_status_of_a_host_in_order_is_short() -> None:
    document = {
        **STATUS,
        "state": "ready",
        "docker": {**STATUS["docker"], "state": "ready", "bridge": "10.64.0.0/17"},
        "etcd": {"connected": True, "last_contact_s_ago": 2.0},
        "routes": {"desired": 3, "installed": 3, "drift": 0},
        "repairs": {"count": 0},
        "peers": [lease(1)],
        "conditions": [],
    }
    assert status.lines(document, wide=False, width=80, palette=Palette(colours=False)) == [
        "host0  10.64.0.0/16  READY  hostmesh 0.1.0, up 3 d",
        "mesh    10.64.0.0/10, 2 of 64 subnets used, host-gw",
        "etcd    ok (2 s ago)        docker  ok, 26.1.5          routes  3 of 3",
        "PEERS   host1  10.65.0.0/16  up",
        "no problems",
    ]


def route(destination: str, **more: object) -> dict[str, Any]:
    return {
        "destination": destination,
        "kind": "unicast",
        "gateway": "192.168.100.2",
        "link": "eth0",
        "state": "installed",
        "host_name": "host2",
        "reachable": True,
        "protocol": "hostmesh",
        "text": f"{destination} via 192.168.100.2 dev eth0 proto 140",
        **more,
    }


ROUTES: dict[str, Any] = {
    "version": 1,
    "source": "agent",
    "complete": True,
    "routes": [
        route("10.64.0.0/10", kind="unreachable", gateway=None, link=None, host_name=None),
        route("10.65.0.0/16"),
        route("10.66.0.0/16", state="missing"),
        route("10.67.0.0/16", state="conflict", protocol="bird (12)"),
        route("10.68.0.0/16", kind="unreachable", gateway=None, link=None, reachable=False),
        route("10.69.0.0/16", state="extra", host_name=None, reachable=None),
    ],
}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("wide", [False, True])
def test_golden_routes(width: int, wide: bool) -> None:
    lines = lay_out(routes.table(ROUTES, wide=wide), width)
    check_golden(f"routes{'-wide' if wide else ''}-{width}.txt", lines, width=width)


def test_a_status_fits_one_screen_with_5000_peers() -> None:
    peers = [{**lease(1), "alive": number % 2 == 0} for number in range(5000)]
    lines = status.lines(
        {**STATUS, "peers": peers}, wide=False, width=80, palette=Palette(colours=False)
    )
    assert len(lines) <= 40
    more = "and 4990 more: agentctl status -o wide (5000 peers: 2500 up, 2500"
    assert f"        {more}" in lines


@pytest.mark.parametrize("name", HOSTILE)
def test_promise_8_hostile_names_reach_no_terminal(name: str) -> None:
    hostile = lease(1, host_name=name, node_address=name, backend=name, docker=name, host_id=name)
    document = {**LEASES, "leases": [hostile], "set_aside": [{"key": name, "reason": name}]}
    lines = lay_out(leases.table(document, wide=True), None)
    lines += lay_out(leases.table(document, wide=False), 80)
    condition = dict.fromkeys(("name", "subject", "severity", "cause", "hint"), name)
    everywhere = {
        **STATUS,
        "state": name,
        "host": dict.fromkeys(("id", "name", "node_address", "uplink"), name),
        "docker": dict.fromkeys(("state", "version", "bridge"), name),
        "etcd": {**STATUS["etcd"], "problem": name, "revision": name},
        "mesh": dict.fromkeys(("cidr", "subnet_len", "backend"), name),
        "routes": dict.fromkeys(("installed", "desired", "drift"), name),
        "peers": [{**hostile, "alive": False}],
        "conditions": [condition],
    }
    lines += status.lines(everywhere, wide=True, width=80, palette=Palette(colours=False))
    everything = dict.fromkeys(ROUTES["routes"][0], name)
    lines += lay_out(routes.table({"routes": [everything]}, wide=True), 80)
    conflict = {"routes": [{**everything, "state": "conflict"}]}
    lines += lay_out(routes.table(conflict, wide=False), 80)
    lines += status.changes(STATUS, everywhere) + leases.changes(LEASES, document)
    operation = dict.fromkeys(("action", "destination", "route", "reason"), name)
    lines += diff.lines(
        {"state": name, "operations": [operation], "conflicts": [name], "firewall": [{name: name}]}
    )
    lines += events.lines(dict.fromkeys(("at", "kind", "text"), name), 80)
    hostile_row = {**RESERVED[0], "host_name": name, "host_id": name}
    lines += lay_out(reserve.table([hostile_row]), 80)
    checked = {"check": "etcd", "state": "ok", "found": name, "hint": name}
    lines += doctor.lines(
        {"checks": [checked], "would": [name]}, context(io.StringIO(), {"COLUMNS": "80"})
    )
    for line in lines:
        assert line.isprintable(), ascii(line)
        assert not any(unicodedata.combining(char) for char in line)
        line.encode()


def test_wide_characters_take_two_cells() -> None:
    columns = (Column(title="A", shrink_to=5), Column(title="B"))
    table = render_table(columns, [["名名名名", "x"], ["ab", "y"]], 9)
    assert table == ["A       B", "名名…   x", "ab      y"]


def test_columns_shrink_before_they_go() -> None:
    columns = (
        Column(title="KEPT"),
        Column(title="LONG", shrink_to=5),
        Column(title="LESS", drop=1),
    )
    rows = [["aaaa", "bbbbbbbbbb", "cccc"]]
    assert render_table(columns, rows, None)[1] == "aaaa  bbbbbbbbbb  cccc"
    assert render_table(columns, rows, 20)[1] == "aaaa  bbbbbbb…  cccc"
    assert render_table(columns, rows, 16)[1] == "aaaa  bbbbbbbbbb"
    assert render_table(columns, rows, 5)[1] == "aaaa  bbbb…"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"), (59.9, "59s"), (99, "99s"), (100, "1m"), (185, "3m"), (725, "12m"),
        (3600, "1h"), (11520, "3h12m"), (86399, "23h"), (90000, "1d1h"), (2592000, "30d"),
        (-5, "0s"), (None, "-"), (True, "-"), ("x", "-"), (float("nan"), "-"),
        (float("inf"), "11574074d"),
    ],
)  # fmt: skip
def test_durations(seconds: object, expected: str) -> None:
    assert duration(seconds) == expected


def test_cells_are_bounded_and_never_empty() -> None:
    assert clean(None) == clean("") == "-"
    assert len(clean("x" * 10_000)) == 200
    assert printable("a\tb", keep="\t") == "a\tb"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def context(stdout: io.StringIO, environ: dict[str, str]) -> Context:
    return Context(Namespace(output="text"), environ, stdout, io.StringIO())


def test_colour_is_for_terminals_and_no_color_is_honoured() -> None:
    painted = "\x1b[32mx\x1b[0m"
    assert context(_Terminal(), {}).palette.paint("good", "x") == painted
    assert context(_Terminal(), {"NO_COLOR": ""}).palette.paint("good", "x") == painted
    assert context(_Terminal(), {"NO_COLOR": "1"}).palette.paint("good", "x") == "x"
    assert context(_Terminal(), {"TERM": "dumb"}).palette.paint("good", "x") == "x"
    assert context(io.StringIO(), {}).palette.paint("good", "x") == "x"


def test_nothing_is_cut_on_its_way_into_a_pipe() -> None:
    assert context(io.StringIO(), {}).width is None
    assert context(io.StringIO(), {"COLUMNS": "100"}).width == 100
    assert context(_Terminal(), {"COLUMNS": "1"}).width == 40
    for no_number in ("\xb2", "9" * 5000, "-1", "80 ", ""):
        assert context(io.StringIO(), {"COLUMNS": no_number}).width is None


LONG = (
    "3 containers run, and giving docker0 its new address takes a restart of dockerd that would"
    " stop them all: agentctl docker restart --now, or set docker.restart"
)
STEPS = [
    {"host": host, "step": step, "result": result, "text": text}
    for host, step, result, text in (
        ("here", "lease", "ok", "held for 3h12m, 23h left; heartbeat seen 3 s ago"),
        ("here", "rules", "failed", f"a rule before Hostmesh's drops it: {LONG}"),
        ("next", "neighbour", "unknown", "x" * 200),
        ("next", "agent", "ok", "名" * 60),
    )
]
PING_STEPS = [{key: each[key] for key in ("step", "result", "text")} for each in STEPS]
END = {"address": "10.64.0.2", "container": "web-" * 12, "network": "bridge", "link": "docker0"}
FRAME = {
    "link": "docker0", "at_s": 1.0, "ttl": 64, "source": "10.64.0.2", "destination": "10.65.0.2",
    "source_mac": "02:42:0a:40:00:02", "destination_mac": "02:42:24:38:a9:66",
    "what": "echo request",
}  # fmt: skip
CAPTURE = {
    "links": [f"br-{number}23456789abc" for number in range(6)],
    "sent": 1, "answered": 0, "problem": LONG, "frames": [FRAME],
}  # fmt: skip
TRACE: dict[str, Any] = {"source": END, "destination": END, "steps": STEPS, "capture": CAPTURE}
EVENTS: list[dict[str, Any]] = [
    {"id": 1, "at": 1_800_000_000.0, "kind": "agent-started", "subject": "", "text": "started"},
    {"id": 2, "at": 1_800_000_000.5, "kind": "condition-raised", "subject": "x", "text": LONG},
    {"id": 3, "at": None, "kind": "peer-joined", "subject": "x", "text": "名" * 60},
]
DIFF: dict[str, Any] = {
    "operations": [{"action": "add", "route": LONG, "reason": "missing"}],
    "held": [{"route": "10.66.0.0/16 via 192.0.2.2"}],
    "firewall": [LONG],
    "state": "drift",
}
DOCTOR: dict[str, Any] = {
    "can_join": False,
    "checks": [
        {"check": "kernel", "state": "ok", "found": "6.1.0", "hint": ""},
        {"check": "uplink addresses", "state": "fail", "found": LONG, "hint": LONG},
    ],
    "would": [LONG, "restart Docker"],
}
RESERVED = [
    {
        "subnet": "100.100.100.128/30",
        "host_id": "0" * 32,
        "host_name": "a-rather-long-name-of-a-host.rack-17.dc-2.example.net",
        "held": True,
    },
    {"subnet": "10.66.0.0/16", "host_id": "1" * 32, "host_name": "", "held": False},
]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("verb", ["ping", "trace", "events", "diff", "doctor", "reserve"])
def test_golden_answers(verb: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences are wrapped to the width, and every line fits."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    narrow = context(io.StringIO(), {"COLUMNS": str(width)})
    found = {
        "ping": lambda: ping.lines({"peer": lease(1), "steps": PING_STEPS}, width=width),
        "trace": lambda: trace.lines(TRACE, width=width),
        "events": lambda: [line for each in EVENTS for line in events.lines(each, width)],
        "diff": lambda: diff.lines(DIFF, width),
        "doctor": lambda: doctor.lines(DOCTOR, narrow),
        "reserve": lambda: lay_out(reserve.table(RESERVED), width),
    }[verb]()
    check_golden(f"{verb}-{width}.txt", found, width=width)


def test_diff_in_words() -> None:
    operation = {"action": "add", "destination": "10.65.0.0/16", "route": "", "reason": "missing"}
    document = {"state": "drift", "operations": [operation], "conflicts": [], "firewall": ["x"]}
    assert diff.lines(document) == ["add 10.65.0.0/16: missing", "firewall: x"]
    assert diff.lines({"state": "equal"}) == ["nothing differs"]
