"""Look at this host's name servers: their status files, and the port they need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from agent.dns.counters import Counters
from agent.dns.status import STATUS_FOLDER, STATUS_S, status_file
from agent.model import Condition, Severity
from agent.model.family import Address
from agent.model.names import NAME_SERVERS
from agent.model.untrusted import Fields

__all__ = ["ServerSeen", "look_at_servers", "server_conditions"]

_PORT: Final = 53
_LATE_S: Final = 3 * STATUS_S
_MOST_BYTES: Final = 64 * 1024
_MOST_UPSTREAMS: Final = 16
_UNITS: Final = "systemctl status 'hostmesh-dns*'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen:
    """One of this host's two name servers.

    Attributes:
        runs: It has written its status lately.
        taken: Another program has its port.
        upstreams: Of the host, and whether each fails; in the order of resolv.conf.
        counters: What it counts, by name.
    """

    address: Address
    runs: bool
    taken: bool = False
    names: int = 0
    upstreams: tuple[tuple[str, bool], ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


def look_at_servers(
    folder: Path = STATUS_FOLDER, proc: Path = Path("/proc")
) -> tuple[ServerSeen, ...]:
    """Return how the servers are."""
    return tuple(_look(each, folder, proc) for each in NAME_SERVERS)


def _look(address: Address, folder: Path, proc: Path) -> ServerSeen:
    path = status_file(folder, address)
    try:
        age_s = time.time() - path.stat().st_mtime
        with path.open("rb") as file:
            status = Fields.parse(file.read(_MOST_BYTES))
        found = _read(address, status, runs=abs(age_s) < _LATE_S)
    except (OSError, ValueError):
        found = ServerSeen(address=address, runs=False)
    if found.runs:
        return found
    return ServerSeen(address=address, runs=False, taken=_is_taken(proc))


def _read(address: Address, status: Fields, *, runs: bool) -> ServerSeen:
    counters = status.object("counters") or Fields({})
    upstreams = status.objects("upstreams", _MOST_UPSTREAMS)
    return ServerSeen(
        address=address,
        runs=runs,
        names=status.integer("names", 0, 2**53, default=0),
        upstreams=tuple(
            (each.text("address"), each.flag("failing", default=False)) for each in upstreams
        ),
        counters={
            each.name: counters.integer(each.name, 0, 2**53, default=0) for each in fields(Counters)
        },
    )


def _is_taken(proc: Path) -> bool:
    """Return whether a socket has the port at every address (proc_net(5)).

    One at the server's own address may be that of its socket unit.
    """
    every = {"0" * 8, "0" * 32}
    found = _listening(proc, ("udp", "udp6"))
    return any(local in every and port == _PORT for local, port in found)


def _listening(proc: Path, tables: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for table in tables:
        try:
            lines = (proc / "net" / table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            local, _, port = line.split()[1].partition(":")
            yield local, int(port, 16)


def server_conditions(servers: tuple[ServerSeen, ...]) -> tuple[Condition, ...]:
    """Return what the operator should know of the servers."""
    found = [_not_running(each, servers) for each in servers if not each.runs]
    running = [each for each in servers if each.runs]
    dead = [each for each in running if all(failing for _, failing in each.upstreams)]
    if running and len(dead) == len(running):
        found.append(_no_upstream(dead[0]))
    return tuple(found)


def _not_running(server: ServerSeen, servers: tuple[ServerSeen, ...]) -> Condition:
    alone = any(each.runs for each in servers)
    severity = Severity.WARNING if alone else Severity.ERROR
    effect = "the other one answers containers" if alone else "containers find no name by them"
    if server.taken:
        return Condition(
            name="dns-port-taken",
            subject=str(server.address),
            severity=severity,
            cause=f"port {_PORT} at {server.address} is taken by another program, and this host's"
            f" name server does not run there; {effect}",
            hint=f"see which program: ss -lunp 'sport = {_PORT}'; have it listen at its own"
            " addresses only (dnsmasq: bind-dynamic; systemd-resolved: DNSStubListenerExtra=)",
        )
    return Condition(
        name="dns-server-down",
        subject=str(server.address),
        severity=severity,
        cause=f"this host's name server at {server.address} does not run; {effect}",
        hint=f"{_UNITS}; start both: systemctl enable --now hostmesh-dns-53.socket"
        " hostmesh-dns-54.socket",
    )


def _no_upstream(server: ServerSeen) -> Condition:
    named = ", ".join(address for address, _ in server.upstreams)
    cause = (
        f"this host's resolvers ({named}) do not answer its name servers"
        if named
        else "this host's resolv.conf names no resolver that its name servers can ask"
    )
    return Condition(
        name="dns-upstream-dead",
        cause=f"{cause}: containers find names of the mesh only",
        hint="see /etc/resolv.conf, and ask one: dig @ADDRESS example.com",
    )
