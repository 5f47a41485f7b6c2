"""agent/docker on real dockerds (26.1, 20.10 and 28.5), driven by driver.py on the host."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostmesh_lab import shell
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from agent.docker.daemonjson.known_keys import KNOWN_TO_20_10

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

DRIVER = "/root/driver.py"
DAEMON_JSON = "/etc/docker/daemon.json"
JOURNAL = "/var/lib/hostmesh/daemon.json.journal"
AT_ONCE = "--stop-signal=KILL"  # what ignores SIGTERM costs dockerd's end 10 s
WRAPPER = "/usr/local/sbin/dockerd"
PYTHON = "/opt/hostmesh/venv/bin/python"
_CLEAR = "docker ps -aq | xargs docker rm -f"
NO_LEASE = (
    f'case "$*" in *--validate*) ;; *) grep -q bip {DAEMON_JSON} &&'
    ' set -- --storage-driver=nonsense ;; esac\nexec /usr/sbin/dockerd "$@"'
)
"""A dockerd that checks a file with a lease and does not start with it."""
ENVIRONMENT = {"PYTHONPATH": "/opt/hostmesh/src"}


@dataclass
class Driven:
    """A host whose Docker the test manages."""

    host: Host
    version: tuple[int, int]

    def command(self, call: str, **order: object) -> list[str]:
        whole = {"subnet": "10.64.0.0/16", "mtu": 1500, "force": False, "settings": {}, **order}
        return [PYTHON, DRIVER, json.dumps({"call": call, **whole})]

    def call(self, call: str, **order: object) -> dict[str, Any]:
        done = self.host.run(self.command(call, **order), env=ENVIRONMENT, timeout_s=200)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def ensure(self, **order: object) -> dict[str, Any]:
        """Return the result, once no container has ended for a moment."""
        deadline_s = time.monotonic() + 30
        while True:
            report = self.call("ensure", **order)
            if "ended a moment ago" not in json.dumps(report) or time.monotonic() > deadline_s:
                return report

    def docker0(self) -> list[str]:
        return self.host.addresses("docker0")

    def file(self) -> str | None:
        path = self.host.path(DAEMON_JSON)
        return path.read_text() if path.exists() else None

    def starts(self) -> int:
        """Return how often dockerd was started."""
        return int(self.host.services()["docker"]["starts"])

    def wrap(self, script: str) -> None:
        """Let the service start dockerd through a script of the operator's."""
        self.host.write_file(WRAPPER, f"#!/bin/sh\n{script}\n", mode=0o755)

    def reset(self) -> None:
        """Make it a host that never saw an agent, with its Docker on 172.17.0.1/16."""
        self.host.service("stop", "docker")
        self.host.run(["rm", "-rf", "/var/lib/hostmesh", WRAPPER, DAEMON_JSON])
        self.host.write_file(DAEMON_JSON, '{"bip": "172.17.0.1/16"}')
        self.host.service("start", "docker")
        if self.host.docker("ps", "-aq").stdout:
            self.host.run(["sh", "-c", _CLEAR])
            self.host.service("restart", "docker")  # which forgets who ended a moment ago
        self.host.docker("network", "prune", "-f")
        self.host.run(["rm", DAEMON_JSON])


@pytest.fixture(scope="module", params=["trixie", "bookworm", "forky"])
def machine(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Driven]:
    options = LabOptions(
        name="dockertest",
        hosts=1,
        suite=request.param,
        etcd_members=0,
        host=HostOptions(agent=False),
    )
    with make_lab(options) as lab:
        host = lab.hosts["host1"]
        host.write_file(DRIVER, Path(__file__).with_name("driver.py").read_text())
        text = host.docker("version", "--format", "{{.Server.Version}}").stdout
        major, minor = text.split(".")[:2]
        yield Driven(host, (int(major), int(minor)))


@pytest.fixture
def driven(machine: Driven) -> Driven:
    machine.reset()
    return machine


def names(report: dict[str, Any]) -> set[str]:
    return {condition["name"] for condition in report["conditions"]}


def cause(report: dict[str, Any], name: str) -> str:
    return str(next(c["cause"] for c in report["conditions"] if c["name"] == name))


def test_an_idle_engine_gets_the_lease_and_every_new_network_lies_in_it(driven: Driven) -> None:
    report = driven.ensure(mtu=1450)
    assert (report["state"], report["changed"], report["restarted"]) == ("ready", True, True)
    assert report["conditions"] == []
    assert driven.docker0() == ["10.64.0.1/17"]
    driven.host.docker("network", "create", "app")
    network = driven.host.inspect("app")
    assert network["IPAM"]["Config"][0]["Subnet"].startswith("10.64.128.")
    if driven.version >= (24, 0):
        assert network["Options"]["com.docker.network.driver.mtu"] == "1450"
    driven.host.start_container("web")
    assert str(driven.host.container_address("web")).startswith("10.64.")
    mtu = driven.host.docker("exec", "web", "cat", "/sys/class/net/eth0/mtu").stdout.strip()
    assert mtu == "1450"
    starts = driven.starts()
    again = driven.ensure(mtu=1450)
    assert (again["state"], again["changed"], again["restarted"]) == ("ready", False, False)
    assert driven.starts() == starts


def test_before_dockers_first_start_the_file_is_enough(driven: Driven) -> None:
    driven.host.service("stop", "docker")
    report = driven.ensure()
    assert (report["state"], report["changed"], report["restarted"]) == ("absent", True, False)
    assert names(report) == {"docker-absent"}
    driven.host.service("start", "docker")
    assert driven.docker0() == ["10.64.0.1/17"]
    assert driven.ensure()["state"] == "ready"


def test_promise_7_no_restart_under_running_containers(driven: Driven) -> None:
    driven.host.start_container("web")
    starts = driven.starts()
    for policy in ("when-idle", "never"):
        report = driven.ensure(settings={"restart": policy})
        assert (report["state"], report["restarted"]) == ("pending", False)
        assert names(report) == {"docker-restart-pending"}
    driven.host.docker("pause", "web")
    assert driven.ensure()["state"] == "pending", "paused"
    driven.host.remove_container("web")
    driven.host.docker("run", "-d", "--name=web", "--restart=always", "--entrypoint=false", "lab")
    assert driven.ensure()["state"] == "pending", "it ends and is started again"
    driven.host.remove_container("web")
    driven.host.docker("create", "--name=new", "lab")
    assert "new" in cause(driven.ensure(), "docker-restart-pending"), "made, and about to start"
    driven.host.docker("rm", "new")
    driven.host.start_container("web")
    assert driven.starts() == starts
    refused = driven.call("restart")
    assert refused["error"] == "Refused"
    assert "perhaps not started again: web" in refused["message"]
    spared = driven.ensure(settings={"expendable": ["web"]})
    assert (spared["state"], spared["restarted"]) == ("ready", True)
    assert driven.docker0() == ["10.64.0.1/17"]


@pytest.mark.parametrize("how", ["always", "forced"])
def test_a_restart_under_containers_when_the_operator_allowed_it(driven: Driven, how: str) -> None:
    driven.host.start_container("web", options=["--restart=always", AT_ONCE])
    if how == "always":
        report = driven.ensure(settings={"restart": "always"})
    else:
        report = driven.call("restart", force=True)
    assert (report["state"], report["restarted"]) == ("ready", True)
    assert str(driven.host.container_address("web")).startswith("10.64.")


def test_containers_of_every_restart_policy_hold_the_restart_and_those_at_risk_are_named(
    driven: Driven,
) -> None:
    policies = ("no", "on-failure", "always", "unless-stopped")
    for policy in policies:
        driven.host.start_container(policy, options=[f"--restart={policy}", AT_ONCE])
    outlook = driven.call("outlook")
    assert outlook["running"] == sorted(policies)
    assert outlook["stay_down"] == ["no", "on-failure"]
    starts = driven.starts()
    report = driven.ensure()
    assert (report["state"], names(report)) == ("pending", {"docker-restart-pending"})
    for policy in policies[:-1]:
        driven.host.remove_container(policy)
        assert driven.ensure()["state"] == "pending"
    assert driven.starts() == starts
    for policy in policies[:-1]:
        driven.host.start_container(policy, options=[f"--restart={policy}", AT_ONCE])
    assert driven.call("restart", force=True)["state"] == "ready"
    running = driven.host.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert set(running) - {"on-failure"} == {"always", "unless-stopped"}, "as it was foretold"


def test_promise_7_attaching_by_a_network_touches_nothing_else(driven: Driven) -> None:
    text = '{"debug": false}'
    driven.host.write_file(DAEMON_JSON, text)
    driven.host.service("restart", "docker")
    driven.host.start_container("web", options=["--restart=always", AT_ONCE])
    starts, network = driven.starts(), {"attach": "network"}
    report = driven.ensure(mtu=1450, settings=network)
    assert (report["state"], report["conditions"]) == ("ready", [])
    assert (driven.starts(), driven.file()) == (starts, text)
    assert driven.docker0() == ["172.17.0.1/16"]
    assert driven.host.addresses("hostmesh0") == ["10.64.0.1/16"]
    made = driven.host.inspect("hostmesh")
    assert made["Options"]["com.docker.network.driver.mtu"] == "1450"
    assert made["Labels"]["hostmesh.access"] == "open"
    driven.host.docker("network", "connect", "hostmesh", "web")
    assert str(driven.host.container_address("web", "hostmesh")).startswith("10.64.")
    driven.host.service("restart", "docker")
    assert driven.ensure(mtu=1450, settings=network)["state"] == "ready"
    assert driven.host.inspect("hostmesh")["Id"] == made["Id"]
    held = driven.ensure()
    assert (held["state"], names(held)) == ("pending", {"docker-network-in-use"})
    assert "web" in cause(held, "docker-network-in-use")
    assert driven.call("restore")["todo"], "who uses it is said"
    driven.host.remove_container("web")
    assert driven.ensure()["state"] == "ready", "switched to daemon.json"
    assert driven.docker0() == ["10.64.0.1/17"]
    back = driven.ensure(settings=network)
    assert (back["state"], driven.file()) == ("ready", text)
    assert driven.docker0() == ["172.17.0.1/16"]
    assert driven.call("restore")["done"] == ["removed Docker network hostmesh"]
    assert driven.host.docker("network", "inspect", "hostmesh", check=False).returncode != 0


def test_promise_7_live_restore_with_containers_is_held_not_repeated(driven: Driven) -> None:
    driven.host.write_file(DAEMON_JSON, '{"live-restore": true}')
    driven.host.service("restart", "docker")
    driven.host.start_container("web")
    starts = driven.starts()
    for policy in ("always", "when-idle"):
        report = driven.ensure(settings={"restart": policy})
        assert report["state"] == "pending"
        assert "live-restore" in cause(report, "docker-restart-pending")
    assert driven.starts() == starts
    driven.host.remove_container("web")
    moment = driven.call("ensure", settings={"restart": "when-idle"})
    assert "web ended a moment ago" in cause(moment, "docker-restart-pending")
    assert driven.ensure()["state"] == "ready"


def test_promise_7_leave_gives_back_file_and_docker0(driven: Driven) -> None:
    text = '{\r\n\t"debug" :false , "log-level":"info"\r\n}'
    driven.host.path(DAEMON_JSON).write_bytes(text.encode())
    assert driven.ensure(mtu=1450)["state"] == "ready"
    driven.host.docker("network", "create", "app")
    report = driven.call("restore")
    assert driven.host.path(DAEMON_JSON).read_bytes() == text.encode()
    assert driven.docker0() == ["172.17.0.1/16"]
    assert report["todo"] == [
        "docker network rm app: it keeps 10.64.128.0/24, which is no longer this host's"
    ]
    driven.host.service("restart", "docker")
    assert driven.docker0() == ["172.17.0.1/16"]


def test_leaving_under_containers_is_finished_by_dockers_next_start(driven: Driven) -> None:
    """The file has docker0's previous address until any program starts Docker."""
    assert driven.ensure()["state"] == "ready"
    driven.host.start_container("web", options=["--restart=always", AT_ONCE])
    still = "docker0 still uses 10.64.0.1/17 because web is running."
    for _ in range(2):
        assert driven.call("restore")["todo"] == [
            f"{still} When web may stop: agentctl leave --force"
        ]
        assert driven.docker0() == ["10.64.0.1/17"]
        assert json.loads(driven.file() or "") == {"bip": "172.17.0.1/16"}
    driven.host.service("restart", "docker")
    assert driven.docker0() == ["172.17.0.1/16"]
    report = driven.call("restore", asked=False)
    assert (report["todo"], driven.file()) == ([], None)
    driven.host.service("restart", "docker")
    assert driven.docker0() == ["172.17.0.1/16"]


def test_leaving_where_the_folder_of_daemon_json_was_removed(driven: Driven) -> None:
    assert driven.ensure()["state"] == "ready"
    driven.host.start_container("web", options=[AT_ONCE])
    driven.host.run(["rm", "-r", "/etc/docker"])
    assert "because web is running" in driven.call("restore")["todo"][0]
    driven.host.remove_container("web")
    assert driven.call("restore")["todo"] == []
    assert (driven.docker0(), driven.file()) == (["172.17.0.1/16"], None)
    assert not driven.host.path(JOURNAL).exists()


def test_leaving_where_daemon_json_could_never_be_written(driven: Driven) -> None:
    """It is a mount point, which no file can replace."""
    text = '{"debug": false}'
    driven.host.write_file(DAEMON_JSON, text)
    driven.host.run(["mount", "--bind", DAEMON_JSON, DAEMON_JSON])
    try:
        assert names(driven.ensure()) == {"docker-config-unusable"}
        assert driven.host.path(JOURNAL).exists()
        report = driven.call("restore")
        assert (report["done"], report["todo"], driven.file()) == ([], [], text)
        assert not driven.host.path(JOURNAL).exists()
    finally:
        driven.host.run(["umount", DAEMON_JSON])


def test_promise_7_an_engine_that_does_not_come_up_is_rolled_back_once(driven: Driven) -> None:
    text = '{\n  "debug": false\n}\n'
    driven.host.write_file(DAEMON_JSON, text)
    driven.wrap(NO_LEASE)
    report = driven.ensure()
    assert (report["state"], report["facts"]["reachable"]) == ("pending", True)
    # 20.10 does not name the driver.
    said = cause(report, "docker-rolled-back")
    assert "nonsense" in said or "error initializing graphdriver" in said
    assert driven.file() == text
    assert driven.docker0() == ["172.17.0.1/16"]
    starts = driven.starts()
    again = driven.ensure()
    assert names(again) == {"docker-rolled-back"}
    assert (driven.file(), driven.starts()) == (text, starts)
    driven.host.run(["rm", WRAPPER])
    driven.host.write_file(DAEMON_JSON, text.replace("false", "true"))
    assert driven.ensure()["state"] == "ready", "tried again once something changed"


def test_promise_7_where_the_previous_file_does_not_start_either_the_operators_does(
    driven: Driven,
) -> None:
    text = '{\n  "debug": false\n}\n'
    driven.host.write_file(DAEMON_JSON, text)
    assert driven.ensure()["state"] == "ready"
    driven.wrap(NO_LEASE)
    report = driven.ensure(subnet="10.65.0.0/16")
    assert (names(report), report["facts"]["reachable"]) == ({"docker-rolled-back"}, True)
    assert driven.file() == text


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--log-level=debug", '{"log-level": "info"}'),
        ("-D", '{"debug": true}'),
        ("--label=a=b", '{"labels": ["c=d"]}'),
    ],
)
def test_a_key_that_is_a_flag_as_well_is_found_before_dockerd_finds_it(
    driven: Driven, flag: str, text: str
) -> None:
    """The operator wrote it into the file while dockerd ran; the next start would be its last."""
    driven.wrap(f'exec /usr/sbin/dockerd {flag} "$@"')
    driven.host.service("restart", "docker")
    driven.host.write_file(DAEMON_JSON, text)
    asked = driven.host.run(["/usr/sbin/dockerd", flag], check=False)
    assert "both as a flag and in the configuration file" in asked.stderr + asked.stdout
    starts = driven.starts()
    assert names(driven.ensure()) == {"docker-flag-conflict"}
    assert (driven.file(), driven.starts()) == (text, starts)


def test_a_flag_in_the_way_is_found_before_dockerd_finds_it(driven: Driven) -> None:
    driven.wrap('exec /usr/sbin/dockerd --bip=172.29.0.1/16 "$@"')
    driven.host.service("restart", "docker")
    starts = driven.starts()
    report = driven.ensure()
    assert report["state"] == "pending"
    assert "172.29.0.1/16" in cause(report, "docker-flag-conflict")
    assert (driven.file(), driven.starts()) == (None, starts)


def test_promise_7_the_operators_bip_is_replaced_only_when_allowed(driven: Driven) -> None:
    text = '{"bip": "172.28.0.1/16"}'
    driven.host.write_file(DAEMON_JSON, text)
    driven.host.service("restart", "docker")
    assert names(driven.ensure()) == {"docker-operator-key"}
    assert driven.file() == text
    assert driven.ensure(settings={"replace": True})["state"] == "ready"
    driven.call("restore")
    assert (driven.file(), driven.docker0()) == (text, ["172.28.0.1/16"])


@pytest.mark.parametrize(
    "broken", ['{"default-gateway": "172.17.0.254"}', '{"fixed-cidr": "172.17.4.0/24"}']
)
def test_keys_that_would_keep_dockerd_from_starting_are_found(driven: Driven, broken: str) -> None:
    driven.host.write_file(DAEMON_JSON, broken)
    driven.host.service("restart", "docker")
    starts = driven.starts()
    assert names(driven.ensure()) <= {
        "docker-default-gateway-outside",
        "docker-fixed-cidr-outside",
    }
    assert (driven.file(), driven.starts()) == (broken, starts)


def test_an_unknown_key_is_found_by_dockerds_own_check(driven: Driven) -> None:
    if driven.version < (23, 0):
        pytest.skip("dockerd --validate is from 23.0")
    driven.host.write_file(DAEMON_JSON, '{"no-such-key": 1}')
    starts = driven.starts()
    report = driven.ensure()
    assert "no-such-key" in cause(report, "docker-config-refused")
    assert driven.starts() == starts
    assert driven.file() == '{"no-such-key": 1}'


def test_a_key_that_an_old_engine_does_not_know_is_found_without_its_help(driven: Driven) -> None:
    """The list of known keys is the engine's own: it names every key that it does not know."""
    if driven.version >= (23, 0):
        pytest.skip("dockerd --validate does it from 23.0")
    driven.host.write_file(DAEMON_JSON, '{"log-format": "json"}')
    starts = driven.starts()
    assert "log-format" in cause(driven.ensure(), "docker-key-unknown")
    assert (driven.file(), driven.starts()) == ('{"log-format": "json"}', starts)
    everything = json.dumps(dict.fromkeys([*sorted(KNOWN_TO_20_10), "no-such-key"], 1))
    driven.host.write_file("/root/everything.json", everything)
    asked = driven.host.run(["dockerd", "--config-file=/root/everything.json"], check=False)
    assert "match any configuration option: no-such-key\n" in asked.stderr + asked.stdout


def test_a_swarm_is_a_condition(driven: Driven) -> None:
    driven.host.docker("swarm", "init", "--advertise-addr=127.0.0.1")
    try:
        report = driven.ensure()
        assert report["state"] == "ready"
        assert "active" in cause(report, "docker-swarm")
    finally:
        driven.host.docker("swarm", "leave", "--force")


def test_docker_is_the_dockerd_behind_the_socket_wherever_its_program_is(driven: Driven) -> None:
    """Another dockerd of root is older, as a Docker in Docker with the host's network may be."""
    host, inner = driven.host, "/run/inner"
    argv = [f"--host=unix://{inner}.sock", f"--exec-root={inner}", f"--pidfile={inner}.pid"]
    away = ["--data-root=/run/inner-data", "--bridge=none", "--iptables=false"]
    copy = "mkdir -p /opt/own && cp -n /usr/sbin/dockerd /opt/own/ &&"
    driven.wrap(f'{copy} exec /opt/own/dockerd "$@"')
    process = host.popen(["/usr/sbin/dockerd", *argv, *away])
    try:
        wait_until(lambda: host.path(f"{inner}.pid").exists(), 20, "the other dockerd")
        host.service("restart", "docker")
        found = driven.call("process")
        assert found["pid"] == host.services()["docker"]["pid"]
        assert host.run(["readlink", f"/proc/{found['pid']}/exe"]).stdout.strip() == (
            "/opt/own/dockerd"
        )
        assert driven.ensure()["state"] == "ready"
    finally:
        host.run(["sh", "-c", f"kill $(cat {inner}.pid)"])
        process.wait(30)
        host.run(["rm", "-rf", "/opt/own"])


def test_the_lease_is_shared_as_settings_say(driven: Driven) -> None:
    split = {"docker0_share": "quarter", "network_len": 26}
    assert driven.ensure(settings=split)["state"] == "ready"
    assert driven.docker0() == ["10.64.0.1/18"]
    for number in range(2):
        driven.host.docker("network", "create", f"app{number}")
    subnets = {
        driven.host.inspect(f"app{number}")["IPAM"]["Config"][0]["Subnet"] for number in range(2)
    }
    assert subnets == {"10.64.64.0/26", "10.64.64.64/26"}
    starts = driven.starts()
    assert driven.ensure(settings=split)["state"] == "ready"
    assert driven.starts() == starts


def test_a_network_where_docker0_is_to_be_is_found_before_dockerd_finds_it(driven: Driven) -> None:
    driven.host.docker("network", "create", "--subnet", "10.64.5.0/24", "old")
    starts = driven.starts()
    report = driven.ensure()
    assert "old has 10.64.5.0/24" in cause(report, "docker-network-in-the-way")
    assert (driven.file(), driven.starts()) == (None, starts)
    driven.host.docker("network", "rm", "old")
    assert driven.ensure()["state"] == "ready"


def test_an_engine_that_hangs_or_dies_is_a_condition_and_costs_little(
    driven: Driven,
) -> None:
    assert driven.ensure()["state"] == "ready"
    driven.host.service("signal", "docker", number=int(signal.SIGSTOP))
    try:
        started_s = time.monotonic()
        hanging = driven.ensure()
        assert time.monotonic() - started_s < 15
    finally:
        driven.host.service("signal", "docker", number=int(signal.SIGCONT))
    assert names(hanging) == {"docker-not-answering"}
    assert hanging["state"] == "absent"
    driven.host.service("signal", "docker", number=int(signal.SIGKILL))
    deadline_s = time.monotonic() + 30
    while driven.ensure()["state"] != "ready":
        assert time.monotonic() < deadline_s
    assert driven.docker0() == ["10.64.0.1/17"]


def test_promise_6_a_kill_of_the_agent_at_any_moment_is_recovered_from(driven: Driven) -> None:
    """Killed after 0.4, 0.9, … s, that is before, in and after the restart of dockerd."""
    delay_s = 0.4
    while True:
        driven.call("restore", force=True)
        assert driven.docker0() == ["172.17.0.1/16"]
        process = driven.host.popen(driven.command("ensure"), env=ENVIRONMENT)
        with contextlib.suppress(Exception):
            process.wait(delay_s)
        ended = process.poll() is not None
        driven.host.run(["pkill", "-KILL", "-f", "driver.py"], check=False)
        shell.kill_session(process)
        text = driven.file()
        assert text is None or json.loads(text)["bip"] == "10.64.0.1/17"
        assert driven.ensure()["state"] == "ready"
        assert driven.docker0() == ["10.64.0.1/17"]
        if ended:
            return
        delay_s += 0.5


def test_promise_6_a_kill_of_the_agent_at_each_write_step_is_recovered_from(
    driven: Driven,
) -> None:
    """Killed before its first write, its second, … and before each program it starts."""
    step, text = 0, '{"debug": false}'
    driven.host.write_file(DAEMON_JSON, text)
    while True:
        step += 1
        done = driven.host.run(
            driven.command("ensure", die_at=step), env=ENVIRONMENT, timeout_s=200, check=False
        )
        found = driven.file() or ""
        assert json.loads(found).get("bip") in {None, "10.64.0.1/17"}
        assert driven.ensure()["state"] == "ready", step
        assert driven.docker0() == ["10.64.0.1/17"]
        driven.call("restore", force=True)
        assert (driven.file(), driven.docker0()) == (text, ["172.17.0.1/16"])
        if done.returncode == 0:
            break
    assert step > 10
