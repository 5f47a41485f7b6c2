"""A host without a dockerd: an engine that reads daemon.json as dockerd does, and has networks."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from agent.docker.attach.daemon_json import DaemonJsonAttacher
from agent.docker.attach.detach import Detacher
from agent.docker.attach.managed import ManagedDocker
from agent.docker.attach.network import NetworkAttacher
from agent.docker.daemonjson.desired import DesiredDocker, desired_docker
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.engine.engine import Engine
from agent.docker.engine.reading import (
    BRIDGE_NAME,
    NETWORK_DRIVER_MTU,
    EngineKind,
    EngineReading,
)
from agent.docker.networks.maker import NetworkMaker
from agent.docker.report import AttachReport
from agent.docker.service.dockerd_process import DaemonProcess, DockerdFinder
from agent.docker.service.dockerd_program import DockerdProgram
from agent.docker.service.restart_policy import Hold, Override
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.errors import DockerError
from agent.model import DockerFacts, DockerNetwork
from agent.model.family import Interface, Network
from agent.programs import Finished
from agent.settings import DockerSettings

DESIRED = desired_docker(IPv4Network("10.64.0.0/16"), 1500)
OLD = IPv4Interface("172.17.0.1/16")
PREVIOUS = '{\n  "bip": "172.17.0.1/16"\n}\n'
"""daemon.json while docker0 waits to be given back, where there was no file before."""


@dataclass
class World:
    """A host: its dockerd, and what a restart of it does."""

    file: Path
    version: str = "20.10.24"
    running: tuple[str, ...] = ()
    live_restore: bool = False
    up: bool = True
    kind: EngineKind = EngineKind.DOCKER
    bip: Interface = OLD
    pools: tuple[tuple[Network, int], ...] = ()
    mtu: int = 1500
    networks: tuple[DockerNetwork, ...] = ()
    breaks: Callable[[dict[str, object]], str] = lambda _: ""
    argv: tuple[str, ...] = ("dockerd",)
    restarts: int = 0
    swarm: str = "inactive"
    commands: list[tuple[str, ...]] = field(default_factory=list)
    stay: tuple[str, ...] = ()
    asked: list[bool] = field(default_factory=list)
    own: DockerNetwork | None = None
    users: tuple[str, ...] = ()
    made: int = 0
    ended: tuple[str, ...] = ()
    meanwhile: list[Callable[[], None]] = field(default_factory=list)

    def read(self) -> EngineReading:
        if self.kind is EngineKind.PODMAN:
            facts = DockerFacts(reachable=False, problem="podman answers on x, not Docker")
            return EngineReading(kind=self.kind, facts=facts)
        if not self.up:
            facts = DockerFacts(reachable=False, problem="refused")
            return EngineReading(kind=EngineKind.ABSENT, facts=facts)
        default = DockerNetwork(
            id="b",
            name="bridge",
            bridge="docker0",
            subnet=self.bip.network,
            default=True,
            address=self.bip,
            mtu=self.mtu,
        )
        ours = () if self.own is None else (self.own,)
        facts = DockerFacts(
            reachable=True,
            version=self.version,
            bridge=default,
            networks=(default, *self.networks, *ours),
            running=self.running,
            live_restore=self.live_restore,
        )
        return EngineReading(
            kind=EngineKind.DOCKER,
            facts=facts,
            pools=self.pools,
            swarm=self.swarm,
        )

    def run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        """Be the restart command: dockerd reads its file."""
        del timeout_s
        self.commands.append(tuple(argv))
        if argv[0] != "restart-docker":
            return Finished(None, "not here")
        self.restarts += 1
        given = json.loads(self.file.read_text() or "{}") if self.file.exists() else {}
        why = self.breaks(given)
        self.up = not why
        if why:
            return Finished(1, why)
        if not (self.live_restore and self.running):
            self.bip = IPv4Interface(given.get("bip") or self.bip)
            self.mtu = given.get("mtu", 1500)
        pools = given.get("default-address-pools", [])
        self.pools = tuple((IPv4Network(p["base"]), p["size"]) for p in pools)
        return Finished(0, "")


class FakeEngine(Engine):
    def __init__(self, world: World) -> None:
        super().__init__(Path("/nowhere"))
        self.world = world

    def read(self) -> EngineReading:
        return self.world.read()

    def stay_down(self, expendable: tuple[str, ...] = ()) -> tuple[str, ...]:
        return tuple(name for name in self.world.stay if name not in expendable)

    def ended(self, within_s: float) -> tuple[str, ...]:
        del within_s
        return self.world.ended

    def create_bridge(
        self,
        name: str,
        subnet: Network,
        *,
        options: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        taken = (self.world.bip.network, *(each.subnet for each in self.world.networks))
        if self.world.own or any(subnet.overlaps(each) for each in taken):
            raise DockerError("Pool overlaps with other one on this address space")
        self.world.made += 1
        self.world.own = DockerNetwork(
            id=f"own{self.world.made}",
            name=name,
            labels=labels,
            subnet=subnet,
            bridge=options[BRIDGE_NAME],
            mtu=int(options.get(NETWORK_DRIVER_MTU, 1500)),
        )

    def remove_network(self, identity: str) -> None:
        if self.world.own is None or self.world.own.id != identity or self.world.users:
            raise DockerError("network has active endpoints")
        self.world.own = None

    def users_of(self, network: str) -> tuple[str, ...]:
        del network
        return self.world.users


class FakeProcesses(DockerdFinder):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def dockerd(self) -> DaemonProcess | None:
        return DaemonProcess(7 + self.world.restarts, self.world.argv, 1e6)


class FakeRestartLock:
    """A lock that takes a while to get, and may be lost again."""

    def __init__(self, world: World, allowed: list[bool]) -> None:
        self._world = world
        self._allowed = allowed

    @contextmanager
    def __call__(self, *, asked: bool) -> Iterator[Hold | None]:
        self._world.asked.append(asked)
        for happens in self._world.meanwhile:
            happens()
        yield self.lost() if not self._world.meanwhile else None

    def lost(self) -> Hold | None:
        return None if self._allowed[0] else Hold("host two restarts its Docker", "wait", soon=True)


@dataclass
class Parts:
    world: World
    store: DaemonJsonStore
    by_daemon_json: DaemonJsonAttacher
    detacher: Detacher
    by_network: NetworkAttacher
    stopping: threading.Event
    allowed: list[bool]
    docker: ManagedDocker

    @property
    def text(self) -> str | None:
        return self.world.file.read_text() if self.world.file.exists() else None

    def ensure(self) -> AttachReport:
        return self.by_daemon_json.ensure(DESIRED)

    def restart_now(
        self, desired: DesiredDocker = DESIRED, *, force: bool, replace: bool = False
    ) -> AttachReport:
        override = Override.CONTAINERS if force else Override.POLICY
        return self.by_daemon_json.ensure(desired, override, replace=replace)


def make(world: World, state: Path, settings: DockerSettings) -> Parts:
    stopping = threading.Event()
    allowed = [True]

    engine, processes = FakeEngine(world), FakeProcesses(world)
    service = DockerService(("restart-docker",), 5.0, runner=world, systemd=state / "none")
    store = DaemonJsonStore(world.file, state)
    docker = ManagedDocker(
        settings=settings,
        engine=engine,
        store=store,
        service=service,
        restarter=Restarter(engine, service, store, processes, timeout_s=0.5, stopping=stopping),
        processes=processes,
        program=DockerdProgram(world),
        restart_lock=FakeRestartLock(world, allowed),
    )
    networks = NetworkMaker(engine, lambda: docker.settings.manage)
    detacher = Detacher(docker, networks, lambda: ())
    by_network = NetworkAttacher(docker, detacher)
    by_daemon_json = DaemonJsonAttacher(docker)
    return Parts(world, store, by_daemon_json, detacher, by_network, stopping, allowed, docker)


def names(report: AttachReport) -> set[str]:
    return {condition.name for condition in report.conditions}


def write(world: World, text: str) -> None:
    world.file.parent.mkdir(exist_ok=True)
    world.file.write_text(text)
