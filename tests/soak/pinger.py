"""Ping addresses from the network namespace of a container, and print each echo that is lost.

Runs on a lab's host with its own Python: `python3 -I -c SOURCE EVERY_S`. Each line on standard
input is a JSON object of addresses by name, which takes the place of the one before. Prints JSON
lines: `{"lost": [NAME, NUMBER, SENT_S]}`, and a few times a second `{"seen": {NAME: [SENT,
ANSWERED, LAST_ANSWER_S]}}`. Times are the machine's monotonic seconds, equal in all namespaces.
Ends when standard input does, after the last echoes were answered or are late.
"""

import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

LATE_S = 5.0
_REPORT_S = 0.25


class Pinger:
    """Sends numbered echoes to all targets at once, and waits for their answers."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._identifier = os.getpid() & 0xFFFF
        self._targets: dict[str, str] = {}
        self._waiting: dict[int, tuple[str, float]] = {}  # by number, in the order of sending
        self._seen: dict[str, list[float]] = {}
        self._number = 0
        self._line = b""
        self._open = True

    def run(self) -> None:
        """Go on until standard input ends."""
        send_s = report_s = time.monotonic()
        while self._open or self._waiting:
            now_s = time.monotonic()
            if now_s >= send_s:
                self._send(now_s)
                send_s = max(send_s + self._every_s, now_s)
            if now_s >= report_s:
                self._report(now_s)
                report_s = now_s + _REPORT_S
            wait_s = max(0.0, min(send_s, report_s) - time.monotonic())
            inputs: list[Any] = [self._socket, *([sys.stdin] if self._open else [])]
            ready, _, _ = select.select(inputs, [], [], wait_s)
            if self._socket in ready:
                self._receive()
            if sys.stdin in ready:
                self._read_targets()
        self._report(time.monotonic())

    def _send(self, now_s: float) -> None:
        for name, address in self._targets.items():
            self._number += 1
            body = struct.pack("!HHQ", self._identifier, self._number & 0xFFFF, self._number)
            packet = struct.pack("!BBH", 8, 0, _checksum(struct.pack("!BBH", 8, 0, 0) + body))
            self._waiting[self._number] = (name, now_s)
            self._seen.setdefault(name, [0, 0, 0.0])[0] += 1
            try:
                self._socket.sendto(packet + body, (address, 0))
            except OSError:
                continue  # lost like any other: it is late after LATE_S

    def _receive(self) -> None:
        while True:
            try:
                packet = self._socket.recv(2048)
            except OSError:  # nothing more, or an ICMP error that the kernel reports here
                return
            body = packet[(packet[0] & 0xF) * 4 :]
            if len(body) < 16 or body[0] != 0:
                continue
            identifier, _, number = struct.unpack_from("!HHQ", body, 4)
            if identifier == self._identifier and number in self._waiting:
                name, _ = self._waiting.pop(number)
                seen = self._seen[name]
                seen[1], seen[2] = seen[1] + 1, time.monotonic()

    def _report(self, now_s: float) -> None:
        for number, (name, sent_s) in list(self._waiting.items()):
            if now_s - sent_s < LATE_S:
                break
            del self._waiting[number]
            print(json.dumps({"lost": [name, number, sent_s]}))
        print(json.dumps({"seen": self._seen}), flush=True)

    def _read_targets(self) -> None:
        data = os.read(sys.stdin.fileno(), 65536)
        self._open = bool(data)
        *lines, self._line = (self._line + data).split(b"\n")
        if not self._open:
            self._targets = {}
        elif lines:
            self._targets = json.loads(lines[-1])


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


if __name__ == "__main__":
    Pinger(float(sys.argv[1])).run()
