"""The kits in deploy/ are used: cloud-init's own check of user data, the role run by Ansible."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from agent.main import main
from agent.settings import load_settings
from agent.settings.join_token import token_text
from deploy.deb import build
from tests.deploy.target import CLONE, Target, with_packages
from tests.unit.settings.tokens import token

pytestmark = pytest.mark.netns

ROLE = CLONE / "deploy/ansible"
ANSIBLE = ("ansible-core", "python3-apt")
USER_DATA = CLONE / "deploy/cloud-init/user-data.yaml"


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for the suites' root filesystems")


def test_cloud_init_accepts_the_user_data_and_writes_a_token_that_joins(tmp_path: Path) -> None:
    target = Target("trixie", tmp_path / "target", [with_packages("trixie", "cloud-init")])
    data = USER_DATA.read_text()
    now_s = int(time.time())
    made = token_text(token(created_s=now_s, expires_s=now_s + 3600)).rstrip("\n")
    for name, value in {
        "<TOKEN, ONE LINE>": made,
        "<URL OF THE PACKAGE>": "http://192.0.2.9/hostmesh.deb",
    }.items():
        assert name in data
        data = data.replace(name, value)
    assert not re.search("<[A-Z]", data)
    target.put("/root/user-data", data)
    output = target.run("cloud-init schema --config-file /root/user-data", check=False)
    assert "Valid" in output, output
    target.put(
        "/root/write.py",
        "import subprocess, yaml\nfrom cloudinit.config.cc_write_files import write_files\n"
        "data = yaml.safe_load(open('/root/user-data'))\n"
        "write_files('kit', data['write_files'], 'root:root')\n"
        # A line that is no list of words would be read by a shell, with what is put in it.
        "assert all(isinstance(word, str) for line in data['runcmd'] for word in line)\n"
        "assert all(isinstance(line, list) for line in data['runcmd'])\n"
        "for line in data['runcmd']:\n"
        "    if line[:2] == ['sh', '-c']: subprocess.run(['sh', '-n', *line[1:]], check=True)\n",
    )
    target.run("python3 /root/write.py")
    target.run("test $(stat -c %a /run/hostmesh.token) = 600")
    path, settings = tmp_path / "token", tmp_path / "agent.toml"
    path.write_text(target.run("cat /run/hostmesh.token"))
    path.chmod(0o600)
    settings.write_text(f'[agent]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    assert main(["--settings", str(settings), "join", str(path)]) == 0
    assert load_settings(settings).etcd.endpoints == token().endpoints


def test_ansible_reads_the_role(tmp_path: Path) -> None:
    """Every run; the whole matrix runs it."""
    target = Target("trixie", tmp_path / "target", [with_packages("trixie", *ANSIBLE)])
    shutil.copytree(ROLE, tmp_path / "target/upper/ansible")
    books = "site.yml check.yml status.yml up.yml upgrade.yml remove.yml"
    config = "ANSIBLE_CONFIG=/ansible/deploy.cfg"
    groups = "targets etcd_members speaker"
    output = target.run(
        f"cd /ansible; for group in {groups}; do printf '[%s]\\nlocalhost\\n' $group; done >/hosts;"
        f" {config} ansible-doc --type callback hostmesh_events >/dev/null;"
        f" ansible-playbook --syntax-check -i /hosts {books}"
    )
    assert re.findall(r"playbook: (.*)", output) == books.split()


@pytest.mark.full
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_role_makes_a_host_and_does_nothing_the_second_time(suite: str, tmp_path: Path) -> None:
    layer = with_packages(suite, *ANSIBLE)
    target = Target(suite, tmp_path / "target", [layer])
    package = build.build(suite, tmp_path / "dist", say=print)
    shutil.copytree(ROLE, tmp_path / "target/upper/ansible")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    play = (
        "cd /ansible && ansible-playbook -i localhost, -c local site.yml"
        ' -e \'{{"hostmesh_etcd_endpoints": ["https://192.0.2.1:2379"]}}\''
        " -e hostmesh_package={package} -e hostmesh_etcd_ca={ca}"
        " -e hostmesh_etcd_username=hostmesh-agent -e hostmesh_etcd_password=planted"
        " -e hostmesh_wait_s=0 -e hostmesh_settings='[log]\nlevel=\"debug\"'"
    ).format(package=target.take(package), ca=target.take(tmp_path / "ca.crt"))
    output = target.run(play)
    assert re.search(r"failed=0", output), output
    assert "planted" not in output
    output = target.run(f"{play}; hostmesh-agent --check")
    assert re.search(r"changed=0 .*failed=0", output), output
    assert "settings are good" in output
    assert "planted" in target.run("cat /etc/hostmesh/etcd-password")
    target.run("test $(stat -c %a /etc/hostmesh/etcd-password) = 600")


def shell_scripts() -> list[Path]:
    """Every file of the clone that the shell runs."""
    listed = subprocess.run(["git", "-C", CLONE, "ls-files", "-z"], capture_output=True, check=True)
    files = [CLONE / name for name in listed.stdout.decode().split("\0") if name]
    return [each for each in files if each.is_file() and each.read_bytes()[:9] == b"#!/bin/sh"]


def test_shell_scripts_have_no_fault_that_a_lint_can_see() -> None:
    scripts = shell_scripts()
    assert len(scripts) >= 7
    if shutil.which("shellcheck") is None:
        pytest.skip("SHELL SCRIPTS ARE NOT LINTED: apt-get install shellcheck (make setup-lab)")
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """etcd's unit on the suite that has the oldest systemd of the three."""
    target = Target("bookworm", tmp_path / "target")
    target.put("/etc/systemd/system/hostmesh-etcd.service",
               (CLONE / "deploy/etcd/hostmesh-etcd.service").read_text())  # fmt: skip
    output = target.run("systemd-analyze verify hostmesh-etcd.service; echo done", check=False)
    assert "done" in output
    assert "hostmesh-etcd" not in output.replace("systemd-analyze verify hostmesh-etcd.service", "")
