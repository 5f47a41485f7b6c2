"""A name server that answers as a file says: records, refusals, silence, large answers.

Runs with the machine's own Python, as `python3 -I dns_server.py ZONE ADDRESS…`. The file is read
again when it has changed, so a query that is sent after a change gets the new answer.
"""

import contextlib
import json
import socket
import socketserver
import struct
import sys
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

PORT = 53
MAX_UDP = 1232
"""The most it sends in one datagram, whatever a client offers (DNS flag day 2020)."""
PLAIN_UDP = 512
TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "TXT": 16, "AAAA": 28, "SRV": 33, "OPT": 41}
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}
SILENT = "SILENT"
EVERY_NAME = "*"
_NAMES_OF_TYPES = {number: name for name, number in TYPES.items()}
_QUESTION_NAME = b"\xc0\x0c"
_TCP_IDLE_S = 10.0
_MAX_CNAMES = 8


@dataclass(frozen=True)
class Zone:
    """The records by name, as (type, value, TTL), and the names that fail, with how."""

    records: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Zone":
        """Read what JSON made of a zone."""
        records = {
            name: [(kind, value, ttl) for kind, value, ttl in items]
            for name, items in raw["records"].items()
        }
        return cls(records, raw["failing"])


@dataclass(frozen=True)
class Query:
    """A question; `question` are its bytes, `udp_size` what its OPT record offers, if any."""

    identity: int
    flags: int
    name: str
    kind: int
    question: bytes
    udp_size: int | None


class BadQuery(Exception):
    """The bytes are no query that can be answered; `rcode` says how to refuse it."""

    def __init__(self, rcode: str) -> None:
        super().__init__(rcode)
        self.rcode = rcode


def read_name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name without compression, as lower case, and where it ends."""
    labels: list[str] = []
    while True:
        if at >= len(data) or data[at] > 63:
            raise BadQuery("FORMERR")
        length, at = data[at], at + 1
        if length == 0:
            return ".".join(labels), at
        label = data[at : at + length]
        labels.append(label.decode("ascii", "backslashreplace").lower())
        at += length


def parse_query(data: bytes) -> Query:
    """Read a query of one question."""
    identity, flags, questions, answers, authorities, additional = struct.unpack("!6H", data[:12])
    if (flags >> 11) & 15:
        raise BadQuery("NOTIMP")
    if questions != 1 or answers or authorities:
        raise BadQuery("FORMERR")
    name, at = read_name(data, 12)
    if len(data) < at + 4:
        raise BadQuery("FORMERR")
    kind = struct.unpack("!H", data[at : at + 2])[0]
    question, at = data[12 : at + 4], at + 4
    size = None
    for _ in range(additional):
        _, at = read_name(data, at)
        if len(data) < at + 10:
            raise BadQuery("FORMERR")
        found, offered, _, length = struct.unpack("!HHIH", data[at : at + 10])
        size = offered if found == TYPES["OPT"] else size
        at += 10 + length
    return Query(identity, flags, name, kind, question, size)


def pack_name(name: str) -> bytes:
    """Return a name without compression; ValueError if a label is too long."""
    labels = [label.encode() for label in name.strip(".").split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise ValueError(f"{name!r} has a label of more than 63 characters")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def pack_value(kind: str, value: str) -> bytes:
    """Return a record's data: an address, text, a name, or SRV's three numbers and a name."""
    if kind == "A":
        return IPv4Address(value).packed
    if kind == "AAAA":
        return IPv6Address(value).packed
    if kind == "TXT":
        text = value.encode()
        parts = [text[at : at + 255] for at in range(0, len(text), 255)] or [b""]
        return b"".join(bytes([len(part)]) + part for part in parts)
    if kind == "SRV":
        *numbers, target = value.split()
        return struct.pack("!3H", *map(int, numbers)) + pack_name(target)
    return pack_name(value)


def pack_record(owner: bytes, kind: str, value: str, ttl: int) -> bytes:
    """Return a resource record of class IN."""
    data = pack_value(kind, value)
    return owner + struct.pack("!HHIH", TYPES[kind], 1, ttl, len(data)) + data


def find(zone: Zone, query: Query) -> tuple[str, list[bytes]]:
    """Return the response code and the answer's records, CNAMEs followed."""
    owner, name = _QUESTION_NAME, query.name
    found: list[bytes] = []
    wanted = _NAMES_OF_TYPES.get(query.kind, "")
    for _ in range(_MAX_CNAMES):
        failure = zone.failing.get(name, zone.failing.get(EVERY_NAME, ""))
        if failure:
            return failure, []
        if name not in zone.records:
            return "NXDOMAIN", found
        records = zone.records[name]
        found += [pack_record(owner, *record) for record in records if record[0] == wanted]
        alias = next((record for record in records if record[0] == "CNAME"), None)
        if alias is None or wanted == "CNAME":
            break
        found.append(pack_record(owner, *alias))
        owner, name = pack_name(alias[1]), alias[1].strip(".").lower()
    return "NOERROR", found


def respond(data: bytes, zone: Zone, *, tcp: bool) -> tuple[bytes, dict[str, Any]]:
    """Return the reply to a query, b"" for none, and what the log is to say of it."""
    if len(data) < 12:
        return b"", {"rcode": SILENT}
    try:
        query = parse_query(data)
    except BadQuery as bad:
        flags = 0x8000 | (data[2] << 8 & 0x7900) | RCODES[bad.rcode]
        return data[:2] + struct.pack("!5H", flags, 0, 0, 0, 0), {"rcode": bad.rcode}
    rcode, answers = find(zone, query)
    said = {
        "name": query.name,
        "type": _NAMES_OF_TYPES.get(query.kind, str(query.kind)),
        "rcode": rcode,
    }
    if rcode == SILENT:
        return b"", said
    limit = 65535
    if not tcp:
        limit = max(PLAIN_UDP, min(query.udp_size or 0, MAX_UDP))
    reply = pack_reply(query, rcode, answers)
    truncated = len(reply) > limit
    if truncated:
        reply = pack_reply(query, rcode, [], truncated=True)
    return reply, {**said, "truncated": truncated, "size": len(reply)}


def pack_reply(query: Query, rcode: str, answers: list[bytes], *, truncated: bool = False) -> bytes:
    """A whole reply; a negative one carries an SOA record, which resolvers want for their cache."""
    authority = []
    if not answers and not truncated and rcode in ("NOERROR", "NXDOMAIN"):
        numbers = struct.pack("!5I", 1, 3600, 600, 86400, 5)
        soa = pack_name("ns.lab") + pack_name("admin.lab") + numbers
        authority.append(b"\0" + struct.pack("!HHIH", TYPES["SOA"], 1, 5, len(soa)) + soa)
    additional = []
    if query.udp_size is not None:
        additional.append(b"\0" + struct.pack("!HHIH", TYPES["OPT"], MAX_UDP, 0, 0))
    flags = 0x8080 | (query.flags & 0x0100) | (0x0200 if truncated else 0) | RCODES[rcode]
    counts = (1, len(answers), len(authority), len(additional))
    head = struct.pack("!6H", query.identity, flags, *counts)
    return head + query.question + b"".join([*answers, *authority, *additional])


class Server:
    """The zone's file, and what is said of each query."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zone = Zone()
        self._read_at: tuple[int, int] = (0, 0)
        self._lock = threading.Lock()

    def zone(self) -> Zone:
        """Return the zone as its file has it now."""
        with self._lock:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._read_at:
                self._zone = Zone.of(json.loads(self._path.read_text()))
                self._read_at = (status.st_ino, status.st_mtime_ns)
            return self._zone

    def reply(self, data: bytes, client: str, *, tcp: bool) -> bytes:
        """Answer a query and log it, one JSON object a line."""
        reply, said = respond(data, self.zone(), tcp=tcp)
        line = {"client": client, "protocol": "tcp" if tcp else "udp", **said}
        print(json.dumps(line), flush=True)
        return reply


def serve(server: Server, address: str) -> list[threading.Thread]:
    """Answer on an address, by UDP and by TCP, each in a thread."""

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, replying = self.request
            reply = server.reply(data, self.client_address[0], tcp=False)
            if reply:
                replying.sendto(reply, self.client_address)

    class Stream(socketserver.StreamRequestHandler):
        timeout = _TCP_IDLE_S

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while len(head := self.rfile.read(2)) == 2:
                    data = self.rfile.read(int.from_bytes(head, "big"))
                    reply = server.reply(data, self.client_address[0], tcp=True)
                    if reply:
                        self.wfile.write(len(reply).to_bytes(2, "big") + reply)

    family_of_address = socket.AF_INET6 if ":" in address else socket.AF_INET

    class Udp(socketserver.UDPServer):
        address_family = family_of_address
        max_packet_size = 65535

    class Tcp(socketserver.ThreadingTCPServer):
        address_family = family_of_address
        allow_reuse_address = True
        daemon_threads = True

    servers = (Udp((address, PORT), Datagram), Tcp((address, PORT), Stream))
    return [threading.Thread(target=each.serve_forever) for each in servers]


def main() -> None:
    """Answer on every address of the command line."""
    server = Server(Path(sys.argv[1]))
    threads = [thread for address in sys.argv[2:] for thread in serve(server, address)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
