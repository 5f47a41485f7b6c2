"""The DNS server that the hosts' resolv.conf names, and what tests do to it."""

import json
import signal
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address, ip_address

from hostmesh_lab.errors import LabError
from hostmesh_lab.guest.dns_server import EVERY_NAME, RCODES, SILENT, TYPES, Zone, pack_value
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.underlay.topology import OUTSIDE, OUTSIDE6

ZONE = "/etc/lab-dns.json"
WORLD = "world.example"
TTL_S = 5
FAILURES = (*(name for name in RCODES if name != "NOERROR"), SILENT)
_MANY = IPv4Address("198.18.0.0")
_MOST = 4000
"""So many addresses still fit into one message over TCP."""


@dataclass(frozen=True)
class Asked:
    """A query that the server got, and how it answered. `size` is the reply's length."""

    client: str
    protocol: str
    rcode: str
    name: str = ""
    type: str = ""
    truncated: bool = False
    size: int = 0


def first_zone(own: Iterable[str]) -> Zone:
    """Return a server's first records: the web server outside, in the families of its addresses."""
    v6 = {":" in address for address in own}
    outside = [OUTSIDE6 if each else OUTSIDE for each in sorted(v6)]
    return Zone({WORLD: [parse_record(each) for each in outside]})


def zone_text(zone: Zone) -> str:
    """Return a zone as its file has it."""
    return json.dumps(asdict(zone))


def parse_record(text: str, ttl: int = TTL_S) -> tuple[str, str, int]:
    """Read a record: an address, or a type and its value ("TXT hello", "CNAME other.example")."""
    kind, _, value = text.partition(" ")
    try:
        if not value:
            kind, value = ("AAAA" if ip_address(text).version == 6 else "A"), text
        if kind not in TYPES or kind in ("SOA", "OPT"):
            raise LabError(f"the DNS server has no records of type {kind}")
        pack_value(kind, value)
    except (ValueError, struct.error) as error:
        raise LabError(
            f"{text!r} is no record: {error}", "an address, or TYPE VALUE as in 'TXT hello'"
        ) from error
    return kind, value, ttl


class DnsServer(Machine):
    """A machine that runs a name server. Its records stay over restarts and power cuts."""

    def create_disk(self, files: Mapping[str, str]) -> None:
        """Make the disk, with the zone on it that the server has at first."""
        super().create_disk({ZONE: zone_text(self._first_zone()), **files})

    def _first_zone(self) -> Zone:
        return first_zone(self.config.ports[0].addresses)

    # -- what it answers: from the next query on

    def answer(self, name: str, *records: str, ttl: int = TTL_S) -> None:
        """Let a name have these records ("198.51.100.7", "fd00::7", "TXT hello"), none other."""
        zone = self.zone()
        parsed = [parse_record(each, ttl) for each in records]
        self.write_zone(replace(zone, records={**zone.records, _plain(name): parsed}))

    def large(self, name: str, count: int = 100) -> list[str]:
        """Let a name have so many addresses, too many for a datagram; return them."""
        if not 0 < count <= _MOST:
            raise LabError(f"a name has at most {_MOST} addresses, not {count}")
        addresses = [str(_MANY + number) for number in range(1, count + 1)]
        self.answer(name, *addresses)
        return addresses

    def fail(self, how: str, name: str = EVERY_NAME) -> None:
        """Let a name, or every name, fail: NXDOMAIN, SERVFAIL, REFUSED, or SILENT for no reply."""
        if how not in FAILURES:
            raise LabError(f"no way to fail is called {how}", "one of " + ", ".join(FAILURES))
        zone = self.zone()
        self.write_zone(replace(zone, failing={**zone.failing, _plain(name): how}))

    def reset(self) -> None:
        """Let it answer as at first."""
        self.write_zone(self._first_zone())

    def zone(self) -> Zone:
        """Return the records."""
        return Zone.of(json.loads(self.read_file(ZONE)))

    def write_zone(self, zone: Zone) -> None:
        """Put a whole zone in the place of the present one."""
        new = f"{ZONE}.new"
        self.write_file(new, zone_text(zone))
        self.path(new).rename(self.path(ZONE))

    def queries(self, name: str = "") -> list[Asked]:
        """Return the queries that it answered since its disk was made, for one name or for all."""
        lines = [line for line in self.log("dns").splitlines() if line.startswith("{")]
        asked = [Asked(**json.loads(line)) for line in lines]
        return [each for each in asked if name in ("", each.name)]

    # -- whether it answers

    def start(self) -> None:
        """Start the server; returns when it answers."""
        self.service("start", "dns")

    def stop(self) -> None:
        """End the server. The machine goes on: a query is refused at once by its kernel."""
        self.service("stop", "dns")

    def freeze(self) -> None:
        """Stop the server where it is: queries are taken and never answered."""
        self.service("signal", "dns", number=int(signal.SIGSTOP))

    def thaw(self) -> None:
        """Let a frozen server go on; what was asked meanwhile is answered late."""
        self.service("signal", "dns", number=int(signal.SIGCONT))


def _plain(name: str) -> str:
    return name.strip(".").lower()
