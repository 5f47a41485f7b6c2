"""A release's tarball on a Debian as any systemd distribution: PyPI, a compiler, no package.

What it says to systemd is recorded where no systemd runs; enabling is done by the real systemctl.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from deploy.release import build as release
from tests.deploy.target import CLONE, Target, with_packages

pytestmark = pytest.mark.netns

ETCD = "http://192.0.2.1:2379"
UNITS = "/etc/systemd/system"
_RECORDER = """#!/bin/sh
echo "$*" >>/calls
case "$*" in
*is-active*) cat /state 2>/dev/null; test -e /state ;;
esac
"""


@pytest.fixture
def target(tmp_path: Path) -> Target:
    if os.geteuid() != 0:
        pytest.skip("needs root for the suites' root filesystems")
    layer = with_packages("trixie", "gcc", "libc6-dev", "python3-dev")
    made = Target("trixie", tmp_path / "target", [layer])
    tarball = release.archive(CLONE, tmp_path, 1767300000)
    made.put("/release.tar.gz", tarball.read_bytes())
    made.run("mkdir clone && tar -xzf release.tar.gz -C clone --strip-components 1; rm *.tar.gz")
    return made


def installed(target: Target, *words: str, path: str = "") -> str:
    line = f"PATH={path}:$PATH; cd /; /clone/install.sh {' '.join(words)}"
    return target.run(line, check=False, online=True)


def on_path(target: Target, script: str) -> str:
    return target.run(f"PATH=/usr/local/bin:$PATH; {script}")


def changed(target: Target, before: dict[str, str]) -> list[str]:
    """Return the differences, without those that pip and the lab need to be online."""
    after = target.files()
    lent = re.compile(
        r"\./(clone|calls|state|stub|root|run/systemd|etc/(resolv|hosts|pip|lab-build|apt|dpkg)|usr/sbin/policy)"
    )
    names = [each for each in before.keys() | after.keys() if before.get(each) != after.get(each)]
    return sorted(each for each in names if not lent.match(each))


def test_it_installs_upgrades_a_running_agent_and_leaves_nothing_behind(target: Target) -> None:
    target.run(
        "rmdir /etc/hostmesh /etc/docker; mkdir -p /root;"
        " cd /opt && rmdir -p hostmesh/src/agent || true; mkdir -p /opt"
    )
    target.put("/etc/machine-id", f"{7:032x}\n")
    before = target.files()
    output = installed(target, "--etcd", "192.0.2.1:2379")
    assert "must be URLs" in output
    assert "nothing was changed" in output
    assert "status=1" in output
    assert changed(target, before) == []

    # First while an image is made, without systemd: units are there, and enabled for its boot.
    output = installed(target, "--etcd", f"{ETCD},http://192.0.2.2:2379", "--start")
    assert "status" not in output, output
    modules = "agent.daemon.app; from agent.kernel.firewall.legacy import _library; _library()"
    output = on_path(
        target,
        "cd /tmp; agentctl version; hostmesh-agent --check; cat /etc/hostmesh/agent.toml;"
        f" systemctl is-enabled hostmesh-agent hostmesh-docker-gate; ls {UNITS};"
        f" /opt/hostmesh/venv/bin/python -I -c 'import {modules}';"
        " bash -c '. /usr/local/share/bash-completion/completions/agentctl; complete -p agentctl'",
    )
    assert f'endpoints = ["{ETCD}", "http://192.0.2.2:2379"]' in output
    assert output.count("enabled\n") == 2
    assert "complete " in output
    ours = set(changed(target, before))
    for name in (
        "etc/iproute2/rt_protos.d/hostmesh.conf", "etc/systemd/networkd.conf.d/hostmesh.conf",
        "etc/systemd/network/05-hostmesh.network",
        "etc/systemd/system/hostmesh-agent.service.d/log.conf",
        "usr/local/share/man/man8/hostmesh-agent.8", "usr/local/share/man/man1/agentctl.1",
    ):  # fmt: skip
        assert f"./{name}" in ours, name
    verified = target.run(
        f"cd {UNITS}; systemd-analyze verify --man=no hostmesh-*.service 2>&1 || true"
    )
    wrong = [line for line in verified.splitlines() if "hostmesh" in line]
    assert [each for each in wrong if "Command wireguard-go is not executable" not in each] == []
    assert target.run("cd /clone && find . -name '*.egg-info' -o -name build") == ""

    # An upgrade where an agent runs: its program is replaced under it, so it is started anew,
    # with or without --start. What the operator changed stays.
    target.put("/stub/systemctl", _RECORDER)
    target.put("/etc/iproute2/rt_protos.d/hostmesh.conf", "150 hostmesh\n")
    target.run(
        "chmod 755 /stub/systemctl; mkdir -p /run/systemd/system; echo active >/state; rm -f /calls"
    )
    output = installed(target, path="/stub")
    assert "the agent is restarted" in output
    said = target.run("cat /calls").splitlines()
    assert said[0] == "daemon-reload"
    assert said[-1] == "--no-block restart hostmesh-agent.service"
    assert not [line for line in said if line.startswith("enable")]
    assert target.run("cat /etc/iproute2/rt_protos.d/hostmesh.conf") == "150 hostmesh\n"

    # The package refuses beside the installer's version, and the installer beside the package.
    target.run("mkdir -p /usr/lib/hostmesh/bin && touch /usr/lib/hostmesh/bin/python3")
    for words in ((), ("--uninstall",)):
        output = installed(target, *words)
        assert "the Debian package hostmesh is installed" in output
        assert "status=1" in output
    target.run("rm -r /usr/lib/hostmesh")
    on_path(target, "agentctl version")

    target.run("rmdir /run/systemd/system; rm /state; mkdir -p /var/lib/hostmesh")
    output = installed(target, "--uninstall")
    assert "install: removed" in output
    assert target.run("ls /var/lib/hostmesh").split() == ["left-by-removal", "state.json"]
    target.run("rm -r /var/lib/hostmesh /etc/hostmesh")
    # An operator's own file stays.
    folders = ["./etc/iproute2", "./etc/iproute2/rt_protos.d"]
    kept = [*folders, "./etc/iproute2/rt_protos.d/hostmesh.conf"]
    assert changed(target, before) == kept
