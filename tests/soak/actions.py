"""Carry out the steps of a walk on a lab, and say which of them explain lost pings."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.etcd import EtcdMember
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay import net
from hostmesh_lab.wait import wait_until

from tests.soak.losses import Losses, Window
from tests.soak.plan import BACKENDS, Step
from tests.soak.traffic import End, Traffic

__all__ = ["GRACE_S", "RECOVER_S", "Actions"]

GRACE_S = 15
"""`lease.empty_cluster_grace_s` of the lab's hosts: a walk has no time for the default minute."""
RECOVER_S = 300.0
"""Until a host that was cut off is reached by all others again: seconds, but on a busy machine."""
_SETTLE_S = 1.0
_COMMAND_S = 300.0
PREFIX = "/hostmesh/"
_MOVED_BY = 40


@dataclass(frozen=True)
class _Deed:
    """The way to do a step to a host, and to end it.

    Attributes:
        cuts: Pings with the host may be lost until it is reached again.
    """

    begin: Callable[[Host], None]
    end: Callable[[Host], None] | None = None
    cuts: bool = False


class Actions:
    """Does what steps say.

    Attributes:
        addresses: The node address that each host of the mesh has now.
        backends: The mesh's backend, and the other one while it is changed.
        networks: Containers that ping each other in a network of their own.
        longest_s: The longest recovery of each kind of step.
    """

    def __init__(self, lab: Lab, traffic: Traffic, losses: Losses) -> None:
        self._lab = lab
        self._traffic = traffic
        self._losses = losses
        self._faults: dict[str, str] = {}
        self._windows: defaultdict[str, list[Window]] = defaultdict(list)
        self.backends = [BACKENDS[0]]
        self.networks: dict[str, tuple[End, ...]] = {}
        self.addresses = {name: host.address for name, host in lab.hosts.items()}
        self.longest_s: dict[str, float] = {}
        self._hosts = {
            "agent-down": _Deed(lambda host: host.kill_agent(stay_down=True), Host.start_agent),
            "agent-stopped": _Deed(Host.stop_agent, Host.start_agent),
            "agent-frozen": _Deed(Host.pause_agent, Host.resume_agent),
            "agent-killed": _Deed(Host.kill_agent),
            "cable-down": _Deed(lambda h: h.cable("down"), lambda h: h.cable("up"), cuts=True),
            "cable-silent": _Deed(lambda h: h.cable("silent"), lambda h: h.cable("up"), cuts=True),
            "powered-off": _Deed(Host.kill, Host.boot, cuts=True),
            "left": _Deed(self._leave, _join, cuts=True),
            "moved": _Deed(self._move_away, self._move_back, cuts=True),
            "docker-restarted": _Deed(lambda host: host.service("restart", "docker"), cuts=True),
            "lease-deleted": _Deed(self._delete_lease, cuts=True),
        }
        self._members: dict[str, tuple[Callable[[EtcdMember], None], ...]] = {
            "etcd-killed": (EtcdMember.kill_etcd, EtcdMember.start),
            "etcd-frozen": (EtcdMember.pause, EtcdMember.resume),
            "etcd-off": (EtcdMember.kill, EtcdMember.boot),
        }

    @property
    def kinds(self) -> frozenset[str]:
        """Return what can be done to hosts and members of etcd."""
        return frozenset({*self._hosts, *self._members})

    def do(self, step: Step) -> None:
        """Carry out a step that is not "compare".

        Raises:
            LabError: It failed, or a host did not recover in time.
        """
        begins = step.act != "end"
        if step.what in self._members:
            begin, end = self._members[step.what]
            (begin if begins else end)(self._lab.etcd[step.subject])
            self._note(step)
        elif step.what in self._hosts:
            self._do_to_host(step, begins=begins)
        elif step.what == "wiped":
            self._wipe(str(step))
        elif step.what == "compacted":
            self._compact()
        elif step.what == "backend":
            self._change_backend(str(step), step.subject, ["prepare"] if begins else _LATER)
            self.backends = [*self.backends, step.subject] if begins else [step.subject]
        elif step.what == "network":
            (self._create_network if begins else self._remove_network)(step)
        else:
            (self._admit if begins else self._dismiss)(step)

    def _note(self, step: Step) -> None:
        if step.act == "begin":
            self._faults[step.subject] = step.what
        elif step.act == "end":
            self._faults.pop(step.subject, None)

    def healthy(self) -> list[str]:
        """Return the hosts that no fault lasts on."""
        return [name for name in self.addresses if name not in self._faults]

    def _reached(self) -> list[str]:
        """Return the healthy hosts, and those that moved: they are reached by the new address."""
        return [name for name in self.addresses if self._faults.get(name, "moved") == "moved"]

    def member(self) -> EtcdMember:
        """Return a member of etcd that no fault lasts on."""
        return next(each for name, each in self._lab.etcd.items() if name not in self._faults)

    # -- hosts

    def _do_to_host(self, step: Step, *, begins: bool) -> None:
        deed, host = self._hosts[step.what], self._lab.hosts[step.subject]
        if deed.cuts:  # an end cuts, too, where a host gets its address back
            self._open(host.name, str(step), time.monotonic())
        act = deed.begin if begins else deed.end
        assert act is not None
        act(host)
        if step.act == "begin":
            self._note(step)
            if step.what != "moved":  # a host with a new address is reached by it
                return
        if step.what == "moved" or (deed.cuts and step.act == "end"):
            self._open_for_absent(str(step), host.name)
        if self._windows[host.name]:
            self._recover(step.what, host)
        self._note(step)

    def _recover(self, what: str, host: Host) -> None:
        """Wait until a host's containers are reached, and let its losses count from then on."""
        began_s = time.monotonic()
        if what.startswith("agent-"):
            wait_until(host.ready, RECOVER_S, f"{host.name} to be ready again", every_s=0.3)
        for end in self._traffic.of_host(host.name):
            self._traffic.follow(end)
        others = [name for name in self._reached() if name != host.name]
        self._traffic.wait_answers(host.name, others, RECOVER_S)
        took_s = time.monotonic() - began_s
        self.longest_s[what] = max(took_s, self.longest_s.get(what, 0.0))
        for window in self._windows.pop(host.name):
            window.end_s = time.monotonic() + _SETTLE_S

    def _open(self, name: str, why: str, begin_s: float, others: list[str] | None = None) -> None:
        """Explain losses of a host until it has recovered."""
        self._windows[name].append(self._losses.open(why, [name], begin_s, others=others))

    def _absent(self) -> list[str]:
        """Return the hosts whose agent does not run: it follows nothing that others do."""
        return [name for name, what in self._faults.items() if what.startswith("agent-")]

    def _open_for_absent(self, why: str, moved: str) -> None:
        """Explain losses between a host that moved or is back, and those that do not know it.

        An agent that took the host for dead and then stopped keeps its subnet unreachable.
        """
        for name in self._absent():
            what = f"{why}, {self._faults[name]} {name}"
            self._open(name, what, time.monotonic(), others=[moved])

    def _move_away(self, host: Host) -> None:
        head, _, number = host.address.rpartition(".")
        self._move(host, f"{head}.{int(number) + _MOVED_BY}")

    def _move_back(self, host: Host) -> None:
        self._move(host, host.address)

    def _move(self, host: Host, address: str) -> None:
        """Give a host another node address, as a DHCP client does: the old one goes first."""
        port = host.port("eth0")
        lines = [f"address del {self.addresses[host.name]}/24 dev eth0"]
        lines += [f"address add {address}/24 brd + dev eth0"]
        lines += [f"route replace default via {gateway}" for gateway in port.gateways]
        proc = host.proc()
        assert proc is not None
        net.ip_batch(proc, lines)
        self.addresses[host.name] = address

    def _delete_lease(self, host: Host) -> None:
        """Delete the host's key: a leave for its peers, until the host has written it again."""
        subnet = (host.lease() or "").replace("/", "-")
        self.member().etcdctl("del", f"{PREFIX}subnets/{subnet}")

    # -- the mesh

    def _wipe(self, why: str) -> None:
        """Delete the mesh's whole prefix.

        A host whose agent does not run cannot register again. Its peers delete its routes when
        the grace time is over (docs/operations.md), which explains losses from then on.
        """
        self.member().etcdctl("del", "--prefix", PREFIX)
        from_s = time.monotonic() + GRACE_S - _SETTLE_S
        for name in self._absent():
            self._open(name, f"{why}, {self._faults[name]} {name}", from_s)

    def _compact(self) -> None:
        member = self.member()
        answer = json.loads(member.etcdctl("get", PREFIX, "-w", "json").stdout)
        # Refused where nothing was written since the last one.
        member.etcdctl("compact", str(answer["header"]["revision"]), check=False)

    def _change_backend(self, why: str, backend: str, steps: list[str]) -> None:
        """Do some of the three steps; each may cost a pair of containers one packet."""
        host = self._lab.hosts[self.healthy()[0]]
        for step in steps:
            name = f"{why}, {step}"
            window = self._losses.open(name, self.addresses, time.monotonic(), at_most=1)
            # Refused until every host has followed the step before.
            command = partial(_succeeds, host, "config", "set", "--backend", backend, f"--{step}")
            wait_until(command, RECOVER_S, f"{name} to be possible", every_s=0.5)
            window.end_s = time.monotonic() + _SETTLE_S

    # -- networks, and a host that comes and goes

    def _create_network(self, step: Step) -> None:
        """Create a network, and a container of it on two hosts."""
        name, healthy = step.subject, self.healthy()
        at = int(name.removeprefix("walk")) % len(healthy)
        chosen = [*healthy[at:], *healthy[:at]][:2]
        ends = tuple(End(host, name, name) for host in chosen)
        # Hosts with a fault make the exit status 1; they make their part later.
        self._lab.hosts[chosen[0]].agentctl(
            "network", "create", name, check=False, timeout_s=_COMMAND_S
        )
        for each in chosen:
            host = self._lab.hosts[each]
            wait_until(lambda host=host: _has_network(host, name), RECOVER_S, f"{name} on {each}")  # type: ignore[misc]
            host.start_container(name, network=name, options=["--restart=always"])
        with self._excused(str(step), [end.name for end in ends]):
            for end in ends:
                self._traffic.follow(end)
            self._traffic.wait_answers(chosen[0], chosen[1:], RECOVER_S)
        self.networks[name] = ends

    def _remove_network(self, step: Step) -> None:
        name = step.subject
        ends = self.networks.pop(name)
        with self._excused(str(step), [end.name for end in ends]):
            for end in ends:
                self._traffic.forget(end)
                self._lab.hosts[end.host].remove_container(name)
        some_host = self._lab.hosts[self.healthy()[0]]
        some_host.agentctl("network", "rm", name, timeout_s=_COMMAND_S)
        for each in self.addresses:
            host = self._lab.hosts[each]
            wait_until(
                lambda host=host: not _has_network(host, name),  # type: ignore[misc]
                RECOVER_S,
                f"{each} to remove {name}",
            )

    def _admit(self, step: Step) -> None:
        """Boot a host that was never in the mesh."""
        with self._excused(str(step), [step.subject]):
            host = self._lab.join()
            if host.name != step.subject:
                raise LabError(f"the lab's next host is {host.name}, not {step.subject}")
            wait_until(host.ready, RECOVER_S, f"{host.name} to be ready", every_s=0.3)
            self.addresses[host.name] = host.address
            host.start_container("web", options=["--restart=always"])
            self._traffic.follow(End(host.name))
            others = [name for name in self.healthy() if name != host.name]
            self._traffic.wait_answers(host.name, others, RECOVER_S)

    def _dismiss(self, step: Step) -> None:
        """Have a host leave, and throw it away."""
        host = self._lab.hosts[step.subject]
        with self._excused(str(step), [host.name]):
            for end in self._traffic.of_host(host.name):
                self._traffic.forget(end)
            self._leave(host)
            host.destroy()
        del self._lab.hosts[host.name], self.addresses[host.name]

    def _leave(self, host: Host) -> None:
        """Leave; what a busy machine does not do in time, the agent goes on to do.

        Docker keeps a network that a container uses, and a host has not left while it is there.
        """
        for name, ends in self.networks.items():
            for end in (each for each in ends if each.host == host.name):
                self._traffic.forget(end)
                host.remove_container(name)
            self.networks[name] = tuple(each for each in ends if each.host != host.name)
        host.agentctl("leave", "--force", check=False, timeout_s=_COMMAND_S)
        wait_until(lambda: _has_left(host), RECOVER_S, f"{host.name} to have left", every_s=0.3)

    @contextmanager
    def _excused(self, why: str, ends: list[str]) -> Iterator[None]:
        window = self._losses.open(why, ends, time.monotonic())
        yield
        window.end_s = time.monotonic() + _SETTLE_S


_LATER = ["switch", "finish"]


def _has_left(host: Host) -> bool:
    left = host.status().get("state") == "left" and "leave-not-finished" not in host.conditions()
    return left and host.addresses("docker0") == ["172.17.0.1/16"] and not host.mesh_routes()


def _join(host: Host) -> None:
    """Join again; Docker restarts under running containers only when the operator says so."""
    host.agentctl("join", timeout_s=_COMMAND_S)
    host.wait_condition("docker-restart-pending", RECOVER_S)
    host.agentctl("docker", "restart", "--now", "--yes", timeout_s=_COMMAND_S)
    wait_until(host.ready, RECOVER_S, f"{host.name} to be ready again", every_s=0.3)


def _succeeds(host: Host, *words: str) -> bool:
    return host.agentctl(*words, check=False, timeout_s=_COMMAND_S).returncode == 0


def _has_network(host: Host, name: str) -> bool:
    return host.docker("network", "inspect", name, check=False).returncode == 0
