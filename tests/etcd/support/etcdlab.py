"""Real etcd servers for tests, from Debian's packages, without installing anything."""

# ruff: noqa: ANN401  # keyword arguments are handed on as they are

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Self

from agent.errors import EtcdUnavailable
from agent.etcd.client import EtcdClient
from agent.model import HostId, Lease, MeshConfig
from agent.registry.own.identity import host_id
from agent.registry.registry import ClaimRequest, Registry
from agent.settings import EtcdSettings
from tests.debian import CACHE, download
from tests.waiting import eventually

_ports = itertools.count(20_000, 2)


def binaries() -> Path:
    """Return the folder with ``etcd`` and ``etcdctl``: this machine's Debian's, cached.

    HOSTMESH_TEST_ETCD names another folder, for another version: that of a lab image.
    """
    if given := os.environ.get("HOSTMESH_TEST_ETCD"):
        return Path(given)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "etcd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = sorted(CACHE.glob("etcd-[0-9]*/usr/bin/etcd"))
        if not ready:
            ready = [_download()]
        return ready[-1].parent


def _download() -> Path:
    work = Path(tempfile.mkdtemp(prefix="etcd-new-", dir=CACHE))
    try:
        download(["etcd-server", "etcd-client"], work)
        shown = subprocess.run(
            [work / "usr/bin/etcd", "--version"], check=True, capture_output=True, text=True
        ).stdout
        version = shown.split()[2]
        target = CACHE / f"etcd-{version}"
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return target / "usr/bin/etcd"


class Wire:
    """A network namespace with one cable to a bridge in the tests' own namespace.

    Args:
        number: Of its address, 198.51.100.NUMBER; the tests have .1.
    """

    _BRIDGE = "br-etcd"

    def __init__(self, number: int) -> None:
        self.address = f"198.51.100.{number}"
        self._link = f"cable{number}"
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if f" {self._BRIDGE}:" not in _links():  # /sys shows the namespace that mounted it
            _ip(f"link add {self._BRIDGE} type bridge")
            _ip(f"address add 198.51.100.1/24 dev {self._BRIDGE}")
            _ip(f"link set {self._BRIDGE} up")
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
        own = Path("/proc/self/ns/net").readlink()
        place = Path(f"/proc/{self._holder.pid}/ns/net")
        eventually(lambda: place.readlink() != own)
        _ip(f"link add {self._link} type veth peer name eth0 netns {self._holder.pid}")
        self.mend()
        for command in (f"address add {self.address}/24 dev eth0", "link set eth0 up"):
            _ip(command, self.enter)
        _ip("link set lo up", self.enter)
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait(10)
        with contextlib.suppress(subprocess.CalledProcessError):  # it went with the namespace
            _ip(f"link del {self._link}")
        if f"master {self._BRIDGE} " not in _links():
            _ip(f"link del {self._BRIDGE}")

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs at the other end."""
        assert self._holder is not None
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def pull(self) -> None:
        """The other end loses its carrier; here nothing is to be seen but silence."""
        _ip(f"link set {self._link} down")

    def silence(self) -> None:
        """Both ends look well and nothing passes: a switch that drops."""
        _ip(f"link set {self._link} nomaster")

    def forbid(self, address: str) -> None:
        """Let nothing from or to one other address pass at the other end."""
        for chain, flag in (("INPUT", "-s"), ("OUTPUT", "-d")):
            rule = ["iptables", "-w", "-A", chain, flag, address, "-j", "DROP"]
            subprocess.run([*self.enter, *rule], check=True, capture_output=True)

    def mend(self) -> None:
        """All well again."""
        _ip(f"link set {self._link} master {self._BRIDGE} up")

    def own_link(self, state: str) -> None:
        """The link of this end, that all cables share: "up" or "down"."""
        _ip(f"link set {self._BRIDGE} {state}")


def _links() -> str:
    return subprocess.run(["ip", "link"], check=True, capture_output=True, text=True).stdout


def _ip(command: str, enter: Sequence[str] = ()) -> None:
    subprocess.run([*enter, "ip", *command.split()], check=True, capture_output=True)


class Etcd:
    """One etcd process with its data in memory.

    Args:
        name: Of the member.
        peers: Name to address and port for peers, of all members; None: a cluster of one.
        arguments: More of etcd's flags.
        port: To listen on; chosen when None.
        wire: Its own network namespace at the end of a cable; None: on loopback here.
    """

    def __init__(
        self,
        *,
        name: str = "one",
        peers: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        port: int | None = None,
        scheme: str = "http",
        wire: Wire | None = None,
    ) -> None:
        self.name = name
        self.port = port or next(_ports)
        self.scheme = scheme
        self.wire = wire
        self.address = wire.address if wire else "127.0.0.1"
        self.peers = dict(peers or {name: f"{self.address}:{self.port + 1}"})
        self.arguments = list(arguments)
        self.folder = Path(tempfile.mkdtemp(prefix="etcd-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://{self.address}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        self.wait_healthy()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        peer = f"http://{self.peers[self.name]}"
        cluster = ",".join(f"{name}=http://{place}" for name, place in self.peers.items())
        command = [*self._enter(), str(binaries() / "etcd"), "--name", self.name]
        command += ["--data-dir", str(self.folder / "data")]
        command += ["--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", cluster, "--log-level", "error", "--logger", "zap"]
        command += ["--heartbeat-interval", "50", "--election-timeout", "500", *self.arguments]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

    def wait_healthy(self, *clients: EtcdClient, timeout_s: float = 20.0) -> None:
        """Wait until etcd answers, and these clients, whose connections its absence ended."""
        eventually(lambda: self.ctl("endpoint", "health", check=False), timeout_s=timeout_s)
        for client in clients:
            eventually(partial(_answers, client), timeout_s=timeout_s)

    def ctl(self, *arguments: str, check: bool = True, flags: Sequence[str] = ()) -> str:
        """Run etcdctl against this member; returns its output, "" when it failed."""
        result = subprocess.run(
            [
                *self._enter(),
                *(binaries() / "etcdctl", "--endpoints", self.endpoint),
                *(*flags, *arguments),
            ],
            env={**os.environ, "ETCDCTL_API": "3"},
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
        if check and result.returncode:
            raise AssertionError(f"etcdctl {arguments}: {result.stderr}")
        return result.stdout or (result.stderr if result.returncode == 0 else "")

    def put(self, key: str, value: str) -> None:
        self.ctl("put", key, value)

    def pause(self) -> None:
        """Returns when every thread has stopped: one that runs would answer once more."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        pid = self._process.pid
        eventually(lambda: os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG), timeout_s=10)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def wipe(self) -> None:
        """Lose all data, as when a server is replaced by a new one. Stopped only."""
        shutil.rmtree(self.folder / "data")

    def _enter(self) -> list[str]:
        return self.wire.enter if self.wire else []

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _answers(client: EtcdClient) -> bool:
    try:
        client.range(b"/")
    except EtcdUnavailable:
        return False
    return True


@contextlib.contextmanager
def cluster(size: int = 3, arguments: Sequence[str] = ()) -> Iterator[list[Etcd]]:
    """Several members."""
    ports = [next(_ports) for _ in range(size)]
    peers = {f"m{index}": f"127.0.0.1:{port + 1}" for index, port in enumerate(ports)}
    members = [
        Etcd(name=name, peers=peers, port=port, arguments=arguments)
        for name, port in zip(peers, ports, strict=True)
    ]
    with _running(members):
        yield members


@contextlib.contextmanager
def wired_cluster(size: int = 3) -> Iterator[list[Etcd]]:
    """Several members, each at the end of a cable of its own."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(number)) for number in range(2, 2 + size)]
        ports = [next(_ports) for _ in wires]
        peers = {
            f"m{index}": f"{wire.address}:{port + 1}"
            for index, (wire, port) in enumerate(zip(wires, ports, strict=True))
        }
        members = [
            Etcd(name=name, peers=peers, port=port, wire=wire)
            for name, port, wire in zip(peers, ports, wires, strict=True)
        ]
        with _running(members):
            yield members


@contextlib.contextmanager
def _running(members: Sequence[Etcd]) -> Iterator[None]:
    try:
        for member in members:
            member.start()
        for member in members:
            member.wait_healthy()
        yield
    finally:
        for member in members:
            member.__exit__()


def leader_of(members: Sequence[Etcd]) -> Etcd:
    """The member that leads."""
    for member in members:
        text = member.ctl("endpoint", "status", check=False)
        if text and text.split(",")[4].strip() == "true":
            return member
    raise AssertionError("no leader")


def settings(*etcds: Etcd, **more: Any) -> EtcdSettings:
    return EtcdSettings(endpoints=tuple(each.endpoint for each in etcds), **more)


@contextlib.contextmanager
def registry(*etcds: Etcd, prefix: str = "/hostmesh", **more: Any) -> Iterator[Registry]:
    """A registry with a client of its own."""
    client = EtcdClient(settings(*etcds, **more))
    try:
        yield Registry(client, prefix)
    finally:
        client.close()


def config(cidr: str = "10.64.0.0/10", subnet_len: int = 16) -> MeshConfig:
    network = IPv4Network(cidr)
    size = 1 << (32 - subnet_len)
    return MeshConfig(
        cidr=network,
        subnet_len=subnet_len,
        subnet_min=network.network_address,
        subnet_max=IPv4Address(int(network.broadcast_address) - size + 1),
    )


def host(number: int) -> HostId:
    return host_id(f"{number + 1:032x}")


def request(number: int, **more: Any) -> ClaimRequest:
    return ClaimRequest(
        host_id=host(number),
        host_name=f"host{number}",
        node_address=IPv4Address("192.0.2.0") + number + 1,
        boot_id=f"{number:032x}",
        **more,
    )


def renew(mesh: Registry, lease: Lease, **more: Any) -> Lease:
    """Renew ``lease`` as it is, but for what is named."""
    request = ClaimRequest(
        host_id=lease.host_id or HostId(""),
        host_name=more.pop("host_name", lease.host_name),
        node_address=more.pop("node_address", lease.node_address),
        published=lease.published,
        ttl_s=more.pop("ttl_s", lease.ttl_s),
        **more,
    )
    return mesh.renew(lease, request, remember=bool(request.memory_ttl_s))


@dataclass
class Heard:
    """Collects what a thread calls back with."""

    items: list[Any] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, *arguments: Any) -> None:
        with self._lock:
            self.items.append(arguments[0] if len(arguments) == 1 else arguments)
            self.times_s.append(time.monotonic())

    @property
    def last(self) -> Any:
        with self._lock:
            return self.items[-1] if self.items else None

    def __len__(self) -> int:
        return len(self.items)
