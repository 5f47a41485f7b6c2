"""etcd found by DNS: a real name server (dnsmasq), real etcds, in the namespace of this folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.daemon.membership.endpoint_finder import EndpointFinder
from agent.daemon.state.events import ConditionsFound, Event
from agent.errors import EtcdUnavailable
from agent.etcd import discovery
from agent.etcd.client import EtcdClient
from agent.etcd.discovery import Discovery, Found, client_for, look_up
from agent.settings import AgentSettings, EtcdSettings, Settings, load_settings
from tests.etcd.support.etcdlab import Etcd, Heard
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

PLAIN, TLS = "_etcd-client._tcp.example.test", "_etcd-client-ssl._tcp.example.test"


class NameServer:
    """dnsmasq that answers for example.test only, and asks no other server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def serve(self, *records: str, refuse: bool = False) -> None:
        """Start anew with these records: "name,target,port,priority,weight"."""
        self.stop()
        conf = self._folder / "dnsmasq.conf"
        lines = [f"srv-host={record}" for record in records]
        lines += ["no-resolv", "no-hosts", "bind-interfaces", "listen-address=127.0.0.1", "user="]
        lines += ["local-ttl=1"] + ([] if refuse else ["local=/test/"])
        conf.write_text("\n".join(lines) + "\n")
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={conf}", "--pid-file="]
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )
        eventually(lambda: ":0035 " in Path("/proc/net/udp").read_text(), timeout_s=10)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(19)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the host's own files are: they name the server and the domain."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("nameserver 127.0.0.1\nsearch example.test\n")
    return tmp_path


@pytest.fixture
def dns(tmp_path: Path) -> Iterator[NameServer]:
    server = NameServer(tmp_path)
    try:
        yield server
    finally:
        server.stop()


def test_records_give_endpoints_in_the_order_of_their_priority(dns: NameServer, root: Path) -> None:
    dns.serve(f"{PLAIN},two.example.test,2390,20,0", f"{PLAIN},one.example.test,2379,10,0")
    found = look_up(EtcdSettings(), root)
    assert found.endpoints == ("http://one.example.test:2379", "http://two.example.test:2390")
    assert found.told_by == PLAIN


def test_tls_comes_first_and_a_ca_allows_nothing_else(dns: NameServer, root: Path) -> None:
    dns.serve(f"{PLAIN},one.example.test,2379", f"{TLS},one.example.test,2380")
    assert look_up(EtcdSettings(), root).endpoints == ("https://one.example.test:2380",)
    dns.serve(f"{PLAIN},one.example.test,2379")
    with pytest.raises(EtcdUnavailable, match=f"there is no {TLS} "):
        look_up(EtcdSettings(ca_file=root / "ca.pem"), root)


def test_a_server_that_does_not_answer_about_tls_makes_nobody_speak_in_the_clear(
    dns: NameServer, root: Path
) -> None:
    """Promise 8. dnsmasq refuses what it has no upstream for; the plain record is there."""
    dns.serve(f"{PLAIN},one.example.test,2379", refuse=True)
    with pytest.raises(EtcdUnavailable, match=TLS):
        look_up(EtcdSettings(), root)


def test_the_domain_is_the_hosts_own_before_the_resolvers(
    dns: NameServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns.serve(
        "_etcd-client._tcp.own.test,a.own.test,1",
        "_etcd-client._tcp.hosts.test,b.hosts.test,2",
        f"{PLAIN},c.example.test,3",
        "_etcd-client._tcp.set.test,d.set.test,4",
    )
    monkeypatch.setattr("socket.gethostname", lambda: "web1.own.test")
    assert look_up(EtcdSettings(), root).endpoints == ("http://a.own.test:1",)
    monkeypatch.setattr("socket.gethostname", lambda: "web1")
    (root / "etc/hosts").write_text("127.0.1.1 web1.hosts.test web1\n")
    assert look_up(EtcdSettings(), root).endpoints == ("http://b.hosts.test:2",)
    (root / "etc/hosts").write_text("127.0.1.1 web1\n")
    assert look_up(EtcdSettings(), root).endpoints == ("http://c.example.test:3",)
    assert look_up(EtcdSettings(domain="set.test"), root).endpoints == ("http://d.set.test:4",)


def test_no_record_and_no_domain_are_said(dns: NameServer, root: Path) -> None:
    dns.serve()
    with pytest.raises(EtcdUnavailable, match=f"there is no {TLS} and no {PLAIN}") as caught:
        look_up(EtcdSettings(domain="example.test"), root)
    assert "etcd.domain" in caught.value.hint
    (root / "etc/resolv.conf").unlink()
    with pytest.raises(EtcdUnavailable, match=r"resolv\.conf"):
        look_up(EtcdSettings(), root)


@pytest.mark.parametrize(
    "text",
    [
        b"nameserver ns1.example.test\nsearch example.test\n",
        b"nameserver 127.0.0.1\nsearch " + b"a" * 64 + b".test\n",
        b"nameserver 127.0.0.1\nsearch a..test\n",
        b"# caf\xe9\nnameserver 127.0.0.1\nsearch example.test\n",
    ],
)
def test_a_resolv_conf_that_is_not_usable_is_said(root: Path, text: bytes) -> None:
    """None of the agent's bugs: the thread goes on asking, and the lost contact says why."""
    (root / "etc/resolv.conf").write_bytes(text)
    with pytest.raises(EtcdUnavailable, match=r"etc/resolv\.conf: "):
        look_up(EtcdSettings(), root)


def test_a_silent_server_is_waited_for_within_bounds(
    dns: NameServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 10."""
    monkeypatch.setattr(discovery, "_LIFETIME_S", 1.0)
    dns.serve(f"{PLAIN},one.example.test,2379")
    dns.pause()
    started_s = time.monotonic()
    with pytest.raises(EtcdUnavailable, match="no etcd is known"):
        look_up(EtcdSettings(), root)
    assert time.monotonic() - started_s < 10


def test_hostile_records_are_not_used(dns: NameServer, root: Path) -> None:
    """Promise 8: a target is a host name, the port is a port, and there are not thousands."""
    bad = [f"{PLAIN},one.example.test,0", f"{PLAIN},a/b@c.example.test,2379"]
    many = [f"{PLAIN},h{number}.example.test,2379" for number in range(40)]
    dns.serve(*bad, *many)
    found = look_up(EtcdSettings(), root)
    assert len(found.endpoints) == 16
    assert all(url.startswith("http://h") for url in found.endpoints)
    dns.serve(*bad)
    with pytest.raises(EtcdUnavailable, match="names no usable host"):
        look_up(EtcdSettings(), root)


def test_a_client_for_one_run_finds_etcd_or_says_why(
    dns: NameServer, root: Path, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "look_up", lambda settings: look_up(settings, root))
    dns.serve(f"{PLAIN},localhost,{etcd.port}")
    client = client_for(Settings(etcd=EtcdSettings(domain="example.test")))
    try:
        assert client.range(b"/x").records == ()
        assert client.endpoints == (f"http://localhost:{etcd.port}",)
    finally:
        client.close()
    client = client_for(Settings(etcd=EtcdSettings(domain="elsewhere.test")))
    try:
        with pytest.raises(EtcdUnavailable, match=r"no _etcd-client\._tcp\.elsewhere\.test"):
            client.range(b"/x")
    finally:
        client.close()


def test_members_follow_the_records_and_survive_their_absence(
    dns: NameServer, root: Path, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New members are used without a restart; a name server that is gone takes nothing away."""
    monkeypatch.setattr(discovery, "_LEAST_REFRESH_S", 0.2)
    monkeypatch.setattr(discovery, "_LIFETIME_S", 0.5)
    heard = Heard()
    settings = EtcdSettings(call_timeout_s=5.0)
    client = EtcdClient(settings)

    def on_found(found: Found) -> None:
        client.use(found.endpoints)
        heard(found)

    asking = Discovery(settings, on_found, look=lambda each: look_up(each, root))
    dns.serve(f"{PLAIN},localhost,1")
    asking.start()
    try:
        with pytest.raises(EtcdUnavailable, match="localhost:1"):
            client.range(b"/x")
        dns.serve(f"{PLAIN},localhost,{etcd.port}")
        eventually(lambda: client.endpoints == (f"http://localhost:{etcd.port}",))
        assert client.range(b"/x").records == ()
        dns.stop()
        eventually(lambda: heard.last.unavailable is not None)
        assert heard.last.endpoints == (f"http://localhost:{etcd.port}",)
        assert client.range(b"/x").records == ()
    finally:
        asking.stop()
        client.close()


def test_a_call_waits_for_the_first_answer_instead_of_failing(etcd: Etcd) -> None:
    client = EtcdClient(EtcdSettings(call_timeout_s=10.0))

    def late(_settings: EtcdSettings) -> Found:
        time.sleep(0.3)
        return Found((etcd.endpoint,), told_by=PLAIN)

    asking = Discovery(client.settings, lambda found: client.use(found.endpoints), look=late)
    asking.start()
    try:
        assert client.range(b"/x").records == ()
    finally:
        asking.stop()
        client.close()


def test_the_agent_tells_who_named_etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://192.0.2.1:2379"
    file = tmp_path / "agent.toml"
    file.write_text(f'[etcd]\nendpoints = ["{url}"]\n')
    empty = tmp_path / "empty.toml"
    empty.write_text('[etcd]\ndomain = "example.test"\n')
    environ = MappingProxyType({"HOSTMESH_ETCD_ENDPOINTS": url})
    assert _document(load_settings(file)) == {
        "endpoints": [url], "source": "settings", "told_by": f"{file}:2",
    }  # fmt: skip
    assert _document(load_settings(empty, environ)) == {
        "endpoints": [url], "source": "environment",
        "told_by": "environment HOSTMESH_ETCD_ENDPOINTS",
    }  # fmt: skip
    answers = [Found((url,), told_by=PLAIN)]
    monkeypatch.setattr(discovery, "look_up", lambda _settings: answers[-1])
    posted: list[Event] = []
    finding = _endpoint_finder(load_settings(empty), posted)
    assert finding.document() == {"endpoints": [], "source": "dns", "told_by": None}
    finding._on_found(answers[0])
    assert finding.document() == {"endpoints": [url], "source": "dns", "told_by": PLAIN}
    assert str(finding.endpoint.now.address) == "192.0.2.1"


def test_a_name_server_that_fails_is_a_condition_and_a_repaired_one_is_not() -> None:
    """Promise 9."""
    posted: list[Event] = []
    settings = Settings(etcd=EtcdSettings(domain="example.test"))
    finding = _endpoint_finder(settings, posted)
    good = Found(("http://192.0.2.1:2379",), told_by=PLAIN)
    bad = Found(good.endpoints, told_by=PLAIN, unavailable=EtcdUnavailable("no answer"))
    raised = []
    for found in (good, bad, good):
        finding._on_found(found)
        heard = posted[-1]
        assert isinstance(heard, ConditionsFound)
        raised.append([each.name for each in heard.conditions])
    assert raised == [[], ["etcd-discovery-failed"], []]


def test_only_a_host_that_joined_before_looks_in_its_own_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11: on a new host no answer of DNS decides where root's agent finds its mesh."""
    settings = Settings(agent=AgentSettings(state_dir=tmp_path))
    asked: list[EtcdSettings] = []
    found = Found(("http://192.0.2.1:2379",), told_by=PLAIN)

    def look(each: EtcdSettings) -> Found:
        asked.append(each)
        return found

    monkeypatch.setattr(discovery, "look_up", look)
    client = client_for(settings)
    with pytest.raises(EtcdUnavailable, match=r"neither etcd\.endpoints nor etcd\.domain"):
        client.range(b"/x")
    posted: list[Event] = []
    finder = _endpoint_finder(settings, posted)
    finder.start()
    finder.stop()
    assert (asked, posted) == ([], [])
    settings.agent.mesh_copy.touch()
    assert client_for(settings).endpoints == found.endpoints
    finder = _endpoint_finder(settings, posted)
    finder._on_found(found)
    heard = posted[-1]
    assert isinstance(heard, ConditionsFound)
    assert [each.name for each in heard.conditions] == ["etcd-domain-unset"]
    assert 'domain = "example.test"' in heard.conditions[0].hint


def test_a_user_name_allows_no_record_without_tls(dns: NameServer, root: Path) -> None:
    dns.serve(f"{PLAIN},one.example.test,2379")
    with pytest.raises(EtcdUnavailable, match=f"there is no {TLS} "):
        look_up(EtcdSettings(username="mesh"), root)


def _endpoint_finder(settings: Settings, posted: list[Event]) -> EndpointFinder:
    return EndpointFinder(settings, client=EtcdClient(settings.etcd), post=posted.append)


def _document(settings: Settings) -> dict[str, object]:
    return dict(_endpoint_finder(settings, []).document())
