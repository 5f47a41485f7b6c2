"""hostmesh-deploy from a clone, over sudo, from apt, with an etcd that was there before.

Debian 12 on both sides: its ansible-core is the oldest that is met. The tests of this file use the
same machines, one after the other.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.release import build as release
from deploy.release import repository
from tests.engine.deploy import controller
from tests.engine.deploy.controller import FOLDER, Controller

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1800)]

SUITE = "bookworm"
_EPOCH = 1767300000
_PASSWORD = "a-password-of-all-hosts"  # noqa: S105 - of this lab's etcd
_ETCD = r"""
mkdir -p /root/etcd && cd /root/etcd
key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $key -days 90 -subj /CN=test -keyout ca.key -out ca.crt
openssl req $key -subj /CN=etcd -keyout server.key -out server.csr
printf 'subjectAltName=IP:{address}\n' >names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 \
    -extfile names -out server.crt
setsid etcd --data-dir data --listen-client-urls {url} --advertise-client-urls {url} \
    --cert-file server.crt --key-file server.key --log-level error </dev/null >log 2>&1 &
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={url} ETCDCTL_CACERT=ca.crt
until etcdctl endpoint health; do kill -0 $!; done
etcdctl user add root:of-root && etcdctl user grant-role root root
etcdctl role add hostmesh
etcdctl role grant-permission hostmesh --prefix=true readwrite /hostmesh/
etcdctl user add hostmesh:{password} && etcdctl user grant-role hostmesh hostmesh
etcdctl auth enable
"""
_SUDO = """
useradd -m -s /bin/sh ops
install -d -m 700 -o ops ~ops/.ssh
install -m 600 -o ops /root/.ssh/authorized_keys ~ops/.ssh/authorized_keys
echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
: >/etc/apt/sources.list
"""


_FROM_CLONE = ("env", "PYTHONPATH=/root/clone", "python3", "-m", "agent.deploy")


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder = tmp_path_factory.mktemp("deploy")
    with controller.deployment(
        folder,
        "ways",
        SUITE,
        _FROM_CLONE,
        of_hosts=("sudo",),
        of_controller=("etcd-server", "etcd-client"),
    ) as (made, package):
        bring_clone_and_repository(made, package)
        for host in made.hosts():
            host.run(["sh", "-ec", _SUDO])
        address = made.machine.address
        script = _ETCD.format(address=address, url=f"https://{address}:2379", password=_PASSWORD)
        made.machine.run(["sh", "-ec", script], timeout_s=60)
        made.machine.write_file("/root/password", _PASSWORD + "\n", mode=0o600)
        yield made


def bring_clone_and_repository(deploys: Controller, package: Path) -> None:
    """Unpack a release's tarball, and serve an apt repository with the package."""
    tarball = release.archive(controller.CLONE, package.parent, _EPOCH)
    root = deploys.machine.path("/root")
    with tarfile.open(tarball) as tar:
        tar.extractall(root, filter="data")
    (root / tarball.name.removesuffix(".tar.gz")).rename(root / "clone")
    apt = package.parent / "apt"
    repository.write(apt, {SUITE: [package]}, epoch=_EPOCH, key="")
    shutil.copytree(apt, root / "apt")
    deploys.machine.popen(["sh", "-c", "cd /root/apt && exec python3 -m http.server 8000"])


def up(operator: Controller) -> list[str]:
    address = operator.machine.address
    return [
        "up", "--hosts", "ops@web1,root@web2", "--etcd", f"https://{address}:2379",
        "--etcd-ca", "/root/etcd/ca.crt", "--etcd-user", "hostmesh",
        "--etcd-password-file", "/root/password",
        "--apt", f"deb [trusted=yes] http://{address}:8000 {SUITE} main",
        "--accept-host-keys", "--yes",
    ]  # fmt: skip


def test_an_etcd_that_is_there_an_account_for_all_sudo_and_apt(operator: Controller) -> None:
    """One host has a container already: its Docker keeps its networks until it may restart."""
    one, two = operator.host("web1"), operator.host("web2")
    two.start_container("busy")
    said = operator.deploy(*up(operator))
    one.start_container("neighbour")  # its host knows of the restart that the other waits for
    assert "Docker keeps its networks until it restarts (1 container runs" in said
    assert one.ready()
    assert not two.ready()
    assert two.docker("inspect", "-f", "{{.State.Running}}", "busy").stdout.strip() == "true"
    assert list(two.conditions()) == ["docker-restart-pending"]
    version = one.run(["apt-cache", "policy", "hostmesh"]).stdout
    assert f"http://{operator.machine.address}:8000" in version
    for host in (one, two):
        modes = host.run(["stat", "-c", "%a", "/etc/hostmesh/etcd-password"]).stdout
        assert modes.strip() == "600"
    logs = operator.machine.run(["sh", "-c", f"cat {FOLDER}/log/* {FOLDER}/*.json"]).stdout
    assert _PASSWORD not in logs


def test_the_same_command_again_restarts_no_docker(operator: Controller) -> None:
    said = operator.deploy(*up(operator))
    assert "Docker restarted" not in said
    assert said.count("Docker keeps its networks until it restarts (1 container runs") == 1
    assert not operator.host("web2").ready()


def test_docker_restarts_with_containers_when_that_is_asked_for(operator: Controller) -> None:
    two = operator.host("web2")
    said = operator.deploy(*up(operator), "--restart-docker")
    assert "Docker restarted" in said
    assert two.ready()
    assert "nothing had to change" in operator.deploy(*up(operator), "--restart-docker")


def test_a_host_that_is_lost_is_removed_without_it(operator: Controller) -> None:
    one, three = operator.host("web1"), operator.host("web3")
    operator.deploy("add", "root@web3", "--yes", "--accept-host-keys")
    assert len(one.leases()) == 3
    three.kill()
    said = operator.deploy("remove", "web3", "--yes", check=False)
    assert "web3 is no host of this mesh" not in said
    said = operator.deploy("remove", "web3", "--gone", "--yes")
    assert "web3 is no host of this mesh any more" in said
    assert len(one.leases()) == 2
