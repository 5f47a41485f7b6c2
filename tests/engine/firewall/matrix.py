"""Probe who reaches whom between real engines: the pairs, the expected results, the probers.

A scene is two or more hosts of a lab, each with the same containers:

    open0   on docker0          port 80 published as 8080 of the host (TCP, UDP), 81 not
    shown   on network "blue"   port 80 published as 8081, 81 not
    local   on network "blue"   port 80 published on 127.0.0.1, 81 on the node address
    other   on network "green"  nothing published
    vault   on network "vault", made with --internal, with the label of a mesh network
    member  on network "web", a slice of mesh network "web"; port 80 published on 127.0.0.1
    guarded on network "safe", a slice of mesh network "safe" whose access is closed

A prober (tests/netns/firewall/rig/prober.py) serves and asks in every container, on every host, on
the stranger and in the world.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.machine import Machine

from tests.netns.firewall.rig.probing import Probe, Prober, reach

__all__ = ["CUT_WITHOUT_DOCKER", "PAIRS", "Pair", "Scene", "Wanted"]

_PROBER = Path(__file__).parents[2] / "netns/firewall/rig/prober.py"
_INSIDE = "/run/hostmesh-prober.py"
_WORLD = "203.0.113.7"
_WORLD_PORT = 81  # 80 is the lab's own web server
_TIMEOUT_S = 1.0
_NETWORKS = {
    "open0": "",
    "shown": "blue",
    "local": "blue",
    "other": "green",
    "vault": "vault",
    "member": "web",
    "guarded": "safe",
}
_LABELS = {
    "blue": (),
    "green": (),
    "vault": ("--internal", "--label", "hostmesh.network=vault"),
    "web": ("--label", "hostmesh.network=web"),
    "safe": ("--label", "hostmesh.network=safe", "--label", "hostmesh.access=closed"),
}
_PUBLISHED = {"open0": 8080, "shown": 8081}
_ELSEWHERE = "10.127.255.9"
"""In the mesh's range and of no host here."""
_EVERY = ("tcp80", "udp80", "tcp81", "udp81", "icmp")
_SHUT = ("tcp81", "udp81")


class Pair(NamedTuple):
    """One row of docs/docker.md.

    Attributes:
        name: Its words in the table.
        closed: The row says that nothing passes.
    """

    name: str
    closed: bool = False


PAIRS = {
    "container": Pair("container → container of another host, docker0, any port"),
    "published": Pair("container → container of another host, user network, published and ICMP"),
    "unpublished": Pair("container → container of another host, user network, unpublished", True),
    "elsewhere-published": Pair(
        "other host, its containers → user network, published on 127.0.0.1 only", True
    ),
    "host": Pair("host → container of another host, docker0, any port"),
    "host-published": Pair("host → container of another host, user network, published and ICMP"),
    "to-host": Pair("container → another host, and its own host"),
    "world": Pair("container → world, masqueraded, docker0 and user network"),
    "stranger": Pair("non-peer → container, any port, published or not", True),
    "stranger-host": Pair("non-peer → port published by the host"),
    "isolation": Pair("network A → network B of one host", True),
    "internal": Pair("other host, its containers, non-peer → internal network, and back", True),
    "internal-own": Pair("other network → internal network of one host, and back", True),
    "member": Pair("container → container of another host, same mesh network, any port"),
    "outsider": Pair(
        "host, container of another network → container of a mesh network, unpublished", True
    ),
    "member-elsewhere": Pair(
        "container of a mesh network → container of another network, unpublished", True
    ),
    "forged": Pair("container with a source that its bridge does not have → other host", True),
}

CUT_WITHOUT_DOCKER = {
    "iptables -F": frozenset(
        [
            "to-host",
            "world",
            "stranger-host",
            "isolation",
            "internal-own",
        ]
    ),
    "iptables -t nat -F": frozenset({"stranger-host", "world", "to-host"}),
}
"""Pairs that Docker's own rules decide; without those no probe is sent."""


class Wanted(NamedTuple):
    """One probe, the row it belongs to, the host whose rules are tested, and what it must get."""

    pair: str
    tested: str
    probe: Probe
    answer: str | None


@dataclass
class Scene:
    """Containers and probers on the hosts of a lab; a context manager ends the probers."""

    lab: Lab
    hosts: tuple[Host, ...]
    addresses: dict[str, str] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(tested host, pair) to how many probes got what they must."""
    macs: dict[str, str] = field(default_factory=dict)
    """Of the bridge that a container is on, as its host has it."""
    _at: dict[str, Prober] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        for host in self.hosts:
            for network, options in _LABELS.items():
                host.docker("network", "create", *options, network)
            for name, network in _NETWORKS.items():
                host.start_container(
                    name,
                    network=network or None,
                    publish=_publish(host, name),
                    command=["sleep", "1000000"],
                    options=["--restart", "always"],
                )
        assert self.lab.world is not None
        assert self.lab.stranger is not None
        for host in self.hosts:
            self.lab.stranger.run(
                ["ip", "route", "replace", host.lease() or "", "via", host.address]
            )
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def refresh(self) -> None:
        """Find the containers again: they may have started anew, with other addresses."""
        self._stack.close()
        self._at.clear()
        assert self.lab.world is not None
        assert self.lab.stranger is not None
        self._start("world", self.lab.world, (), (str(_WORLD_PORT),))
        self._start("stranger", self.lab.stranger)
        for host in self.hosts:
            self._start(host.name, host)
            self.addresses[host.name] = host.address
            for name in _NETWORKS:
                said = _await_running(host, name)
                inside = ("nsenter", "-t", str(said["State"]["Pid"]), "-n", "--")
                self._start(f"{name}@{host.name}", host, inside)
                self.macs[f"{name}@{host.name}"] = _mac_of_bridge(host, said)
                self.addresses[f"{name}@{host.name}"] = str(host.container_address(name))
        for prober in self._at.values():
            prober.wait()

    def _start(
        self, name: str, machine: Machine, before: Sequence[str] = (), ports: Sequence[str] = ()
    ) -> None:
        machine.path(_INSIDE).write_bytes(_PROBER.read_bytes())
        argv = [*before, "/usr/bin/python3", "-I", "-B", _INSIDE, *ports]
        prober = Prober(machine.enter(argv))
        self._stack.callback(prober.close)
        self._at[name] = prober

    def wanted(self, without: frozenset[str] = frozenset()) -> list[Wanted]:
        """Every probe of the table for every host, as tested host and asker."""
        found: list[Wanted] = []
        for tested in self.hosts:
            found += self._alone(tested)
            for other in self.hosts:
                if other is not tested:
                    found += self._between(other, tested)
        return [each for each in found if each.pair not in without]

    def verify(self, within_s: float, without: frozenset[str] = frozenset()) -> list[str]:
        """Ask everything until one round is right in all. Returns what was wrong in the last."""
        wanted = self.wanted(without)
        deadline = time.monotonic() + within_s
        while True:
            got = self._ask([each.probe for each in wanted])
            wrong = [
                f"{each.pair}, rules of {each.tested}: {each.probe} got {answer},"
                f" must get {each.answer}"
                for each, answer in zip(wanted, got, strict=True)
                if answer != each.answer
            ]
            if not wrong:
                self.asked.update((each.tested, each.pair) for each in wanted)
                return []
            if time.monotonic() > deadline:
                return wrong

    def answer(self, by: str, to: str, how: str) -> str | None:
        """Return the source that the other side saw, None when nothing came back."""
        return self._ask([self._probe(by, to, how)])[0]

    def _ask(self, probes: Sequence[Probe]) -> list[str | None]:
        """Return the result of each probe, or the source of a forged one that was seen.

        They go as frames to the bridge: an internal network has no route that would send them.
        A true packet from the same host behind the forged ones says that they had time.
        """
        forged = [each for each in probes if each.how == "forge"]
        for each in forged:
            by, mac = self._at[each.by], self.macs[each.by]
            number = by.ask("forge", to=each.to, port=81, source=each.source, mac=mac)
            assert by.answers(1)[number] == "sent"
        true = [each for each in probes if each.how != "forge"]
        got = dict(zip(true, reach(self._at, true, _TIMEOUT_S), strict=True))
        names = {address: name for name, address in self.addresses.items()}
        seen = {to: self._at[names[to]].seen("udp") for to in {each.to for each in forged}}
        return [
            got[each]
            if each.how != "forge"
            else each.source
            if each.source in seen[each.to]
            else None
            for each in probes
        ]

    def _probe(self, by: str, to: str, how: str) -> Probe:
        return Probe(by, self.addresses.get(to, to), how)

    def _rows(
        self, pair: str, tested: str, by: str, to: str, hows: Sequence[str], source: str | None
    ) -> Iterator[Wanted]:
        """``source``: the address that the other side must see, None when nothing may pass."""
        for how in hows:
            answer = "yes" if how == "icmp" and source is not None else source
            yield Wanted(pair, tested, self._probe(by, to, how), answer)

    def _between(self, asker: Host, tested: Host) -> Iterator[Wanted]:
        here, there = asker.name, tested.name
        for by in ("open0", "shown"):
            name = f"{by}@{here}"
            mine = self.addresses[name]
            yield from self._rows("container", there, name, f"open0@{there}", _EVERY, mine)
            public = ("tcp80", "udp80", "icmp")
            yield from self._rows("published", there, name, f"shown@{there}", public, mine)
            yield from self._rows("unpublished", there, name, f"shown@{there}", _SHUT, None)
            yield from self._rows("unpublished", there, name, f"other@{there}", _SHUT, None)
            yield from self._rows("internal", there, name, f"vault@{there}", _EVERY, None)
            ports = ("tcp81", "udp81", "icmp")
            yield from self._rows("to-host", here, name, there, ports, asker.address)
        yield from self._rows("host", there, here, f"open0@{there}", _EVERY, asker.address)
        for by in (here, f"open0@{here}", f"shown@{here}"):
            mine = self.addresses[by]
            yield from self._rows("published", there, by, f"local@{there}", ("tcp81",), mine)
            shut = ("tcp80", "udp80", "udp81")
            yield from self._rows("elsewhere-published", there, by, f"local@{there}", shut, None)
        public = ("tcp80", "udp80", "icmp")
        yield from self._rows(
            "host-published", there, here, f"shown@{there}", public, asker.address
        )
        yield from self._rows("unpublished", there, here, f"shown@{there}", _SHUT, None)
        yield from self._rows("internal", there, here, f"vault@{there}", _EVERY, None)
        yield from self._rows("internal", there, f"vault@{there}", f"open0@{here}", _EVERY, None)
        yield from self._members(here, there)
        yield from self._forged(asker, tested)

    def _members(self, here: str, there: str) -> Iterator[Wanted]:
        """Of a mesh network to its slice on the other host, and to all else."""
        for name in ("member", "guarded"):
            mine = self.addresses[f"{name}@{here}"]
            yield from self._rows(
                "member", there, f"{name}@{here}", f"{name}@{there}", _EVERY, mine
            )
        for by in (here, *(f"{each}@{here}" for each in ("open0", "shown", "vault"))):
            unpublished = ("tcp80", "udp80", *_SHUT)
            yield from self._rows("outsider", there, by, f"member@{there}", unpublished, None)
            yield from self._rows("outsider", there, by, f"guarded@{there}", _EVERY, None)
        for by, to, hows in (
            ("member", "guarded", _EVERY),
            ("guarded", "member", _SHUT),
            ("member", "shown", _SHUT),
            ("guarded", "shown", _SHUT),
            ("member", "vault", _EVERY),
        ):
            yield from self._rows(
                "member-elsewhere", there, f"{by}@{here}", f"{to}@{there}", hows, None
            )

    def _forged(self, asker: Host, tested: Host) -> Iterator[Wanted]:
        """The sender's own host is the one whose rules are tested."""
        here, there = asker.name, tested.name
        unused = {
            by: f"{self.addresses[f'{by}@{here}'].rpartition('.')[0]}.250" for by in _NETWORKS
        }
        for by, neighbour in (
            ("open0", "shown"),
            ("shown", "other"),
            ("vault", "open0"),
            ("shown", "member"),
            ("member", "guarded"),
        ):
            mesh = [f"{neighbour}@{there}"] if neighbour in {"member", "guarded"} else []
            for to in (there, f"open0@{there}", here, *mesh):
                for source in (_ELSEWHERE, unused[neighbour]):
                    probe = Probe(f"{by}@{here}", self.addresses[to], "forge", source)
                    yield Wanted("forged", here, probe, None)
            probe = Probe(f"{by}@{here}", self.addresses[f"open0@{there}"], "forge", "203.0.113.99")
            yield Wanted("forged", here, probe, None)

    def _alone(self, host: Host) -> Iterator[Wanted]:
        name = host.name
        for by in ("open0", "shown"):
            inside = f"{by}@{name}"
            world = (f"tcp{_WORLD_PORT}", f"udp{_WORLD_PORT}", "icmp")
            yield from self._rows("world", name, inside, _WORLD, world, host.address)
            ports = ("tcp81", "udp81", "icmp")
            yield from self._rows("to-host", name, inside, name, ports, self.addresses[inside])
        for to in _NETWORKS:
            pair = "internal" if to == "vault" else "stranger"
            yield from self._rows(pair, name, "stranger", f"{to}@{name}", _EVERY, None)
        for port in _PUBLISHED.values():
            hows = (f"tcp{port}", f"udp{port}")
            seen = str(self.lab.stranger.address) if self.lab.stranger else ""
            yield from self._rows("stranger-host", name, "stranger", name, hows, seen)
        for by, to in (
            ("open0", "shown"),
            ("shown", "open0"),
            ("other", "shown"),
            ("other", "open0"),
            ("open0", "member"),
            ("member", "guarded"),
            ("guarded", "member"),
            ("member", "shown"),
        ):
            yield from self._rows("isolation", name, f"{by}@{name}", f"{to}@{name}", _EVERY, None)
        for by in ("open0", "shown"):
            for one, two in ((by, "vault"), ("vault", by)):
                yield from self._rows(
                    "internal-own", name, f"{one}@{name}", f"{two}@{name}", _EVERY, None
                )
        yield from self._rows("internal-own", name, f"vault@{name}", _WORLD, ("icmp",), None)


def _publish(host: Host, name: str) -> list[str]:
    """The container's ports as ``-p`` has them."""
    if name == "local":
        return ["127.0.0.1:8082:80", "127.0.0.1:8082:80/udp", f"{host.address}:8083:81"]
    if name == "member":
        return ["127.0.0.1:8084:80", "127.0.0.1:8084:80/udp"]
    port = _PUBLISHED.get(name)
    return [f"{port}:80", f"{port}:80/udp"] if port else []


def _mac_of_bridge(host: Host, said: dict[str, dict[str, Any]]) -> str:
    ((name, network),) = said["NetworkSettings"]["Networks"].items()
    bridge = "docker0" if name == "bridge" else f"br-{network['NetworkID'][:12]}"
    shown = json.loads(host.run(["ip", "-j", "link", "show", bridge]).stdout)
    return str(shown[0]["address"])


def _await_running(host: Host, name: str) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + 30
    while True:
        said = json.loads(host.docker("inspect", name).stdout)[0]
        if said["State"]["Running"] and said["State"]["Pid"]:
            found: dict[str, dict[str, Any]] = said
            return found
        assert time.monotonic() < deadline, f"{host.name}: container {name} does not run again"
        time.sleep(0.2)
