"""`agentctl doctor` on a real etcd, in a namespace that is a host of its own."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.model import DockerState, Heartbeat
from agent.registry.etcd_checks import ask_endpoint
from agent.registry.own.identity import host_id, read_machine_id
from agent.registry.records import CONFIG, encode_config
from agent.settings import EtcdSettings
from tests.etcd.support.etcdlab import Etcd, config, host, registry, request

pytestmark = pytest.mark.etcd

Doctor = Callable[..., tuple[int, dict[str, Any]]]


def state_of_host() -> str:
    """Everything that a doctor who changes nothing leaves as it is, in this namespace."""
    commands = (["ip", "-4", "route", "show", "table", "all"], ["ip", "link"], ["iptables-save"],
                ["ipset", "list"], ["sysctl", "net.ipv4.ip_forward"])  # fmt: skip
    done = (subprocess.run(each, capture_output=True, text=True, check=False) for each in commands)
    return "\n".join(
        line for each in done for line in each.stdout.splitlines() if not line.startswith("#")
    )


@pytest.fixture(scope="module")
def _uplink() -> Iterator[None]:
    for command in (
        "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up",
        "address add 198.51.100.1/24 dev up0",
    ):  # fmt: skip
        subprocess.run(["ip", *command.split()], check=True)
    yield
    subprocess.run(["ip", "link", "del", "up0"], check=True)


@pytest.fixture
def doctor(tmp_path: Path, _uplink: None) -> Doctor:
    (tmp_path / "daemon.json").write_text('{"bip": "192.0.2.1/24"}\n')

    def run(
        *flags: str, endpoint: str = "", prefix: str = "/hostmesh"
    ) -> tuple[int, dict[str, Any]]:
        before = state_of_host()
        command = [sys.executable, "-I", "-m", "agent.ctl", "doctor", "-o", "json"]
        command += ["--settings", "/dev/null", "--set", "host.uplink=up0"]
        command += ["--set", f"docker.daemon_json={tmp_path}/daemon.json"]
        command += ["--set", "docker.socket=/run/no-docker-here/docker.sock"]
        command += ["--set", f"agent.state_dir={tmp_path}/state", "--set", f"etcd.prefix={prefix}"]
        command += ["--set", f"etcd.endpoints={endpoint}"] if endpoint else []
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip
        assert done.returncode in {0, 1}, done.stderr
        assert state_of_host() == before
        assert not (tmp_path / "state").exists()
        return done.returncode, json.loads(done.stdout)

    return run


def states(document: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in document["checks"]:
        found.setdefault(each["check"], set()).add(each["state"])
    return found


def said(document: dict[str, Any], check: str) -> str:
    return "; ".join(each["found"] for each in document["checks"] if each["check"] == check)


def test_a_host_that_can_join_is_told_what_joining_would_do(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    """The kernel is tried in a namespace that ends with the trial: this one stays as it was."""
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        mesh.client.txn("w", [], [kv.put(f"{prefix}/newer/1".encode(), b"x")])
        before = mesh.snapshot()
        status, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
        after = mesh.snapshot()  # other tests' leases end meanwhile, which is a new revision
        assert replace(after, revision=before.revision) == before, "etcd is not written to either"
    found = states(document)
    assert found["root"] == found["kernel: routes"] == found["kernel: firewall"] == {"ok"}
    assert found["etcd endpoint"] == found["clock"] == found["etcd account"] == {"ok"}
    assert found["mesh"] == found["overlap"] == found["subnet"] == {"ok"}
    assert f"such as {prefix}/newer/1 (1 or more)" in said(document, "etcd keys")
    assert "etcd 3." in said(document, "etcd endpoint")
    assert "named by flag" in said(document, "etcd")
    # An operator's own bip is not replaced unasked (promise 7), and that keeps this host out.
    assert "fail" in found["docker"]
    assert "bip" in said(document, "docker")
    would = " ".join(document["would"])
    assert "claim 10." in would
    assert "routes of protocol 140" in would
    assert status == 1
    assert document["can_join"] is False


def test_with_the_operators_word_nothing_speaks_against_it(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
    status, document = doctor(
        "--set", "docker.replace=true", endpoint=shared_etcd.endpoint, prefix=prefix
    )
    assert status == 0, document
    assert any("daemon.json: set bip" in line for line in document["would"])


def test_each_obstacle_is_named(doctor: Doctor, shared_etcd: Etcd, prefix: str) -> None:
    _, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
    assert "there is no" in said(document, "mesh")
    assert states(document)["mesh"] == {"fail"}
    _, document = doctor(endpoint="http://127.0.0.1:9")
    assert "127.0.0.1:9" in said(document, "etcd endpoint")
    assert states(document)["etcd endpoint"] == {"fail"}
    _, document = doctor("--set", "etcd.domain=nowhere.test")
    assert states(document)["etcd"] == {"fail"}
    assert "no etcd is known" in said(document, "etcd")


def test_a_member_that_is_away_keeps_nobody_out(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
    endpoints = f"{shared_etcd.endpoint},http://127.0.0.1:9"
    status, document = doctor("--set", "docker.replace=true", endpoint=endpoints, prefix=prefix)
    assert states(document)["etcd endpoint"] == {"ok", "warn"}
    assert status == 0, document


def test_a_copied_machine_id_is_seen_before_it_joins(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    own = host_id(read_machine_id())
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        beat = Heartbeat(
            host_id=own,
            host_name="twin",
            node_address=IPv4Address("198.51.100.77"),
            subnet=None,
            docker=DockerState.READY,
            agent_version="0.1.0",
            boot_id="7" * 32,
            started_s=0.0,
        )
        mesh.heartbeat(beat, 60)
    status, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
    assert status == 1
    assert states(document)["identity"] == {"fail"}
    assert "twin at 198.51.100.77" in said(document, "identity")


def test_what_flannel_leases_to_this_host_would_be_taken_over(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        flannels = json.dumps({"PublicIP": "198.51.100.1", "BackendType": "host-gw"}).encode()
        mesh.client.txn("as flannel does", [],
                        [kv.put(f"{prefix}/subnets/10.70.0.0-16".encode(), flannels)])  # fmt: skip
    _, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
    assert "10.70.0.0/16" in said(document, "subnet")
    assert "take flannel's lease of 10.70.0.0/16 over" in document["would"]
    assert states(document)["peers"] == {"ok"}


def test_a_name_that_no_host_can_have_is_said() -> None:
    """DNS may name one; a settings file that does is refused whole."""
    with pytest.raises(EtcdUnavailable, match="does not answer"):
        ask_endpoint(f"http://{'a' * 64}.example.test:2379", EtcdSettings())


def test_an_overlap_with_this_host_and_peers_off_the_link_are_found(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        mesh.claim(request(5))
        subprocess.run(["ip", "address", "add", "10.70.0.1/16", "dev", "up0"], check=True)
        try:
            status, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
        finally:
            subprocess.run(["ip", "address", "del", "10.70.0.1/16", "dev", "up0"], check=True)
        assert mesh.snapshot().lease_of(host(5)) is not None
    assert status == 1
    assert states(document)["overlap"] == {"fail"}
    assert "10.70.0.1/16" in said(document, "overlap")
    assert "host5" in said(document, "peers")


def test_clock_and_version_come_from_etcd_itself(etcd: Etcd) -> None:
    answer = ask_endpoint(etcd.endpoint, EtcdSettings())
    assert answer.version.startswith("3.")
    assert answer.ahead_s is not None
    assert abs(answer.ahead_s) < 3
    skewed = ask_endpoint(etcd.endpoint, EtcdSettings(), wall_clock=lambda: time.time() - 600)
    assert skewed.ahead_s is not None
    assert 595 < skewed.ahead_s < 605


def test_what_answers_but_is_no_etcd_is_said(etcd: Etcd) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    try:
        with pytest.raises(EtcdUnavailable, match="not as an etcd"):
            ask_endpoint(f"http://127.0.0.1:{server.server_port}", EtcdSettings())
    finally:
        server.server_close()
    etcd.pause()
    try:
        with pytest.raises(EtcdUnavailable, match="does not answer"):
            ask_endpoint(etcd.endpoint, EtcdSettings())
    finally:
        etcd.resume()


def test_a_backend_that_this_version_lacks_and_a_peer_off_the_link_are_named(
    doctor: Doctor, shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        stored = mesh.create_config(config("10.64.0.0/12"))
        mesh.claim(request(5))
        _, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
        assert "1 of 1 cannot be reached from here (host5): 192.0.2.6" in said(document, "peers")
        assert "host-gw cannot reach it" in said(document, "peers")
        value = encode_config(replace(stored, backend="udp"))
        mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), value)])
        status, document = doctor(endpoint=shared_etcd.endpoint, prefix=prefix)
    assert status == 1
    assert "fail" in states(document)["mesh"]
    assert "'udp'; this agent has host-gw" in said(document, "mesh")
