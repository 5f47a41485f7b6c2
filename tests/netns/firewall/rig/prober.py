"""Runs in a network namespace of a test: serves TCP, UDP and ICMP there and probes others.

One JSON request per line on standard input, one JSON answer per line on standard output, in
any order, matched by "id". A served port answers with the source address it saw.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

PORTS = tuple(map(int, sys.argv[1:])) or (80, 81)
_SAY = threading.Lock()
_SEEN: set[tuple[str, str]] = set()


def say(answer: dict[str, Any]) -> None:
    with _SAY:
        print(json.dumps(answer), flush=True)


def serve_tcp(port: int) -> None:
    listener = socket.create_server(("0.0.0.0", port), backlog=64)  # noqa: S104
    while True:
        connection, (source, _) = listener.accept()
        _SEEN.add(("tcp", source))
        with connection, contextlib.suppress(OSError):
            connection.sendall(source.encode())


def serve_udp(port: int) -> None:
    served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    served.bind(("0.0.0.0", port))  # noqa: S104
    served.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answer from the address asked
    while True:
        _, ancillary, _, source = served.recvmsg(512, 64)
        _SEEN.add(("udp", source[0]))
        asked = ancillary[0][2][8:12]
        info = [(socket.IPPROTO_IP, 8, struct.pack("=i", 0) + asked + bytes(4))]
        with contextlib.suppress(OSError):
            served.sendmsg([source[0].encode()], info, 0, source)


def watch_icmp() -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    while True:
        packet, source = raw.recvfrom(2048)
        if packet[20] == 8:
            _SEEN.add(("icmp", source[0]))


def probe_tcp(request: dict[str, Any]) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(request["timeout_s"])
        if request.get("source"):
            client.bind((request["source"], 0))
        client.connect((request["to"], request["port"]))
        return client.recv(64).decode() or None


def probe_udp(request: dict[str, Any]) -> str | None:
    """``from_port``: asked again from the same port it is the same flow."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(request["timeout_s"])
        if request.get("source"):
            client.bind((request["source"], request.get("from_port", 0)))
        client.connect((request["to"], request["port"]))
        client.send(b"?")
        return client.recv(64).decode() or None


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(ident: int, sequence: int) -> bytes:
    body = b"hostmesh"
    head = struct.pack("!BBHHH", 8, 0, 0, ident, sequence)
    return struct.pack("!BBHHH", 8, 0, checksum(head + body), ident, sequence) + body


def probe_icmp(request: dict[str, Any]) -> str | None:
    """ "yes" on a reply. Who was seen is asked of the other side."""
    ident = request["ident"] if "ident" in request else hash((os.getpid(), request["id"])) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        if request.get("source"):
            raw.bind((request["source"], 0))
        raw.sendto(echo(ident, 1), (request["to"], 0))
        deadline = time.monotonic() + request["timeout_s"]
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([raw], [], [], left)[0]:
                return None
            packet, source = raw.recvfrom(2048)
            kind, _, _, answered, _ = struct.unpack("!BBHHH", packet[20:28])
            if kind == 0 and answered == ident and source[0] == request["to"]:
                return "yes"
    return None


def forge(request: dict[str, Any]) -> str:
    """Send one UDP packet with any source, as a process with NET_RAW may. No answer comes here.

    With ``mac`` it goes out as a frame to that address by ``link``, which needs no route; ``tags``
    are the VLANs it claims to be in, and ``fragments`` splits it.
    """
    data = b"forged"
    udp = struct.pack("!HHHH", 4321, request["port"], 8 + len(data), 0) + data
    ends = socket.inet_aton(request["source"]) + socket.inet_aton(request["to"])
    parts = [(0x2000, udp[:8]), (1, udp[8:])] if request.get("fragments") else [(0, udp)]
    packets = []
    for offset, part in parts:
        total = 20 + len(part)
        fields = (0x45, 0, total, 77, offset, 64, socket.IPPROTO_UDP)
        sum_ = checksum(struct.pack("!BBHHHBBH", *fields, 0) + ends)
        packets.append(struct.pack("!BBHHHBBH", *fields, sum_) + ends + part)
    if "mac" not in request:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for packet in packets:
                raw.sendto(packet, (request["to"], 0))
        return "sent"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:
        frames.bind((request.get("link", "eth0"), 0))
        head = bytes.fromhex(request["mac"].replace(":", "")) + frames.getsockname()[4]
        tags = b"".join(struct.pack("!HH", 0x8100, vlan) for vlan in request.get("tags", ()))
        for packet in packets:
            frames.send(head + tags + struct.pack("!H", 0x0800) + packet)
    return "sent"


PROBES = {"tcp": probe_tcp, "udp": probe_udp, "icmp": probe_icmp, "forge": forge}


def answer(request: dict[str, Any]) -> None:
    if request["op"] == "seen":
        seen = sorted(_SEEN)
        _SEEN.clear()
        say({"id": request["id"], "result": seen})
        return
    try:
        result = PROBES[request["op"]](request)
    except OSError:
        result = None
    say({"id": request["id"], "result": result})


def main() -> None:
    for port in PORTS:
        threading.Thread(target=serve_tcp, args=(port,), daemon=True).start()
        threading.Thread(target=serve_udp, args=(port,), daemon=True).start()
    threading.Thread(target=watch_icmp, daemon=True).start()
    say({"id": 0, "result": "ready"})
    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()


main()
