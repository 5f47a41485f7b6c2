"""Choose the steps of a walk from a seed alone, so that a walk can be repeated. Pure.

A walk is a sequence of rounds. In a round faults begin, overlap and end in any order. Then all of
them are ended and the mesh is compared with its leases ("compare").
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

__all__ = ["BACKENDS", "HOST_FAULTS", "HOST_ONCE", "MEMBER_FAULTS", "MESH_ONCE", "Plan", "Step"]

BACKENDS = ("host-gw", "vxlan", "wireguard")
HOST_FAULTS = (
    "agent-down",
    "agent-stopped",
    "agent-frozen",
    "cable-down",
    "cable-silent",
    "powered-off",
    "left",
    "moved",
)
"""Last until they are ended: the agent after kill -9, SIGTERM, SIGSTOP; a new node address."""
HOST_ONCE = ("agent-killed", "docker-restarted", "lease-deleted")
MEMBER_FAULTS = ("etcd-killed", "etcd-frozen", "etcd-off")
MESH_ONCE = ("wiped", "compacted")
_KINDS = (
    *(("begin", each) for each in (*HOST_FAULTS, *MEMBER_FAULTS)),
    *(("once", each) for each in (*HOST_ONCE, *MESH_ONCE)),
    *(("begin", each) for each in ("backend", "network", "newcomer")),
    *(("end", each) for each in ("host", "member")),
)
_STEPS = (5, 9)
_DWELL_S = (3.0, 9.0)
_HEALTHY = 2
"""Hosts without a fault at any time: their pings must not lose anything."""
_NETWORKS = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        act: "begin" or "end" something that lasts, do something "once", or "compare".
        subject: A host, a member of etcd, a backend or a network; "" for the mesh.
        dwell_s: How long to go on pinging afterwards.
    """

    number: int
    act: str
    what: str = ""
    subject: str = ""
    dwell_s: float = 0.0

    def __str__(self) -> str:
        """For the list of steps that a run prints."""
        words = " ".join(each for each in (self.act, self.what, self.subject) if each)
        return f"step {self.number}: {words}"


@dataclass
class _Mesh:
    """Everything that lasts at a moment of the walk, by subject."""

    hosts: dict[str, str]
    members: dict[str, str]
    backend: str = BACKENDS[0]
    prepared: str = ""
    networks: dict[str, None] = field(default_factory=dict)
    newcomer: str = ""
    wiped: bool = False

    def healthy(self) -> list[str]:
        return [name for name, fault in self.hosts.items() if not fault]

    def faulty(self) -> list[str]:
        return [name for name, fault in self.hosts.items() if fault]


class Plan:
    """The steps of one walk.

    Args:
        seed: The same seed gives the same steps.
        hosts, members: Names of the lab's hosts and members of etcd.
    """

    def __init__(self, seed: int, hosts: list[str], members: list[str]) -> None:
        # Not for secrets.
        self._choose = random.Random(seed)  # noqa: S311
        self._mesh = _Mesh(dict.fromkeys(hosts, ""), dict.fromkeys(members, ""))
        self._number = 0
        self._made = 0
        self._steps = self._rounds()

    def next(self) -> Step:
        """Return the next step."""
        return next(self._steps)

    def closing(self) -> Iterator[Step]:
        """Yield the steps that end everything that lasts, and bring the first backend back."""
        yield from self._recover()
        yield from self._end_changes(all_of_them=True)
        if self._mesh.backend != BACKENDS[0]:
            yield self._begin("backend", BACKENDS[0])
            yield self._end("backend", BACKENDS[0])
        yield self._step("compare")

    # -- rounds

    def _rounds(self) -> Iterator[Step]:
        while True:
            for _ in range(self._choose.randint(*_STEPS)):
                yield self._random_step()
            yield from self._recover()
            yield from self._end_changes(all_of_them=False)

    def _recover(self) -> Iterator[Step]:
        """End the faults of hosts and of etcd in any order, then compare."""
        mesh = self._mesh
        ongoing = [*mesh.faulty(), *(name for name, fault in mesh.members.items() if fault)]
        self._choose.shuffle(ongoing)
        for name in ongoing:
            yield self._end_of(name)
        mesh.wiped = False
        yield self._step("compare")

    def _end_changes(self, *, all_of_them: bool) -> Iterator[Step]:
        """End what needs a mesh in order: a change of backend, networks, the newcomer's stay."""
        mesh = self._mesh
        if mesh.prepared:
            yield self._end("backend", mesh.prepared)
        for name in list(mesh.networks):
            if all_of_them or self._choose.random() < 0.5:
                yield self._end("network", name)
        if mesh.newcomer and (all_of_them or self._choose.random() < 0.5):
            yield self._end("newcomer", mesh.newcomer)

    def _random_step(self) -> Step:
        while True:
            act, what = self._choose.choice(_KINDS)
            subjects = self._subjects(act, what)
            if subjects:
                subject = self._choose.choice(subjects)
                break
        if act == "end":
            return self._end_of(subject)
        return self._begin(what, subject) if act == "begin" else self._once(what, subject)

    def _subjects(self, act: str, what: str) -> list[str]:
        """Return what a step of this kind may be done to now; none where it may not be done."""
        mesh = self._mesh
        healthy, faulty = mesh.healthy(), mesh.faulty()
        down = [name for name, fault in mesh.members.items() if fault]
        if act == "end":
            return {"host": faulty, "member": down}[what]
        calm = not (faulty or down or mesh.wiped)
        spare = len(healthy) > _HEALTHY
        allowed = {
            **dict.fromkeys((*HOST_FAULTS, "docker-restarted"), healthy if spare else []),
            **dict.fromkeys(("agent-killed", "lease-deleted"), healthy),
            **dict.fromkeys(MEMBER_FAULTS, [] if down else list(mesh.members)),
            # The record of a network is the operator's, so it does not come back.
            "wiped": [] if mesh.networks or mesh.wiped else [""],
            "compacted": [""],
            "backend": [
                each for each in BACKENDS if calm and not mesh.prepared and each != mesh.backend
            ],
            "network": [f"walk{self._made + 1}"]
            if len(mesh.networks) < _NETWORKS and not mesh.wiped
            else [],
            "newcomer": [f"host{len(mesh.hosts) + 1}"] if calm and not mesh.newcomer else [],
        }
        return allowed[what]

    # -- single steps, and what is so after them

    def _step(self, act: str, what: str = "", subject: str = "") -> Step:
        self._number += 1
        step = Step(self._number, act, what, subject)
        return step if act == "compare" else replace(step, dwell_s=self._dwell_s())

    def _dwell_s(self) -> float:
        return round(self._choose.uniform(*_DWELL_S), 1)

    def _once(self, what: str, subject: str) -> Step:
        self._mesh.wiped = self._mesh.wiped or what == "wiped"
        return self._step("once", what, subject)

    def _begin(self, what: str, subject: str) -> Step:
        mesh = self._mesh
        if what == "backend":
            mesh.prepared = subject
        elif what == "network":
            self._made += 1
            mesh.networks[subject] = None
        elif what == "newcomer":
            mesh.newcomer = subject
            mesh.hosts[subject] = ""
        else:
            (mesh.hosts if subject in mesh.hosts else mesh.members)[subject] = what
        return self._step("begin", what, subject)

    def _end_of(self, name: str) -> Step:
        """End the fault of a host or a member."""
        faults = self._mesh.hosts if name in self._mesh.hosts else self._mesh.members
        what, faults[name] = faults[name], ""
        return self._step("end", what, name)

    def _end(self, what: str, subject: str) -> Step:
        mesh = self._mesh
        if what == "backend":
            mesh.backend, mesh.prepared = subject, ""
        elif what == "network":
            del mesh.networks[subject]
        else:
            mesh.newcomer = ""
            del mesh.hosts[subject]
        return self._step("end", what, subject)
