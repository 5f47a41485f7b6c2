"""hostmesh-deploy on fresh booted machines, over ssh, from the package.

The tests of this file use the same machines, one after the other.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostmesh_lab import shell
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.wait import wait_until

from tests.browser.chromium import chromium
from tests.engine.deploy import controller
from tests.engine.deploy.breakages import check, failed, page, scraped, unplug
from tests.engine.deploy.controller import FOLDER, UP, Controller
from tests.unit.monitoring.promtool import expect

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1800)]

SUITE = "trixie"
_STEP = int(os.environ.get("DEPLOY_KILL_STEP", "1"))
"""A busy machine may have a run killed after every few tasks only."""
_SECRET = re.compile(r"-----BEGIN EC PRIVATE KEY-----\n(.*)\n", re.MULTILINE)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder = tmp_path_factory.mktemp("deploy")
    with controller.deployment(folder, "deploy", SUITE) as (made, package):
        made.install(package)
        yield made


def reach_each_other(hosts: list[BootedHost]) -> None:
    addresses = []
    for host in hosts:
        if not host.docker("ps", "-aq", "--filter", "name=probe").stdout:
            host.start_container("probe")
        host.docker("start", "probe")
        addresses.append(host.container_address("probe"))
    for host in hosts:
        assert host.ready()
        assert host.conditions(open_etcd=True) == {}
        assert all(host.ping(address, container="probe") for address in addresses)


def test_three_fresh_machines_become_a_mesh_with_tls(operator: Controller) -> None:
    began = time.monotonic()
    said = operator.deploy(*UP)
    print(f"three fresh machines to a verified mesh: {time.monotonic() - began:.0f} s")
    assert "3 hosts are members, every host reaches every other" in said
    reach_each_other(operator.hosts())
    one = operator.host("web1")
    endpoints = f"https://{one.address}:2379"
    config = json.loads(one.agentctl("config", "show", "-o", "json").stdout)
    assert config["owners"] is True
    stranger = ["env", "ETCDCTL_API=3", "etcdctl", "--insecure-skip-tls-verify",
                "--endpoints", endpoints, "get", "--prefix", "/hostmesh/"]  # fmt: skip
    assert one.run(stranger, check=False).returncode != 0


def test_promise_11_no_secret_is_left_or_readable(operator: Controller) -> None:
    """Keys are in the folder and on the host that they belong to; nothing of them in logs."""
    find = f"find {FOLDER} -perm /077 -not -path '*/pki/*.crt' -not -path '*/pki/*.toml'"
    unsafe = operator.machine.run(["sh", "-c", f"{find} -not -name etcd.env"]).stdout.split()
    assert unsafe == []
    keys = operator.machine.run(["sh", "-c", f"cat $(find {FOLDER}/pki -name '*.key')"]).stdout
    secrets = _SECRET.findall(keys)
    assert len(secrets) >= 10
    logs = operator.machine.run(["sh", "-c", f"cat {FOLDER}/log/* {FOLDER}/*.json"]).stdout
    assert not [secret for secret in secrets if secret in logs]
    for host in operator.hosts():
        assert (
            host.run(["sh", "-c", "ls -d /run/hostmesh-deploy* 2>/dev/null"], check=False).stdout
            == ""
        )
        modes = host.run(
            ["stat", "-c", "%a", "/etc/hostmesh/etcd.key", "/etc/hostmesh-etcd/server.key"]
        )
        assert modes.stdout.split() == ["600", "600"]
        journal = host.run(["journalctl", "--no-pager", "-q"]).stdout
        assert not [secret for secret in secrets if secret in journal]


def test_a_second_run_changes_nothing(operator: Controller) -> None:
    pids = [host.unit("agent", "MainPID") for host in operator.hosts()]
    assert "nothing had to change" in operator.deploy("up", "--yes")
    assert [host.unit("agent", "MainPID") for host in operator.hosts()] == pids


def test_the_state_of_the_mesh_is_shown(operator: Controller) -> None:
    found = json.loads(operator.deploy("status", "-o", "json"))
    assert [(each["name"], each["state"]) for each in found["hosts"]] == [
        ("web1", "ready"), ("web2", "ready"), ("web3", "ready"),
    ]  # fmt: skip
    assert len(found["etcd"]) == 3
    assert all(found["etcd"].values())
    operator.host("web3").stop_agent()
    try:
        said = operator.deploy("status", check=False)
        assert re.search(r"web3 +(?!ready)\w", said)
    finally:
        operator.host("web3").start_agent()
        operator.lab.wait_ready(60, ["host3"])


def test_problems_are_found_before_anything_is_changed(operator: Controller) -> None:
    three = operator.host("web3")
    three.run(["ip", "route", "add", "10.66.0.0/16", "dev", "eth0"])
    three.systemctl("stop", "docker.socket", "docker.service")
    try:
        said = operator.deploy("up", "--yes", check=False)
    finally:
        three.run(["ip", "route", "del", "10.66.0.0/16", "dev", "eth0"])
        three.systemctl("start", "docker.service")
    assert "problem: Docker is installed and does not run" in said
    assert "hint: ssh root@web3 systemctl start docker" in said
    assert "nothing was changed: 1 problem must be solved first" in said
    operator.lab.wait_ready(60, ["host3"])


def test_a_host_is_added_upgraded_and_removed(operator: Controller) -> None:
    operator.lab.join()
    operator.name_hosts()
    assert "1 host is a member" in operator.deploy("add", "root@web4", "--yes")
    everyone = [*operator.hosts(), operator.host("web4")]
    reach_each_other(everyone)
    name = operator.machine.run(["ls", "/root/dist"]).stdout.split()[0]
    script = (
        f"rm -rf /root/next; dpkg-deb -R dist/{name} /root/next &&"
        " sed -i 's/^Version: .*/&.next/' /root/next/DEBIAN/control &&"
        f" dpkg-deb -Znone -b /root/next dist/{name.replace('_0.', '_9.', 1)}"
    )
    operator.machine.run(["sh", "-c", f"cd /root; {script}"], timeout_s=120)
    assert "4 hosts are members" in operator.deploy("upgrade", "--yes")
    for host in everyone:
        version = host.run(["dpkg-query", "-W", "-f", "${Version}", "hostmesh"]).stdout
        assert version.endswith(".next")
    reach_each_other(everyone)
    operator.host("web4").remove_container("probe")
    assert "web4 is no host of this mesh any more" in operator.deploy("remove", "web4", "--yes")
    assert len(operator.host("web1").leases()) == 3
    assert len(json.loads(operator.deploy("status", "-o", "json"))["hosts"]) == 3


def test_three_breakages_are_named_by_check_page_and_alert(
    operator: Controller, tmp_path: Path
) -> None:
    hosts = operator.hosts()
    one, two, three = hosts
    reach_each_other(hosts)
    with chromium() as browser:
        wait_until(lambda: check(one)[0] == 0, 60, "a check without a fault")
        healthy = scraped(hosts)
        expect(tmp_path, healthy, healthy)
        assert "No problems" in page(browser, one, tmp_path)[0]

        # A rule that drops what containers of other hosts send.
        drop = ["DOCKER-USER", "-p", "icmp", "-j", "DROP"]
        three.run(["iptables", "-I", *drop])
        status, document = check(one)
        assert status == 1
        assert failed(document)["web3 path"].startswith("agentctl trace 10.")
        text, commands = page(browser, one, tmp_path)
        assert "check-path" in text
        assert [each for each in commands if each.startswith("agentctl trace 10.")]
        expect(tmp_path, scraped(hosts), healthy, ("HostmeshPathsFail", ""))
        three.run(["iptables", "-D", *drop])
        wait_until(lambda: all(check(e)[0] == 0 for e in hosts), 60, "checks of all without it")

        # A name server that hangs.
        name_server = ["kill", "--kill-whom=main", "hostmesh-dns@169.254.20.53.service"]
        one.systemctl(*name_server, "--signal=STOP")
        wait_until(lambda: "dns-server-down" in one.conditions(), 60, "the server to be missed")
        status, document = check(one)
        assert (status, list(failed(document))) == (1, ["own names"])
        assert "systemctl restart hostmesh-dns@169.254.20.53" in failed(document)["own names"]
        text, commands = page(browser, one, tmp_path)
        assert "dns-server-down" in text
        assert [each for each in commands if "hostmesh-dns" in each]
        expect(tmp_path, scraped(hosts), healthy, ("HostmeshWarning", "dns-server-down"))
        one.systemctl(*name_server, "--signal=CONT")
        wait_until(lambda: check(one)[0] == 0, 60, "the name server to answer")

        # A host whose cable is pulled: check, page and alert speak of it.
        plug_in = unplug(two)
        wait_until(lambda: "peer-dead" in one.conditions(), 90, "the silent host to be missed")
        status, document = check(one)
        states = {each["host_name"]: each["state"] for each in document["peers"]}
        assert (status, states) == (1, {"web2": "down", "web3": "ok"})
        text, commands = page(browser, one, tmp_path)
        assert "peer-dead" in text
        assert "agentctl remove web2" in commands
        expect(tmp_path, scraped(hosts, but=two), healthy, ("HostmeshAgentDown", ""))
        plug_in()
        operator.lab.wait_ready(90, ["host1", "host2", "host3"])


def quickstart() -> list[tuple[str, str]]:
    """Every command that the page has its reader type: where, and what."""
    text = (controller.CLONE / "docs/quickstart.md").read_text()
    return re.findall(r"^    (\$|web\d#) (.*)$", text, re.MULTILINE)


def test_the_quick_start_does_what_it_says(operator: Controller) -> None:
    """All its commands in their order, but those that need a network or a fourth host."""
    operator.reset()
    for host in operator.hosts():
        for image in ("nginx", "busybox"):
            host.docker("tag", "lab", image)
    typed = []
    for where, command in quickstart():
        if command.startswith("apt-get") or "web4" in command:
            continue
        if where == "$":
            words = shlex.split(command)
            assert words[0] == "hostmesh-deploy"
            asks = words[1] in ("up", "upgrade") and "--dry-run" not in words
            operator.deploy(*words[1:], "--accept-host-keys", *(["--yes"] if asks else []))
        else:
            done = operator.host(where.rstrip("#")).run(["sh", "-c", command], timeout_s=60)
            if "wget" in command:
                assert "<" in done.stdout or done.stdout.strip(), done
        typed.append(command)
    assert len(typed) == 8


def test_killed_after_every_task_it_is_completed(operator: Controller) -> None:
    operator.reset()
    kills = 0
    while operator.deploy_until(_STEP * (kills + 1)):
        kills += 1
        assert kills * _STEP < 80
    print(f"killed {kills} times")
    assert kills * _STEP > 15
    assert "every host reaches every other" in operator.deploy("up", "--yes")
    reach_each_other(operator.hosts())
    left = "ls -d /run/hostmesh-deploy* 2>/dev/null"
    for host in operator.hosts():
        shell_said: shell.Completed = host.run(["sh", "-c", left], check=False)
        assert shell_said.stdout == ""
