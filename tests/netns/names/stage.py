"""A host with two Docker-like bridges, containers, upstreams and the real name servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode

from agent.disk import replace_file
from agent.dns.snapshot import LOCAL_FILE, encode_host, encode_local, host_file
from agent.model import HostId
from agent.model.names import (
    NAME_SERVERS,
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)
from tests.netns.netlab import Host
from tests.waiting import eventually

CLONE = Path(__file__).parents[3]
UPSTREAM = CLONE / "tests/lab/hostmesh_lab/guest/dns_server.py"
LOAD = UPSTREAM.with_name("dns_load.py")
HERE, THERE = HostId("a" * 32), HostId("b" * 32)
DOMAIN = "hostmesh.internal"
_BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
BOOT_ID = _BOOT_FILE.read_text(encoding="ascii").strip().replace("-", "")
FIRST, SECOND = map(str, NAME_SERVERS)
_IP_PKTINFO = 8
_AS_SYSTEMD = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(sys.executable, [sys.executable, "-B", "-m", "agent.dns.main", *sys.argv[1:]])
"""
NETWORKS = (
    LocalNetwork(name="bridge", bridge="docker0", subnets=(IPv4Network("10.64.0.0/24"),)),
    LocalNetwork(
        name="web",
        bridge="hm-0123456789",
        subnets=(IPv4Network("10.64.1.0/24"),),
        mesh_network="web",
    ),
)
LOCAL = LocalNames(
    domain=DOMAIN,
    host_id=HERE,
    boot_id=BOOT_ID,
    serial=1,
    complete=True,
    ranges=(IPv4Network("10.64.0.0/10"),),
    networks=NETWORKS,
)


def in_web(address: str, *names: str, healthy: bool = True) -> NamedAddress:
    """Return an address of another host in mesh network web."""
    return NamedAddress(
        address=IPv4Address(address),
        names=(
            *(Name(f"{each}.web", NameKind.NETWORK) for each in names),
            *(Name(each, NameKind.PLAIN) for each in names),
        ),
        network="web",
        mesh_network="web",
        healthy=healthy,
        pointer=f"{names[0]}.web",
    )


@dataclass
class Upstream:
    """A real name server of the lab, on an address of the host's lo."""

    host: Host
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    failing: dict[str, str] = field(default_factory=dict)

    @property
    def zone(self) -> Path:
        return self.folder / f"zone-{self.address}.json"

    def start(self) -> None:
        self.write()
        argv = [sys.executable, "-I", "-B", str(UPSTREAM), str(self.zone), self.address]
        self.process = self.host.call(
            subprocess.Popen, argv, stdout=(self.folder / f"log-{self.address}").open("ab")
        )
        eventually(lambda: self.host.call(_accepts, self.address), 20)

    def write(self) -> None:
        records = {
            "world.example": [["A", "203.0.113.7", 60]],
            "large.example": [["TXT", f"{n:03d} {'x' * 60}", 60] for n in range(40)],
            "whoami.example": [["TXT", self.address, 60]],
        }
        text = json.dumps({"records": records, "failing": self.failing})
        replace_file(self.zone, [text.encode()], 0o644)

    def fail(self, **names: str) -> None:
        """Fail every name in a way (``every="SERVFAIL"``), or none."""
        self.failing = {"*" if name == "every" else name: how for name, how in names.items()}
        self.write()

    def asked(self) -> int:
        return (self.folder / f"log-{self.address}").read_bytes().count(b"world.example")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def go_on(self) -> None:
        """Run again, whatever a test that failed has left."""
        if self.process is None:
            self.start()
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Stage:
    """The host, one container on each bridge, a machine on its LAN, and the servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host("host")
        for address in ("169.254.20.53/32", "169.254.20.54/32", "127.0.0.2/8", "127.0.0.3/8"):
            self.host.ip(f"addr replace {address} dev lo")
        self.plain = self._container("docker0", "10.64.0")
        self.web = self._container("hm-0123456789", "10.64.1")
        self.stranger = Host("stranger")
        self.host.ip(f"link add eth0 type veth peer name eth0 netns {self.stranger.thread_id}")
        self.host.ip("addr add 192.0.2.1/24 dev eth0")
        self.host.ip("link set eth0 up")
        self.stranger.batch(
            [
                "addr add 192.0.2.9/24 dev eth0",
                "link set eth0 up",
                "route add default via 192.0.2.1",
            ]
        )
        self.names = folder / "names"
        self.names.mkdir()
        self.resolv_conf = folder / "resolv.conf"
        self.upstreams = [Upstream(self.host, f"127.0.0.{n}", folder) for n in (2, 3)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.sockets: dict[str, tuple[socket.socket, socket.socket]] = {}

    def _container(self, bridge: str, prefix: str) -> Host:
        made = Host(bridge)
        self.host.ip(f"link add {bridge} type bridge")
        self.host.ip(f"addr add {prefix}.1/24 dev {bridge}")
        self.host.ip(f"link add v-{bridge[:8]} type veth peer name eth0 netns {made.thread_id}")
        self.host.ip(f"link set v-{bridge[:8]} master {bridge} up")
        self.host.ip(f"link set {bridge} up")
        made.batch(
            [
                f"addr add {prefix}.2/24 dev eth0",
                "link set eth0 up",
                f"route add default via {prefix}.1",
            ]
        )
        return made

    # -- the agent's part

    def write_local(self, **changes: Any) -> None:  # noqa: ANN401 - of LocalNames
        self.put(LOCAL_FILE, encode_local(replace(LOCAL, **changes)))

    def write_host(self, *addresses: NamedAddress, host_id: HostId = THERE) -> None:
        content = encode_host(HostNames(host_id=host_id, addresses=addresses))
        self.put(host_file(self.names, host_id).name, content)

    def put(self, name: str, content: bytes) -> None:
        replace_file(self.names / name, [content], 0o644)

    def confirmed_ago(self, seconds: float) -> None:
        at = time.time() - seconds
        os.utime(self.names / LOCAL_FILE, (at, at))

    # -- the servers

    def set_upstreams(self, *addresses: str) -> None:
        replace_file(
            self.resolv_conf, [f"nameserver {each}\n".encode() for each in addresses], 0o644
        )

    def serve(self, address: str = FIRST) -> None:
        """Start a server on the address, whose sockets are kept as systemd keeps them."""
        if address not in self.sockets:
            self.sockets[address] = self.host.call(_listen, address)
        argv = [sys.executable, "-B", "-c", _AS_SYSTEMD, "--listen", address]
        argv += ["--snapshot", str(self.names), "--status", str(self.folder)]
        argv += ["--resolv-conf", str(self.resolv_conf)]
        log = (self.folder / f"server-{address}.log").open("ab")

        def hand_over() -> None:
            for number, each in enumerate(self.sockets[address], 3):
                os.dup2(each.fileno(), number)

        self.processes[address] = self.host.call(
            subprocess.Popen,
            argv,
            stdout=log,
            stderr=log,
            cwd=CLONE,
            pass_fds=(3, 4),
            preexec_fn=hand_over,
        )

    def kill(self, address: str) -> None:
        process = self.processes.pop(address)
        process.kill()
        process.wait()

    def status(self, address: str = FIRST) -> Mapping[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{address}.json").read_text())
        return found

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        for upstream in self.upstreams:
            upstream.stop()
        for pair in self.sockets.values():
            for kept in pair:
                kept.close()
        for each in (self.plain, self.web, self.stranger, self.host):
            each.close()

    # -- clients

    def ask(
        self,
        asker: Host,
        name: str,
        kind: str = "A",
        *,
        server: str = FIRST,
        tcp: bool = False,
        timeout_s: float = 8.0,
        **options: Any,  # noqa: ANN401 - of make_query
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        call = dns.query.tcp if tcp else dns.query.udp
        return asker.call(call, query, server, timeout=timeout_s)

    def addresses(self, asker: Host, name: str, **options: Any) -> list[str]:  # noqa: ANN401 - of ask
        return sorted(answers(self.ask(asker, name, **options)))


def answers(message: dns.message.Message) -> list[str]:
    """Return the data of all records of an answer."""
    return [str(each) for rrset in message.answer for each in rrset]


def code(message: dns.message.Message) -> str:
    return dns.rcode.to_text(message.rcode())


def _listen(address: str) -> tuple[socket.socket, socket.socket]:
    """Open what systemd/hostmesh-dns-53.socket has systemd open, as it says."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    udp.bind((address, 53))
    return udp, socket.create_server((address, 53))


def _accepts(address: str) -> bool:
    try:
        with socket.create_connection((address, 53), timeout=1):
            return True
    except OSError:
        return False


class Load:
    """A resolver with two servers that asks a hundred times a second (the lab's dns_load.py)."""

    def __init__(self, asker: Host, name: str, servers: Sequence[str]) -> None:
        argv = [sys.executable, "-I", str(LOAD), name, *servers]
        self._process: subprocess.Popen[bytes] = asker.call(
            subprocess.Popen, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.wait_asked()

    def wait_asked(self) -> None:
        """Wait until fifty more queries were sent."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"asking\n"

    def end(self) -> dict[str, Any]:
        """Return what it counted."""
        said, _ = self._process.communicate(timeout=60)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found
