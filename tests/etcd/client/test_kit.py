"""deploy/etcd as its users run it: three members with TLS, accounts that may do what they must."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.errors import EtcdAuthError, HostmeshError
from agent.etcd.client import EtcdClient
from agent.model import DockerState, View
from agent.registry.claiming.locks import MeshLock, MeshLocks
from agent.registry.directory import Directory
from agent.registry.operations.reservations import reserve
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.records import GRACE
from agent.registry.registry import Registry
from agent.settings import EtcdSettings, LeaseSettings
from tests.etcd.support.etcdlab import Heard, binaries, config, host
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

KIT = Path(__file__).parents[3] / "deploy/etcd"
ADDRESSES = {"etcd1": "127.0.0.11", "etcd2": "127.0.0.12", "etcd3": "127.0.0.13"}


def unit_settings(folder: Path, data: Path) -> dict[str, str]:
    """What the unit gives etcd, with its folders moved."""
    found: dict[str, str] = {}
    for line in (KIT / "hostmesh-etcd.service").read_text().splitlines():
        if line.startswith("Environment="):
            found |= dict(word.split("=", 1) for word in shlex.split(line.partition("=")[2]))
        elif line.startswith("EnvironmentFile="):
            name = Path(line.partition("=")[2]).name
            found |= dict(row.split("=", 1) for row in (folder / name).read_text().splitlines())
    moved = {name: text.replace("/etc/hostmesh-etcd", str(folder)) for name, text in found.items()}
    clients = moved["ETCD_LISTEN_CLIENT_URLS"].partition(",")[0]  # all three are on one machine
    return moved | {"ETCD_DATA_DIR": str(data), "ETCD_LISTEN_CLIENT_URLS": clients}


def run(script: str, *arguments: str, **environ: str) -> str:
    """One of the kit's scripts; etcdctl is the tests', and nothing else of where that lies.

    That may be another Debian's /usr/bin, whose programs want their own libraries.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "etcdctl").symlink_to(binaries() / "etcdctl")
        told = subprocess.run(
            [KIT / script, *arguments],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **environ},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return told.stdout


def accounts(folder: Path, *flags: str) -> None:
    ca = str(folder / "pki/ca.crt")
    passwords = str(folder / "passwords")
    run("roles.sh", *flags, passwords, ETCDCTL_ENDPOINTS=endpoints()[0], ETCDCTL_CACERT=ca)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three members, their certificates, and the passwords; authentication is on."""
    folder = tmp_path_factory.mktemp("kit")
    run("make-certs.sh", str(folder / "pki"), *(f"{n}={a}" for n, a in ADDRESSES.items()))
    members = [
        subprocess.Popen(
            [binaries() / "etcd", "--log-level", "error", "--logger", "zap"],
            env=unit_settings(folder / "pki" / name, folder / f"data-{name}"),
            stderr=(folder / f"log-{name}").open("w"),
        )
        for name in ADDRESSES
    ]
    try:
        ctl = [str(binaries() / "etcdctl"), "--endpoints", ",".join(endpoints())]
        ctl += ["--cacert", str(folder / "pki/ca.crt"), "endpoint", "health"]
        environ = {**os.environ, "ETCDCTL_API": "3"}
        eventually(
            lambda: (
                not subprocess.run(ctl, env=environ, check=False, capture_output=True).returncode
            ),
            timeout_s=30,
        )
        # One that was cut off half-way: a role without its grants, a user with another password.
        for words in (["role", "add", "hostmesh-agent"], ["user", "add", "hostmesh-agent:lost"]):
            subprocess.run([*ctl[:-2], *words], env=environ, check=True, capture_output=True)
        accounts(folder)
        yield folder
    finally:
        for member in members:
            member.kill()
            member.wait(10)


def endpoints() -> tuple[str, ...]:
    return tuple(f"https://{address}:2379" for address in ADDRESSES.values())


@pytest.fixture
def account(cluster: Path) -> Iterator[dict[str, Registry]]:
    """A registry for each account."""
    clients = {
        name: EtcdClient(
            EtcdSettings(
                endpoints=endpoints(),
                ca_file=cluster / "pki/ca.crt",
                username=f"hostmesh-{name}",
                password_file=cluster / "passwords" / name,
            )
        )
        for name in ("agent", "operator")
    }
    try:
        yield {name: Registry(client, "/hostmesh") for name, client in clients.items()}
    finally:
        for client in clients.values():
            client.close()


def test_an_agent_lives_with_its_account(account: dict[str, Registry]) -> None:
    """Claims, beats, sees itself in a watch, takes a turn, and gives back."""
    account["operator"].create_config(config())
    agent, heard, views = account["agent"], Heard(), Heard()
    keeper = Keeper(
        agent,
        host_id=host(1),
        boot_id="1" * 32,
        agent_version="0.1.0",
        settings=LeaseSettings(ttl_s=60, heartbeat_ttl_s=5, memory_ttl_s=3600),
        on_lease=heard,
    )

    def on_view(view: View) -> None:
        keeper.notice(view)
        views(view)

    directory = Directory(agent, on_view, Heard())
    keeper.start()
    directory.start()
    try:
        keeper.update(
            Registration(
                node_address=IPv4Address("192.0.2.2"),
                host_name="host1",
                docker_state=DockerState.PENDING,
            )
        )
        eventually(lambda: views.last and host(1) in views.last.heartbeats, timeout_s=20)
        # The heartbeat is written ahead of the lease.
        lease, conditions, _former = eventually(lambda: heard.last, timeout_s=20)
        assert lease is not None
        assert conditions == ()
    finally:
        directory.stop()
        keeper.stop()
    turns = MeshLocks(agent.client, "/hostmesh", host(1), "host1")
    turn = turns.take("docker", 30)
    assert isinstance(turn, MeshLock)
    turns.give_back(turn)
    assert agent.release(host(1)) is not None
    agent.begin_grace(5)  # an alarm's: holders come back first (promise 4)
    assert agent.client.range(agent.keys.of(GRACE)).records


def test_an_agent_cannot_write_the_config_reservations_or_other_keys(
    account: dict[str, Registry], cluster: Path
) -> None:
    agent = account["agent"]
    with pytest.raises(EtcdAuthError, match="permission denied"):
        agent.create_config(config())
    with pytest.raises(HostmeshError, match="permission denied"):
        reserve(agent, host(2), IPv4Network("10.65.0.0/16"))
    password = (cluster / "passwords/agent").read_text().strip()
    commands = (
        ["put", "/other", "x"],
        ["get", "/other"],
        ["user", "list"],
        ["put", "/hostmesh/config", "{}"],
        ["del", "--prefix", "/hostmesh/"],
    )
    for command in commands:
        told = subprocess.run(
            [binaries() / "etcdctl", "--endpoints", endpoints()[1], *command],
            env={**os.environ, "ETCDCTL_API": "3", "ETCDCTL_CACERT": str(cluster / "pki/ca.crt"),
                 "ETCDCTL_USER": f"hostmesh-agent:{password}"},
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert "permission denied" in told.stderr, command


def test_the_accounts_are_made_again_and_a_lost_password_is_another_one(
    cluster: Path, account: dict[str, Registry]
) -> None:
    """With authentication on; nobody else's password changes."""
    before = {path.name: path.read_text() for path in (cluster / "passwords").iterdir()}
    (cluster / "passwords/operator").unlink()
    accounts(cluster)
    after = {path.name: path.read_text() for path in (cluster / "passwords").iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["operator"]
    for registry in account.values():
        registry.client.range(b"/hostmesh/config")


def test_nobody_gets_in_without_a_password_or_in_the_clear(cluster: Path) -> None:
    for settings in (
        EtcdSettings(endpoints=endpoints(), ca_file=cluster / "pki/ca.crt"),
        EtcdSettings(endpoints=("http://127.0.0.11:2379",)),
    ):
        client = EtcdClient(settings)
        try:
            with pytest.raises(HostmeshError):
                client.range(b"/hostmesh/config")
        finally:
            client.close()


def test_private_files_are_private(cluster: Path) -> None:
    secrets = [*cluster.glob("pki/**/*.key"), *(cluster / "passwords").iterdir()]
    assert len(secrets) == 7
    assert {path.stat().st_mode & 0o077 for path in secrets} == {0}


def test_certificates_are_renewed_under_the_same_ca(tmp_path: Path) -> None:
    run("make-certs.sh", str(tmp_path), "etcd1=127.0.0.11,one.example.com")
    before = {name: (tmp_path / name).read_bytes() for name in ("ca.crt", "etcd1/server.crt")}
    run("make-certs.sh", str(tmp_path), "etcd1=127.0.0.11,one.example.com")
    assert (tmp_path / "ca.crt").read_bytes() == before["ca.crt"]
    assert (tmp_path / "etcd1/server.crt").read_bytes() != before["etcd1/server.crt"]
    shown = subprocess.run(
        ["openssl", "x509", "-in", "etcd1/server.crt", "-noout", "-ext", "subjectAltName"],
        cwd=tmp_path,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "DNS:one.example.com" in shown
    assert "IP Address:127.0.0.11" in shown
