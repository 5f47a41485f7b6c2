"""Capture the packets that pass an interface: tcpdump on a machine of the lab.

tcpdump writes its binary format, which does not change from version to version as its text does.
"""

import contextlib
import re
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType

from hostmesh_lab import shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.wait import wait_until

ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 8, 11
ECHO_REQUEST6, ECHO_REPLY6 = 128, 129
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_ETHERNET = 14
_IPV6_HEADER = 40
_START_S = 15.0
_REPLY = re.compile(r"bytes from .*icmp_seq=(\d+)")


@dataclass(frozen=True)
class Packet:
    """An IP packet as it was on the wire. For UDP and TCP `ports` are set, for ICMP the rest.

    `ttl` is IPv6's hop limit, too. Extension headers of IPv6 are not read: `protocol` names the
    first.
    """

    time: float
    src_mac: str
    dst_mac: str
    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    ttl: int
    protocol: str
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None
    icmp_seq: int | None = None
    ports: tuple[int, int] | None = None


class PcapReader:
    """Takes tcpdump's output in pieces of any size and gives the packets that are complete."""

    def __init__(self) -> None:
        self._buffer = b""
        self._order = ""

    def feed(self, data: bytes) -> list[Packet]:
        """Add a piece; return the packets it completed, those of IP on Ethernet."""
        self._buffer += data
        if not self._order:
            if len(self._buffer) < 24:
                return []
            self._order = "<" if self._buffer[:4] == b"\xd4\xc3\xb2\xa1" else ">"
            self._buffer = self._buffer[24:]
        found = []
        while len(self._buffer) >= 16:
            seconds, micros, size, _ = struct.unpack(self._order + "IIII", self._buffer[:16])
            if len(self._buffer) < 16 + size:
                break
            packet = parse_frame(self._buffer[16 : 16 + size], seconds + micros / 1e6)
            self._buffer = self._buffer[16 + size :]
            if packet is not None:
                found.append(packet)
        return found


def parse_frame(frame: bytes, at: float) -> Packet | None:
    """Return an Ethernet frame as a packet, or None if it carries no whole IP header."""
    kind, header = frame[12:_ETHERNET], frame[_ETHERNET:]
    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    if kind == b"\x08\x00" and len(header) >= 20:
        src, dst = IPv4Address(header[12:16]), IPv4Address(header[16:20])
        ttl, number = header[8:10]
        payload = header[(header[0] & 15) * 4 :]
        first_fragment = struct.unpack("!H", header[6:8])[0] & 0x1FFF == 0
    elif kind == b"\x86\xdd" and len(header) >= _IPV6_HEADER:
        src, dst = IPv6Address(header[8:24]), IPv6Address(header[24:40])
        number, ttl = header[6:8]
        payload = header[_IPV6_HEADER:]
        first_fragment = True
    else:
        return None
    protocol = _PROTOCOLS.get(number, str(number))
    icmp: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None)
    ports = None
    if protocol in ("icmp", "icmp6") and first_fragment and len(payload) >= 8:
        identity, sequence = struct.unpack("!HH", payload[4:8])
        icmp = (payload[0], payload[1], identity, sequence)
    if protocol in ("tcp", "udp") and first_fragment and len(payload) >= 4:
        source, target = struct.unpack("!HH", payload[:4])
        ports = (source, target)
    macs = _mac(frame[6:12]), _mac(frame[:6])
    return Packet(at, *macs, src, dst, ttl, protocol, *icmp, ports)


def _mac(raw: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)


class Capture:
    """A running tcpdump. As a context manager it listens on entry and has ended on exit."""

    def __init__(self, machine: Machine, interface: str, pattern: str = "") -> None:
        self.machine = machine
        self.interface = interface
        self._pattern = pattern
        self._packets: list[Packet] = []
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> "Capture":
        """Start it and return when it listens."""
        argv = [
            "tcpdump",
            "-i",
            self.interface,
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            "200",
            "-w",
            "-",
        ]
        self._process = self.machine.popen([*argv, *self._pattern.split()])
        assert self._process.stderr is not None
        watchdog = threading.Timer(_START_S, shell.kill_session, [self._process])
        watchdog.start()
        said = b""
        for line in self._process.stderr:
            said += line
            if b"listening on" in line:
                break
        else:
            raise LabError(
                f"no capture on {self.machine.name} {self.interface}: {said.decode().strip()}"
            )
        watchdog.cancel()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        reader = PcapReader()
        with contextlib.suppress(ValueError, OSError):
            while data := process.stdout.read1(65536):  # type: ignore[attr-defined]
                packets = reader.feed(data)
                with self._lock:
                    self._packets += packets

    def packets(self, wanted: Callable[[Packet], bool] = lambda _: True) -> list[Packet]:
        """Packets seen so far, in order."""
        with self._lock:
            return [packet for packet in self._packets if wanted(packet)]

    def wait_for(self, wanted: Callable[[Packet], bool], timeout_s: float, what: str) -> Packet:
        """Return the first packet of a kind, waiting for it if need be."""
        where = f"{what} on {self.machine.name} {self.interface}"
        return wait_until(lambda: self.packets(wanted), timeout_s, where, every_s=0.02)[0]

    def stop(self) -> list[Packet]:
        """End it and return all it saw."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            shell.kill_session(self._process)
            self._process = None
        if self._reader is not None:
            self._reader.join(timeout=5)
        return self.packets()

    def __enter__(self) -> "Capture":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _container_namespace(machine: Machine, container: str) -> str:
    shown = machine.run(["docker", "inspect", "--format", "{{.State.Pid}}", container])
    return f"/proc/{shown.stdout.strip()}/ns/net"


class Pinger:
    """A ping that runs on: when does an address first answer, is any answer missed?"""

    def __init__(
        self, machine: Machine, target: object, *, container: str = "", every_s: float = 0.1
    ) -> None:
        # In a container's network namespace, but a process of the host's: `docker exec` would leave
        # the ping running in the container when it is ended.
        inside = (
            ["nsenter", "--net=" + _container_namespace(machine, container)] if container else []
        )
        ping = ["ping", "-n", "-O", "-i", f"{every_s:g}", str(target)]
        self.started = time.monotonic()
        self._process = machine.popen([*inside, *ping])
        self.replies: list[tuple[float, int]] = []
        self.other: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for raw in self._process.stdout:
                line = raw.decode(errors="replace").strip()
                match = _REPLY.search(line)
                if match:
                    self.replies.append((time.monotonic(), int(match[1])))
                else:
                    self.other.append(line)

    def missed(self) -> list[int]:
        """Sequence numbers between the first and the last reply that were never answered."""
        seen = {number for _, number in self.replies}
        return [n for n in range(min(seen), max(seen) + 1) if n not in seen] if seen else []

    def wait_reply(self, timeout_s: float, what: str) -> float:
        """Return when the first reply came, as a monotonic time."""
        return wait_until(lambda: self.replies, timeout_s, f"a reply to {what}", every_s=0.02)[0][0]

    def stop(self) -> None:
        """End it."""
        shell.kill_session(self._process)
        self._thread.join(timeout=5)
