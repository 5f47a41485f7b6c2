"""Network namespaces for tests: hosts on a LAN, made in a few milliseconds and gone without trace.

A namespace belongs to a thread (unshare(2)), so each :class:`Host` is one thread that has left
the machine's namespace; whatever is called through it happens there: sockets, subprocesses,
/proc/sys. Nothing has a name in the file system, so a killed test run leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_CALL_TIMEOUT_S = 120


def _unshare() -> None:
    if _LIBC.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Host:
    """One network namespace. Call things in it with :meth:`call`, ``ip`` with :meth:`ip`."""

    def __init__(self, name: str = "host") -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"ns-{name}", initializer=_unshare)
        self.thread_id = self.call(threading.get_native_id)
        self.ip("link set lo up")

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it in this namespace and return its result, or raise what it raised."""
        return self._pool.submit(function, *args, **kwargs).result(timeout=_CALL_TIMEOUT_S)

    def ip(self, command: str, *, check: bool = True) -> str:
        """``ip COMMAND`` in this namespace; its output."""
        done = self.call(
            subprocess.run,
            ["ip", *command.split()],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: ip {command}: {done.stderr.strip()}")
        return str(done.stdout)

    def batch(self, lines: list[str]) -> None:
        """``ip -batch`` of many commands."""
        self.call(
            subprocess.run,
            ["ip", "-force", "-batch", "-"],
            input="\n".join(lines) + "\n",
            check=True,
            capture_output=True,
            text=True,
            timeout=_CALL_TIMEOUT_S,
        )

    def popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process in this namespace, its output to be read."""

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdout=subprocess.PIPE)

        return self.call(start)

    def thread(self, target: Callable[[], None]) -> threading.Thread:
        """Start a thread in this namespace: a new one inherits its creator's."""

        def start() -> threading.Thread:
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            return thread

        return self.call(start)

    def close(self) -> None:
        """End the thread; the kernel ends the namespace when its last user is gone."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Lan:
    """Hosts on one link: a bridge in a namespace of its own."""

    def __init__(self) -> None:
        self.switch = Host("switch")
        self.hosts: list[Host] = []
        self.switch.ip("link add br0 type bridge")
        self.switch.ip("link set br0 up")

    def add(self, address: str, link: str = "eth0") -> Host:
        """A host with this address (and prefix length) on the link."""
        host = Host(f"host{len(self.hosts) + 1}")
        self.hosts.append(host)
        self.plug(host, link)
        host.ip(f"addr add {address} dev {link}")
        return host

    def plug(self, host: Host, link: str = "eth0") -> None:
        """Give ``host`` an interface on this link."""
        port = f"p{self.hosts.index(host) if host in self.hosts else 99}-{link}"
        self.switch.ip(f"link del {port}", check=False)
        self.switch.ip(f"link add {port} type veth peer name {link} netns {host.thread_id}")
        self.switch.ip(f"link set {port} master br0 up")
        host.ip(f"link set {link} up")

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.switch.close()


@dataclass
class Pings:
    """The replies that a continuous ping saw.

    Attributes:
        lost: Sequence numbers without an answer, and when they were sent (monotonic seconds).
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: list[tuple[int, float]] = field(default_factory=list)


_pingers = itertools.count()


class Pinger:
    """ICMP echo requests without a pause from one host, as ``ping -i`` would send them."""

    def __init__(self, host: Host, target: str, interval_s: float = 0.005) -> None:
        self._target = target
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._sent: dict[int, float] = {}
        self._answered: set[int] = set()
        self._refused = 0
        # Each socket of a host reads the answers to all of them: they must differ.
        self._identifier = (os.getpid() + next(_pingers)) & 0xFFFF
        self._socket: socket.socket = host.call(
            socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
        )
        self._socket.settimeout(0.2)
        self._threads = [host.thread(self._send), host.thread(self._receive)]

    def _send(self) -> None:
        number = 0
        while not self._stop.is_set():
            body = struct.pack("!HHI", self._identifier, number & 0xFFFF, number)
            checksum = _checksum(struct.pack("!BBH", 8, 0, 0) + body)
            self._sent[number] = time.monotonic()
            try:
                self._socket.sendto(struct.pack("!BBH", 8, 0, checksum) + body, (self._target, 0))
            except OSError:
                self._refused += 1
            number += 1
            time.sleep(self._interval_s)

    def _receive(self) -> None:
        """Read until half a second of silence after the stop; a busy machine may lag behind."""
        stopped_s: float | None = None
        while stopped_s is None or time.monotonic() < stopped_s + 5:
            if self._stop.is_set() and stopped_s is None:
                stopped_s = time.monotonic()
                self._socket.settimeout(0.5)
            try:
                packet = self._socket.recv(2048)
            except TimeoutError:
                if stopped_s is not None:
                    return
                continue
            body = packet[(packet[0] & 0xF) * 4 :]
            if body[0] == 0 and struct.unpack_from("!H", body, 4)[0] == self._identifier:
                self._answered.add(struct.unpack_from("!I", body, 8)[0])

    @property
    def sent(self) -> int:
        """How many were sent so far."""
        return len(self._sent)

    def stop(self) -> Pings:
        """End it, wait for late answers, and tell."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._socket.close()
        lost = [(n, at) for n, at in sorted(self._sent.items()) if n not in self._answered]
        return Pings(len(self._sent), len(self._answered), self._refused, lost)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def drop_net_admin() -> None:
    """Take CAP_NET_ADMIN from the calling thread for good (capset(2), version 3)."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    if _LIBC.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets = list(struct.unpack("=6I", data.raw))
    for place in range(3):
        sets[place] &= ~(1 << 12)
    if _LIBC.capset(header, struct.pack("=6I", *sets)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
