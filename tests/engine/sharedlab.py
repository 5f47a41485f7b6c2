"""One lab for consecutive modules that want the same, checked between them.

A lab is kept while the next module wants equal options and finds it as it was when it was new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

Boot = Callable[[LabOptions], AbstractContextManager[Lab]]

_HEAL_S = 30.0
_FILES = ("hostname", "hosts", "machine-id", "resolv.conf", "docker/daemon.json")
_SETTINGS = "hostmesh/agent.toml"


class SharedLab:
    """The lab that runs now, or none."""

    def __init__(self, boot: Boot, say: Callable[[str], None]) -> None:
        """Take how a lab is booted and ended, and where to say what happened."""
        self._boot = boot
        self._say = say
        self._running: tuple[LabOptions, Lab, frozenset[str]] | None = None
        self._stack = ExitStack()

    def get(self, options: LabOptions) -> Lab:
        """Return a lab of these options: the one that runs, or a new one."""
        if self._running is not None and self._running[0] == options:
            return self._running[1]
        self.end()
        lab = self._stack.enter_context(self._boot(options))
        self._running = options, lab, frozenset(condition_of(lab, options))
        return lab

    def release(self, wanted_next: LabOptions | None) -> None:
        """End the lab unless the next module wants it and it is as it was when it was new."""
        if self._running is None:
            return
        options, lab, new = self._running
        if wanted_next == options:
            found = lasting_differences(lab, options, new)
            if not found:
                return
            lines = "\n".join(f"  {line}" for line in found[:20])
            self._say(f"lab {options.name} was left different, so the next one is new:\n{lines}")
        self.end()

    def end(self) -> None:
        """End the lab that runs."""
        self._running = None
        self._stack.close()


def lasting_differences(lab: Lab, options: LabOptions, new: frozenset[str]) -> list[str]:
    """Return what differs from the new lab for longer than healing takes."""
    found: list[str] = []

    def same() -> bool:
        try:
            now = frozenset(condition_of(lab, options))
        except LabError as error:
            found[:] = [str(error)]
            return False
        found[:] = [f"gone: {x}" for x in sorted(new - now)]
        found.extend(f"new: {x}" for x in sorted(now - new))
        return not found

    try:
        wait_until(same, _HEAL_S, "the lab to be as it was", every_s=0.5)
    except LabError:
        return found
    return []


def condition_of(lab: Lab, options: LabOptions) -> Iterator[str]:
    """A lab in lines: its machines, what each host has and does, and what lies in etcd."""
    yield f"hosts {sorted(lab.hosts)}"
    for member in lab.etcd.values():
        yield f"{member.name} {member.config.services[0].argv if member.proc() else 'is off'}"
    ready = options.host.agent and options.cidr is not None
    for host in lab.hosts.values():
        for line in _host(host, ready=ready):
            yield f"{host.name} {line}"
    if lab.etcd:
        for line in _etcd(lab):
            yield f"etcd {line}"


def _host(host: Host, *, ready: bool) -> Iterator[str]:
    if host.proc() is None:
        yield "is off"
        return
    for name, service in host.services().items():
        yield f"service {name} {service['state']}"
    for name in (*_FILES, _SETTINGS):
        path = host.path(f"/etc/{name}")
        yield f"/etc/{name} {path.read_text() if path.is_file() else None!r}"
    if ready:
        status = host.status()
        yield f"agent {status.get('state')} {status.get('subnet')}"
        yield from (f"condition {each['name']}" for each in status.get("conditions", []))
    yield from _docker(host)
    yield from _network(host)


def _docker(host: Host) -> Iterator[str]:
    if host.services()["docker"]["state"] != "running":
        return
    listed = host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()
    yield f"containers {sorted(listed)}"
    networks = host.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    yield f"Docker networks {sorted(networks)}"


def _network(host: Host) -> Iterator[str]:
    for what in ("address", "route", "rule"):
        for line in host.run(["ip", "-o", "-4", what, "show"]).stdout.splitlines():
            yield f"{what} {_steady(line)}"
    for each in json.loads(host.run(["ip", "-j", "link", "show"]).stdout):
        if not each["ifname"].startswith("veth"):
            yield f"link {each['ifname']} mtu {each['mtu']}"
    for table in ("raw", "filter", "nat"):
        for line in host.iptables(table):
            if line.startswith("-A"):
                yield f"{table} {line}"


def _steady(line: str) -> str:
    """A line of ip without a link's number and without what a running container changes."""
    number, _, rest = line.partition(": ")
    text = rest if number.isdigit() else line
    return " ".join(text.replace("linkdown", "").split())


def _etcd(lab: Lab) -> Iterator[str]:
    member = next(iter(lab.etcd.values()))
    for key, value in member.keys("/hostmesh/").items():
        # A heartbeat and a lease's value change by themselves; a setting does not.
        yield f"{key} {value if key.endswith('/config') else ''}"


def in_order(modules: Sequence[object]) -> list[object]:
    """Modules with equal ``LAB`` side by side where the first of them stood.

    A module with ``LAB_LAST`` leaves its lab changed, so it comes after the others.
    """
    groups: list[list[object]] = []
    for module in modules:
        options = getattr(module, "LAB", None)
        same = (g for g in groups if options is not None and getattr(g[0], "LAB", None) == options)
        group = next(same, None)
        if group is None:
            groups.append([module])
        else:
            group.append(module)
    return [
        each for group in groups for each in sorted(group, key=lambda m: hasattr(m, "LAB_LAST"))
    ]


def wanted_after(modules: Sequence[object], module: object) -> LabOptions | None:
    """The options that the module after this one wants, if it wants a lab by ``LAB``."""
    place = modules.index(module) + 1
    return getattr(modules[place], "LAB", None) if place < len(modules) else None
