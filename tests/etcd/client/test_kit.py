"""deploy/etcd as its users run it: three members with TLS, and one account for each host."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.ctl.main import main as agentctl
from agent.errors import EtcdAuthError, HostmeshError
from agent.etcd.client import EtcdClient
from agent.model import LEVEL, DockerState, View
from agent.registry.claiming.locks import MeshLock, MeshLocks
from agent.registry.directory import Directory
from agent.registry.etcd_checks import may_write
from agent.registry.operations.reservations import reserve
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.records import GRACE
from agent.registry.registry import Registry
from agent.settings import EtcdSettings, LeaseSettings
from tests.etcd.support.etcdlab import Etcd, Heard, config, host
from tests.etcd.support.kit import Kit
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

ADDRESSES = {"etcd1": "127.0.0.11", "etcd2": "127.0.0.12", "etcd3": "127.0.0.13"}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Three members; two hosts and the operator have accounts, and authentication is on."""
    folder = tmp_path_factory.mktemp("kit")
    kit = Kit(folder)
    kit.run("members", *(f"{name}={address}" for name, address in ADDRESSES.items()))
    members = [kit.member(name, folder / f"data-{name}") for name in ADDRESSES]
    try:
        eventually(lambda: not kit.try_to("list").returncode, timeout_s=60)
        # Hosts come before authentication is on: the order in which an open mesh is closed.
        for number in (1, 2):
            kit.run("add", f"web{number}", "--id", host(number))
        # One that was cut off half-way: a role without its grants.
        assert not kit.etcdctl("role", "add", "hostmesh-operator", who="admin").returncode
        assert asks_for_no_account(kit, "hosts/web1")
        kit.run("enable")
        yield kit
    finally:
        for member in members:
            member.kill()
            member.wait(10)


def asks_for_no_account(kit: Kit, account: str) -> bool:
    with closing(EtcdClient(kit.settings(account))) as client:
        return client.asks_for_no_account(client.endpoints[0])


@pytest.mark.parametrize("account", ["hosts/web1", "admin"])
def test_accounts_are_seen_to_be_in_use(kit: Kit, account: str) -> None:
    """By a certificate with every right, too."""
    assert not asks_for_no_account(kit, account)


@contextmanager
def registry_of(kit: Kit, account: str) -> Iterator[Registry]:
    """Speak to the members as one account."""
    with closing(EtcdClient(kit.settings(account))) as client:
        yield Registry(client, "/hostmesh")


def test_a_host_does_its_work_with_its_certificate(kit: Kit) -> None:
    """It claims, beats, sees itself in a watch, takes a lock of the mesh, and leaves."""
    with registry_of(kit, "operator") as operator:
        operator.create_config(config())
    heard, views = Heard(), Heard()
    with registry_of(kit, "hosts/web1") as agent:
        may_write(agent, host(1), LEVEL)
        with pytest.raises(EtcdAuthError):
            may_write(agent, host(2), LEVEL)
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
                    host_name="web1",
                    docker_state=DockerState.PENDING,
                )
            )
            eventually(lambda: views.last and host(1) in views.last.heartbeats, timeout_s=20)
            # The heartbeat is written ahead of the lease.
            lease, conditions, _previous = eventually(lambda: heard.last, timeout_s=20)
            assert lease is not None
            assert conditions == ()
        finally:
            directory.stop()
            keeper.stop()
        locks = MeshLocks(agent.client, "/hostmesh", host(1), "web1")
        lock = locks.take("docker", 30)
        assert isinstance(lock, MeshLock)
        locks.give_back(lock)
        assert agent.release(host(1)) is not None
        agent.begin_grace(5)  # an alarm's: holders come back first (promise 4)
        assert agent.client.range(agent.keys.of(GRACE)).records


def test_a_host_writes_its_own_keys_and_no_others(kit: Kit) -> None:
    own, other = host(1), host(2)
    for key in (
        f"/hostmesh/hosts/{own}", f"/hostmesh/memory/{own}", f"/hostmesh/owners/{own}/10.64.0.0-16",
        f"/hostmesh/slices/{own}/web", f"/hostmesh/clones/{own}/192.0.2.2",
        "/hostmesh/subnets/10.64.0.0-16", "/hostmesh/turns/docker",
    ):  # fmt: skip
        for words in (["put", key, "x"], ["del", key]):
            done = kit.etcdctl(*words, who="hosts/web1")
            assert done.returncode == 0, (words, done.stderr)
    for words in (
        *(["put", f"/hostmesh/{kind}/{other}", "x"] for kind in ("hosts", "memory")),
        *(["del", f"/hostmesh/{kind}/{other}"] for kind in ("hosts", "memory")),
        *(["put", f"/hostmesh/{kind}/{other}/x", "x"] for kind in ("owners", "slices", "clones")),
        ["put", f"/hostmesh/hosts/{own}0", "x"],
        ["put", "/hostmesh/config", "{}"],
        ["put", "/hostmesh/reservations/10.64.0.0-16", "x"],
        ["del", "--prefix", "/hostmesh/"],
        ["put", "/other", "x"],
        ["get", "/other"],
        ["user", "list"],
    ):
        done = kit.etcdctl(*words, who="hosts/web1")
        assert "permission denied" in done.stderr, words


def test_a_host_may_write_the_config_where_the_operator_says_so(kit: Kit) -> None:
    assert kit.etcdctl("put", "/hostmesh/config", "{}", who="hosts/web2").returncode
    kit.run("--config", "add", "web2")
    try:
        value = kit.etcdctl("get", "--print-value-only", "/hostmesh/config", who="hosts/web2")
        assert not kit.etcdctl("put", "/hostmesh/config", value.stdout, who="hosts/web2").returncode
    finally:
        role = f"hostmesh-{host(2)}"
        kit.etcdctl("role", "revoke-permission", role, "/hostmesh/config", who="admin")


def test_the_operator_writes_the_mesh_and_nothing_else(kit: Kit) -> None:
    with registry_of(kit, "operator") as registry:
        reserve(registry, host(2), IPv4Network("10.65.0.0/16"))
    assert "permission denied" in kit.etcdctl("put", "/other", "x", who="operator").stderr
    assert "permission denied" in kit.etcdctl("user", "list", who="operator").stderr


def test_agentctl_changes_the_mesh_with_the_operators_file_and_names_it_without(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--settings", str(kit.agent_toml("hosts/web1")), "reserve", host(2), "10.66.0.0/16"]
    assert agentctl(words) == EtcdAuthError.exit_code
    assert "add --as-operator FILE" in capsys.readouterr().err
    agent_toml = str(kit.agent_toml("hosts/web1"))
    assert agentctl(["--as-operator", agent_toml, *words]) == EtcdAuthError.exit_code
    said = capsys.readouterr().err
    assert f"{agent_toml} names an account that may not write that" in said
    assert "add --as-operator" not in said
    assert agentctl(["--as-operator", str(kit.operator), *words]) == 0
    with registry_of(kit, "hosts/web1") as registry:
        assert IPv4Network("10.66.0.0/16") in registry.snapshot().reservations


def test_promise_11_a_network_is_the_operators_to_create_and_to_remove(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    host_says = ["--settings", str(kit.agent_toml("hosts/web1"))]
    operator_says = [*host_says, "--as-operator", str(kit.operator)]
    assert agentctl([*operator_says, "config", "set", "--level", "3"]) == 0
    assert agentctl([*host_says, "network", "create", "shop", "--dry-run"]) == 0
    for words in (["create", "shop"], ["rm", "shop"]):
        capsys.readouterr()
        assert agentctl([*host_says, "network", *words]) == EtcdAuthError.exit_code
        assert "add --as-operator FILE" in capsys.readouterr().err
        assert agentctl([*operator_says, "network", *words]) == 0
    with registry_of(kit, "hosts/web1") as registry:
        assert not registry.snapshot().networks


def test_nobody_gets_in_without_a_certificate_or_in_the_clear(kit: Kit) -> None:
    for settings in (
        EtcdSettings(endpoints=("https://127.0.0.11:2379",), ca_file=kit.folder / "ca.crt"),
        EtcdSettings(endpoints=("http://127.0.0.11:2379",)),
    ):
        with closing(EtcdClient(settings)) as client, pytest.raises(HostmeshError):
            client.range(b"/hostmesh/config")


def _speaks(kit: Kit, port: int, certificate: Path, ask: str) -> str:
    """Send one request of HTTP over TLS; returns the answer, "" when refused."""
    context = ssl.create_default_context(cafile=str(kit.folder / "ca.crt"))
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with (
        socket.create_connection(("127.0.0.11", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.11") as wrapped,
    ):
        try:
            wrapped.sendall(f"{ask} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            return wrapped.recv(4096).decode()
        except OSError:
            return ""


def test_a_hosts_certificate_does_not_open_the_port_of_the_members(kit: Kit) -> None:
    """There no account is asked for: who speaks there writes what it likes."""
    own, member = kit.folder / "hosts/web1/etcd.crt", kit.folder / "etcd2/server.crt"
    assert _speaks(kit, 2380, member, "GET /members").startswith("HTTP/1.1 200")
    assert _speaks(kit, 2380, own, "GET /members") == ""
    assert _speaks(kit, 2379, own, "GET /version").startswith("HTTP/1.1 200")


def test_the_gateway_where_certificates_are_no_accounts_is_closed(kit: Kit) -> None:
    own = kit.folder / "hosts/web1/etcd.crt"
    assert _speaks(kit, 2379, own, "POST /v3/kv/range").startswith("HTTP/1.1 404")


def test_adding_again_renews_and_revokes_nothing(kit: Kit, tmp_path: Path) -> None:
    own, previous = kit.folder / "hosts/web2", tmp_path / "previous"
    shutil.copytree(own, previous)
    shutil.copytree(own, kit.folder / "hosts-previous")
    kit.run("add", "web2")
    changed = {
        each.name
        for each in own.iterdir()
        if each.read_bytes() != (previous / each.name).read_bytes()
    }
    assert changed == {"etcd.crt"}
    for who in ("hosts/web2", "hosts-previous"):
        assert not kit.etcdctl("get", "/hostmesh/config", who=who).returncode
    assert "has the id" in kit.run("add", "web2", "--id", host(3), fails=True)
    assert "already" in kit.run("add", "web3", "--id", host(2), fails=True)
    assert "32 hexadecimal" in kit.run("add", "web3", fails=True)


def test_what_was_rotated_or_removed_is_refused_for_ever(kit: Kit) -> None:
    """A certificate is good for as long as its name is a user's: no name comes back."""
    kit.run("add", "web4", "--id", host(4))
    old: list[str] = []

    def keep() -> None:
        old.append(f"old{len(old)}")
        shutil.copytree(kit.folder / "hosts/web4", kit.folder / old[-1])

    for words in (["rotate", "web4"], ["rotate", "web4"], ["remove", "web4"]):
        keep()
        assert not kit.etcdctl("get", "/hostmesh/config", who=old[-1]).returncode
        kit.run(*words)
    kit.run("add", "web4", "--id", host(4))
    assert not kit.etcdctl("get", "/hostmesh/config", who="hosts/web4").returncode
    for who in old:
        refused = kit.etcdctl("get", "/hostmesh/config", who=who).stderr
        assert "permission denied" in refused or "user name not found" in refused, refused
    listed = kit.run("list")
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["web1", "web2", "web4"]
    assert all(line.endswith(" ok") for line in listed.splitlines()[1:])


def test_the_operators_and_the_kits_own_account_rotate(kit: Kit) -> None:
    shutil.copytree(kit.folder / "operator", kit.folder / "old-operator")
    shutil.copytree(kit.folder / "admin", kit.folder / "old-admin")
    for name in ("operator", "admin"):
        kit.run("rotate", name)
        assert kit.etcdctl("get", "/hostmesh/config", who=f"old-{name}").returncode
        assert not kit.etcdctl("get", "/hostmesh/config", who=name).returncode
    # Cut off between the two renames that exchange the kit's own folder.
    (kit.folder / "admin").rename(kit.folder / "admin.previous")
    kit.run("list")
    kit.run("rotate", "admin")
    assert not list(kit.folder.glob("admin.*"))


def test_secrets_are_private_and_on_no_command_line(kit: Kit) -> None:
    secrets = [*kit.folder.glob("**/*.key"), *kit.folder.glob("**/*password")]
    assert len(secrets) >= 9
    assert {path.stat().st_mode & 0o077 for path in secrets} == {0}
    assert list(kit.folder.glob(".new.*")) == []
    assert "etcdctl role grant-permission" in kit.calls()
    assert not any(path.read_text().strip() in kit.calls() for path in secrets)


def test_an_interruption_leaves_no_key_lying_about(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    (tmp_path / "programs/openssl").write_text("#!/bin/sh\nkill -TERM $PPID\nexit 1\n")
    kit.run("members", "etcd1=127.0.0.11", fails=True)
    assert list(kit.folder.iterdir()) == []


def test_an_account_keeps_its_prefix(tmp_path: Path) -> None:
    with Etcd() as etcd:
        kit = Kit(tmp_path, [etcd.endpoint])
        for words in (
            ("--password", "--prefix", "/second/", "add", "web1", "--id", host(1)),
            ("add", "web1"),
            ("rotate", "web1"),
        ):
            kit.run(*words)
            assert kit.settings("hosts/web1").prefix == "/second"
        assert "/hostmesh/" not in etcd.ctl("role", "get", f"hostmesh-{host(1)}")
        kit.run("--password", "--prefix", "/second", "enable")
        kit.run("rotate", "operator")
        assert kit.settings("operator").prefix == "/second"


def test_members_certificates_are_renewed_under_the_same_cas(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    names = ("ca.crt", "clients-ca.crt", "etcd1/server.crt")
    kit.run("members", "etcd1=127.0.0.11,one.example.com")
    before = [(kit.folder / name).read_bytes() for name in names]
    kit.run("members", "etcd1=127.0.0.11,one.example.com")
    after = [(kit.folder / name).read_bytes() for name in names]
    assert [new == old for new, old in zip(after, before, strict=True)] == [True, True, False]
    shown = subprocess.run(
        ["openssl", "x509", "-in", "etcd1/server.crt", "-noout", "-ext", "subjectAltName"],
        cwd=kit.folder,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "DNS:one.example.com" in shown
    assert "IP Address:127.0.0.11" in shown


def test_passwords_where_etcd_takes_no_certificate_for_an_account(tmp_path: Path) -> None:
    """Any etcd: here one in the clear, whose accounts are still asked for."""
    with Etcd() as etcd:
        kit = Kit(tmp_path, [etcd.endpoint])
        refused = kit.run("add", "web1", "--id", host(1), fails=True)
        assert "--password" in refused
        kit.run("--password", "add", "web1", "--id", host(1))
        kit.run("--password", "enable")
        with registry_of(kit, "operator") as operator:
            operator.create_config(config())
        before = kit.settings("hosts/web1")
        with closing(EtcdClient(before)) as client:
            client.range(b"/hostmesh/config")
            with pytest.raises(EtcdAuthError, match="permission denied"):
                client.range(b"/other")
        kit.run("rotate", "web1")
        with registry_of(kit, "hosts/web1") as agent:
            assert agent.has_config()
        assert kit.settings("hosts/web1").username != before.username
        kit.run("remove", "web1")
        secrets = [each.read_text().strip() for each in kit.folder.glob("**/etcd-password")]
        assert len(secrets) == 2
        assert not any(each in kit.calls() for each in secrets)
