"""ping, map and bugreport: what they print, and what they never print."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import time
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.main import main
from agent.ctl.output import Palette
from agent.ctl.path.mesh_map import map_document
from agent.ctl.redaction import redact_text
from agent.ctl.verbs.diagnose import bugreport, map, ping  # noqa: A004 - the verb's name
from tests.unit.ctl.golden import check_golden
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]
PLANTED = "hunter2-never-shown"
PLAIN = Palette(colours=False)


def peer(number: int, **more: object) -> dict[str, Any]:
    return {
        "host_name": f"host{number}",
        "host_id": f"{number:032x}",
        "subnet": f"10.{64 + number}.0.0/16",
        "node_address": f"192.168.100.{number}",
        "backend": "host-gw",
        "alive": True,
        **more,
    }


def status(peers: list[dict[str, Any]]) -> dict[str, Any]:
    host = {"id": "0" * 32, "name": "host0", "node_address": "192.168.100.10", "uplink": "eth0"}
    return {
        "state": "ready",
        "host": host,
        "subnet": "10.64.0.0/16",
        "mesh": {"cidr": "10.64.0.0/10"},
        "peers": peers,
    }


def routes(peers: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    return {
        "routes": [
            {
                "destination": each["subnet"],
                "kind": "unicast",
                "state": "installed",
                "link": "eth0",
                "gateway": each["node_address"],
                **more,
            }
            for each in peers
        ]
    }


def test_golden_map() -> None:
    peers = [peer(1), peer(2, alive=False), peer(3, alive=None), peer(4)]
    peers += [peer(5, container="10.69.0.2"), peer(6, container="10.70.0.2")]
    peers += [peer(7, container="10.71.0.2"), peer(8, heartbeat="unknown", last_seen_s=53.0)]
    answered = {"10.69.0.0/16": True, "10.70.0.0/16": False}
    document = map_document(status(peers), routes(peers[:3] + peers[4:]), answered, "")
    check("map", document)
    for width in (80, 160):
        lines = map.lines(document, wide=False, width=width, palette=PLAIN)
        check_golden(f"map-{width}.txt", lines, width=width)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"alive": False, "last_seen_s": 29.0}, "DOWN 29 s, unreachable"),
        ({"alive": False}, "DOWN, unreachable"),
        ({"alive": True}, "up, unreachable"),
    ],
)
def test_a_map_does_not_call_an_unreachable_route_installed(
    more: dict[str, object], words: str
) -> None:
    dead = peer(1, **more)
    document = map_document(status([dead]), routes([dead], kind="unreachable"))
    check("map", document)
    (line,) = [
        each
        for each in map.lines(document, wide=False, width=120, palette=PLAIN)
        if "host1" in each
    ]
    assert line.endswith(words)
    assert "installed" not in line


def test_a_map_tells_a_tunnel_from_the_direct_way() -> None:
    near, far, _lost = peers = [peer(1), peer(2), peer(3)]
    rows = [*routes([near])["routes"], *routes([far], link="hm-wg", gateway=None)["routes"]]
    document = map_document(status(peers), {"routes": rows})
    check("map", document)
    assert [each["direct"] for each in document["peers"]] == [True, False, None]
    drawn = map.lines(document, wide=False, width=120, palette=PLAIN)
    starts: tuple[str, ...] = (
        "├─ eth0 192.168.100.10, direct (host-gw): 1 host",
        "│  └─ · host1  10.65.0.0/16",
    )
    starts += ("├─ hm-wg, tunnel (host-gw): 1 host", "│  └─ · host2  10.66.0.0/16")
    starts += ("└─ no link: 1 host", "   └─ ✗ host3  10.67.0.0/16")
    for line, start in zip(drawn[2:], starts, strict=True):
        assert line.startswith(start)


def test_a_map_of_5000_peers_fits_a_screen_and_shows_the_broken_first() -> None:
    peers = [peer(number % 200, host_name=f"h{number}") for number in range(4999)]
    broken = peer(201, subnet="10.9.0.0/16")
    document = map_document(status([*peers, broken]), routes(peers))
    lines = map.lines(document, wide=False, width=80, palette=PLAIN)
    assert len(lines) < 50
    assert lines[2:4] == [
        "├─ eth0 192.168.100.10, direct (host-gw): 4999 hosts",
        "│  └─ · 4999 up, not tested: h0-h4998",
    ]
    assert "host201" in lines[-1]


def test_a_map_names_so_many_hosts_only_and_says_so() -> None:
    peers = [peer(number % 200, host_name=f"h{number * 7}") for number in range(4999)]
    document = map_document(status(peers), routes(peers))
    lines = map.lines(document, wide=False, width=80, palette=PLAIN)
    assert len(lines) < 20
    assert lines[-1].endswith("and more: agentctl map -o wide")
    assert len(map.lines(document, wide=True, width=None, palette=PLAIN)) > 4999


def test_promise_8_hostile_names_in_map_and_ping() -> None:
    name = "x\x1b[2J\u202e\u0301\x07"
    hostile = {**dict.fromkeys(peer(1), name), "subnet": name, "alive": False}
    document = map_document(status([hostile]), routes([hostile], state=name))
    lines = map.lines(document, wide=True, width=None, palette=PLAIN)
    step = {"step": name, "result": "ok", "text": name}
    lines += ping.lines({"peer": hostile, "steps": [step]})
    for line in lines:
        assert line.isprintable(), ascii(line)
        assert not any(unicodedata.combining(char) for char in line)


def test_a_wrong_name_gets_the_nearest(
    tmp_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.sock"
    with serving(path, {"GET /v1/leases": {"leases": [peer(1), peer(2)]}}):
        assert main(["ping", "hots1", "--socket", str(path)]) == 2
        assert main(["ping", "zzz", "--socket", str(path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[:2] == ["agentctl: no host 'hots1' has a lease", "hint: did you mean host1?"]
    assert err[3] == "hint: agentctl leases names them"


@pytest.mark.parametrize(
    "text",
    [
        f'password = "{PLANTED}"',
        f"etcd_password: {PLANTED}",
        f"--registry-token {PLANTED} --debug",
        f"PASSWORD={PLANTED} other=1",
        f"secrets: {PLANTED}",
        f"api_key_value='{PLANTED}'",
        f"https://root:{PLANTED}@etcd:2379/x",
        f"Authorization: Bearer {PLANTED}",
        f"Authorization: Basic {PLANTED}",
        json.dumps({"proxies": {"http-proxy": f"http://u:{PLANTED}@proxy"}, "n": [1]}),
        json.dumps({"a": [{"auth-token": PLANTED}, {"Password": {"deep": PLANTED}}]}),
        f"-----BEGIN EC PRIVATE KEY-----\n{PLANTED}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}",
        f'password = """\n{PLANTED}\n"""',
        f'password = "a\\"b {PLANTED}"',
        json.dumps({"line": json.dumps({"password": f"one {PLANTED}"})}),
        f'time="x" msg="{{\\"token\\": \\"one {PLANTED}\\"}}"',
        f"https://root:a/{PLANTED}@etcd:2379",
        f"https://root:a@{PLANTED}@etcd:2379",
        f"etcdctl --user root:{PLANTED} get /",
    ],
)
def test_secrets_are_struck_out(text: str) -> None:
    assert PLANTED not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        'password_file = "/etc/hostmesh/etcd.pw"',
        "10.64.0.0/10 via 192.0.2.1 dev eth0 proto 140",
        "-A DOCKER-USER -j HOSTMESH-FORWARD",
        "author: me",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


def test_a_report_without_agent_and_etcd_has_all_it_can_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[etcd]\nendpoints = ["http://127.0.0.1:9"]\n# password = "{PLANTED}"\n'
        f'[agent]\nrun_dir = "{tmp_path}"\n'
    )
    (tmp_path / "agent.lock").write_text(f"hostmesh-agent (pid {os.getpid()})")
    commands = (
        ("planted", ("sh", "-c", f"echo token={PLANTED}; exit 3")),
        ("missing", ("no-such-program-here",)),
        ("endless", ("sleep", "60")),
    )
    monkeypatch.setattr(bugreport, "_COMMANDS", commands)
    monkeypatch.setattr(bugreport, "_ONE_PART_S", 0.5)
    target = tmp_path / "report.tar.gz"
    words = ["bugreport", str(target), "--settings", str(settings)]
    assert main([*words, "-o", "json"]) == 0
    check("bugreport", json.loads(capsys.readouterr().out))
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as archive:
        texts = {
            member.name.removeprefix("hostmesh-bugreport/"): opened.read().decode()
            for member in archive
            if (opened := archive.extractfile(member)) is not None
        }
    assert "127.0.0.1:9" in texts["files/agent.toml"]
    assert "(status 3)" in texts["planted.txt"]
    for name in ("status.json", "missing", "endless", "without-agent/leases.json"):
        assert f"{name}" in texts["errors.txt"]
    looked = json.loads(texts["without-agent/status.json"])
    assert looked["source"] == "host"
    assert {each["name"] for each in looked["conditions"]} >= {"etcd-unreachable"}
    assert f"Pid:\t{os.getpid()}" in texts["agent-process.txt"]
    assert not [name for name, text in texts.items() if PLANTED in text]
    assert main(words) == 26  # never over another file
    assert "there already" in capsys.readouterr().err


def test_a_report_waits_for_an_agent_that_hangs_once_and_keeps_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bugreport, "_COMMANDS", (("endless", ("sleep", "60")),) * 6)
    monkeypatch.setattr(bugreport, "_without_agent", lambda _context: iter(()))
    path, target = tmp_path / "agent.sock", tmp_path / "report.tar.gz"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(1)
        began_s = time.monotonic()
        words = ["--socket", str(path), "--settings", "/dev/null", "--timeout", "2s"]
        assert main(["bugreport", str(target), *words]) == 0
        took_s = time.monotonic() - began_s
    assert took_s < 2 + 6 * 0.5 + 5
    with tarfile.open(target) as archive:
        errors = archive.extractfile("hostmesh-bugreport/errors.txt")
        assert errors is not None
        assert errors.read().count(b"did not answer") == len(bugreport._PATHS) + 1


def test_a_report_is_not_written_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bugreport, "_archive", lambda _context: pytest.fail("it was collected"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["bugreport", "-"]) == 2
    assert "agentctl: bugreport - would write an archive to the terminal" in capsys.readouterr().err


def test_a_report_takes_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["bugreport", str(tmp_path / "x")]) == 11
    assert "only root" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_an_error_for_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bugreport, "_COMMANDS", ())
    (tmp_path / "file").write_text("")
    words = ["--settings", "/dev/null", "--socket", str(tmp_path / "none")]
    assert main(["bugreport", str(tmp_path / "file" / "x"), *words]) == 26
    assert "hint: agentctl bugreport FILE" in capsys.readouterr().err
