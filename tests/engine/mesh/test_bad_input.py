"""Bad input on a real host: one clear line, a documented exit status, nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import DAEMON_JSON, HostOptions
from hostmesh_lab.shell import Completed

from agent.errors import (
    DependencyMissing,
    EtcdUnavailable,
    MeshConfigError,
    OverlapError,
    SettingsError,
)
from tests.waiting import remarks

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="badinput", hosts=1, host=HostOptions(agent=False), cidr=None)
SETTINGS = "/etc/hostmesh/agent.toml"


@dataclass(frozen=True)
class Trace:
    """Return the state that bad input must not change."""

    routes: str
    rules: str
    daemon_json: str
    forwarding: str
    keys: tuple[str, ...]


def trace(mesh: Lab, host: Host) -> Trace:
    rules = "\n".join(
        line.partition(" [")[0]
        for table in ("raw", "filter", "nat")
        for line in host.iptables(table)
        if not line.startswith("#")
    )
    return Trace(
        routes=host.run(["ip", "-4", "route", "show", "table", "all"]).stdout.replace(
            " linkdown", ""
        ),
        rules=rules,
        daemon_json=host.run(["cat", DAEMON_JSON], check=False).stdout,
        forwarding=host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout,
        keys=tuple(mesh.etcd["etcd1"].keys("/hostmesh/")),
    )


@pytest.fixture
def host(mesh: Lab) -> Iterator[Host]:
    """The host, as it was again afterwards."""
    only = mesh.hosts["host1"]
    settings = only.read_file(SETTINGS)
    only.iptables("raw")  # reading creates the table on some kernels; not ours to count
    before = trace(mesh, only)
    yield only
    only.stop_agent()
    only.write_file(SETTINGS, settings)
    only.run(["rm", "-rf", "/var/lib/hostmesh"])
    mesh.etcdctl("del", "--prefix", "/hostmesh/")
    assert trace(mesh, only) == before


def one_line(done: Completed, status: int) -> str:
    """The error's text; a hint may stand on a line of its own."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in remarks(done.stderr).splitlines() if line.strip()]
    assert 1 <= len([line for line in lines if not line.startswith("hint:")]) <= 2, lines
    return done.stderr


def test_settings_that_do_not_parse(host: Host) -> None:
    host.write_file(SETTINGS, '[etcd]\nendpoints = ["http://192.168.50.2:2379"\n')
    text = one_line(host.run(["hostmesh-agent", "--check"], check=False), SettingsError.exit_code)
    assert f"{SETTINGS}:" in text
    one_line(host.run(["hostmesh-agent"], check=False), SettingsError.exit_code)


def test_every_wrong_key_is_named_with_its_line_at_once(host: Host) -> None:
    host.write_file(SETTINGS, "[etcd]\nendpoint = 3\n[routes]\nprotocol = 2\n[nonsense]\n")
    done = host.run(["hostmesh-agent", "--check"], check=False)
    assert done.returncode == SettingsError.exit_code
    for place in (f"{SETTINGS}:2:", f"{SETTINGS}:4:", f"{SETTINGS}:5:"):
        assert place in done.stderr


def test_etcd_that_cannot_be_reached(host: Host) -> None:
    text = one_line(
        host.run(
            ["hostmesh-agent", "--once", "--etcd", "http://192.168.50.99:2379"],
            check=False,
            timeout_s=60,
        ),
        EtcdUnavailable.exit_code,
    )
    assert "192.168.50.99" in text
    one_line(
        host.agentctl(
            "leases", "--set", "etcd.endpoints=http://192.168.50.99:2379", check=False, timeout_s=60
        ),
        EtcdUnavailable.exit_code,
    )


def test_an_agent_without_a_mesh_waits_and_says_what_to_do(host: Host) -> None:
    host.start_agent()
    found = host.wait_condition("mesh-config-missing", 20)
    assert "agentctl config init" in found["hint"]
    assert host.status()["state"] == "waiting"
    assert host.lease() is None


@pytest.mark.parametrize(
    "config",
    [
        "{not json",
        "[]",
        '{"Network": "10.64.0.0/10", "SubnetLen": 33}',
        '{"Network": "10.64.0.0/30", "SubnetLen": 16}',
        '{"Network": "127.0.0.0/8"}',
        '{"SubnetLen": 16}',
    ],
)
def test_a_config_that_is_garbage_or_describes_no_mesh(mesh: Lab, host: Host, config: str) -> None:
    mesh.etcdctl("put", "/hostmesh/config", config)
    host.start_agent()
    host.wait_condition("mesh-config-unusable", 20)
    assert host.status()["state"] == "waiting"
    text = one_line(host.agentctl("config", "show", check=False), MeshConfigError.exit_code)
    assert "/hostmesh/config" in text


def test_no_free_subnet_says_who_holds_them_and_what_to_do(mesh: Lab, host: Host) -> None:
    mesh.etcdctl(
        "put",
        "/hostmesh/config",
        '{"Network":"10.64.0.0/10","SubnetLen":16,"SubnetMin":"10.70.0.0","SubnetMax":"10.71.0.0",'
        '"Backend":{"Type":"host-gw"}}',
    )
    for n in (70, 71):
        mesh.etcdctl(
            "put",
            f"/hostmesh/subnets/10.{n}.0.0-16",
            json.dumps({"PublicIP": f"192.168.50.{n}", "BackendType": "host-gw"}),
        )
    host.start_agent()
    found = host.wait_condition("no-free-subnet", 20)
    assert "2" in found["cause"]
    assert found["hint"]


@pytest.mark.parametrize("cidr", ["192.168.0.0/16", "192.168.50.0/24"])
def test_a_cidr_that_overlaps_the_host_is_refused_naming_both(
    mesh: Lab, host: Host, cidr: str
) -> None:
    length = "20" if cidr.endswith("/16") else "28"
    text = one_line(
        host.agentctl("config", "init", "--cidr", cidr, "--subnet-len", length, check=False),
        OverlapError.exit_code,
    )
    assert cidr in text
    assert "192.168.50.11/24" in text
    host.extra_settings({"mesh": {"cidr": cidr, "subnet_len": int(length)}}, mesh.endpoints())
    host.start_agent()
    found = host.wait_condition("cidr-overlaps-host", 20)
    assert "192.168.50.11/24" in found["cause"]
    assert mesh.etcd["etcd1"].keys("/hostmesh/") == {}


def test_a_daemon_json_that_does_not_parse_is_left_alone(mesh: Lab, host: Host) -> None:
    damaged = '{\n  "debug": true,  // a comment\n}\n'
    host.write_file(DAEMON_JSON, damaged)
    host.extra_settings(
        {"mesh": {"cidr": "10.64.0.0/10"}, "lease": {"empty_cluster_grace_s": 0}},
        mesh.endpoints(),
    )
    try:
        host.start_agent()
        found = host.wait_condition("docker-config-unusable", 30)
        assert "line 2" in found["cause"] or ":2:" in found["cause"]
        assert host.read_file(DAEMON_JSON) == damaged
        assert host.status()["docker"]["state"] == "pending"
    finally:
        host.agentctl("leave", check=False, timeout_s=120)
        host.run(["rm", "-f", DAEMON_JSON])
        host.stop_agent()
        host.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"], check=False)
        host.run(["lab-service", "restart", "docker"], timeout_s=120)


def test_no_root_rights(host: Host) -> None:
    done = host.run(["setpriv", "--reuid=65534", "--clear-groups", "hostmesh-agent"], check=False)
    text = one_line(done, 11)
    assert "root" in text


def test_no_iptables(host: Host) -> None:
    program = host.run(["sh", "-c", "command -v iptables"]).stdout.strip()
    host.run(["mv", program, f"{program}.away"])
    try:
        text = one_line(
            host.run(["hostmesh-agent"], check=False, timeout_s=60), DependencyMissing.exit_code
        )
        assert "apt-get install iptables" in text
    finally:
        host.run(["mv", f"{program}.away", program])
