"""A whole lab: some hosts, their etcd, a LAN and a world around it.

with Lab.up(LabOptions(name="mytest", hosts=2)) as lab:
    lab.hosts["host1"].run(["docker", "ps"])
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any

from hostmesh_lab import cgroups, paths, state
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images, layers
from hostmesh_lab.machines import kinds
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.config import Config
from hostmesh_lab.machines.dns import DnsServer
from hostmesh_lab.machines.etcd import EtcdMember
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.parallel import in_parallel
from hostmesh_lab.processes import machine_boot_id, require_root
from hostmesh_lab.underlay import net, wireguard
from hostmesh_lab.underlay.topology import (
    BACKENDS,
    DNS,
    ONE_LAN,
    Topology,
    etcd_number,
    host_number,
    in_url,
)

_REPORT = """exec 2>&1; set -x
cat /etc/docker/daemon.json /etc/hostmesh/agent.toml
ip -d address; ip rule; ip route show table all; ip neighbour; bridge fdb
iptables-save -c; iptables-legacy-save -c; ipset list; conntrack -L
docker ps -a; docker network inspect bridge; agentctl status; agentctl leases"""
_HOST_BYTES = 400 * 1024**2
CIDR = "10.64.0.0/10"


@dataclass(frozen=True)
class LabOptions:
    """The parts of a lab. An owned lab is cleared by the next if the process that made it dies.

    `host` holds for every host; `hosts_differ` names hosts with options of their own. With `cidr`
    the mesh's config is in etcd before its hosts boot, and in the agents' settings; None leaves it
    to `agentctl config init`. `backend` is the config's Backend object. `packages` are Debian's, on
    every machine; a host may have more.
    """

    name: str = "lab"
    hosts: int = 3
    suite: str = images.DEFAULT_SUITE
    etcd_members: int = 1
    host: HostOptions = field(default_factory=HostOptions)
    hosts_differ: Mapping[str, HostOptions] = field(default_factory=dict)
    cidr: str | None = CIDR
    owned: bool = True
    packages: Sequence[str] = ()
    topology: Topology = ONE_LAN
    backend: Mapping[str, Any] = field(default_factory=lambda: {"Type": BACKENDS[0]})

    @property
    def all_packages(self) -> Sequence[str]:
        """Return Debian's packages for every machine, with those of the backend."""
        tunnel = wireguard.PACKAGES if self.backend["Type"] == "wireguard" else ()
        return [*self.packages, *tunnel]


class Lab:
    """A lab that runs. Leaving it as a context manager ends it."""

    def __init__(self, record: state.Record) -> None:
        self.record = record
        self.name = record.name
        self.hosts: dict[str, Host] = {}
        self.etcd: dict[str, EtcdMember] = {}
        self.world: Machine | None = None
        self.stranger: Machine | None = None
        self.routers: dict[str, Machine] = {}
        self.name_servers: dict[str, DnsServer] = {}
        self.topology = Topology.of(record.topology) if record.topology else ONE_LAN
        self._adopt_all()

    # -- making and finding

    @classmethod
    def up(cls, options: LabOptions, say: images.Say = lambda _: None) -> "Lab":
        """Make a lab and return when every service of every machine is up."""
        paths.checked_name(options.name)
        require_root()
        cleared = state.clear_dead_labs(except_for=options.name)
        for name in cleared:
            say(f"cleared what was left of lab {name}")
        stack, lab_image = prepare(options, say)
        with state.locked(options.name):
            _require_free_name(options.name, say)
            return cls._make(options, stack, lab_image, say)

    @classmethod
    def _make(cls, options: LabOptions, stack: list[str], lab_image: str, say: images.Say) -> "Lab":
        host_number(max(1, options.hosts))
        paths.disk_root().mkdir(parents=True, exist_ok=True)
        images.require_space(paths.disk_root(), _HOST_BYTES * (options.hosts + 1), "fewer --hosts")
        owner = state.this_process() if options.owned else (0, 0)
        group = cgroups.lab_group(options.name) / "holder"
        try:
            holder = net.start_holder(group, options.topology.links)
            record = state.Record(
                options.name,
                options.suite,
                stack,
                lab_image,
                options.etcd_members,
                asdict(_completed(options.host, options)),
                machine_boot_id(),
                holder.pid,
                holder.start,
                *owner,
                topology=asdict(options.topology),
            )
            record.save()
            lab = cls(record)
            lab._populate(options, say)
        except BaseException:
            state.clear(options.name)
            raise
        return lab

    @classmethod
    def open(cls, name: str = "lab") -> "Lab":
        """Return the lab of that name, whichever process made it."""
        require_root()
        record = state.load(paths.checked_name(name))
        if record is None:
            others = ", ".join(state.known_names())
            raise LabError(
                f"there is no lab {name!r}",
                f"--name, one of: {others}" if others else "hostmesh-lab up",
            )
        if not record.alive():
            raise LabError(
                f"lab {name!r} was killed", "hostmesh-lab down clears it, up replaces it"
            )
        return cls(record)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def down(self) -> None:
        """End the lab and remove everything of it."""
        with state.locked(self.name):
            state.clear(self.name)

    # -- its machines

    def _base(self, packages: Sequence[str]) -> kinds.Base:
        suite = self.record.suite
        stack = layers.with_packages(self.record.layers, suite, packages)
        return kinds.Base(self.name, suite, stack, self.record.lab_image, self.topology)

    def _adopt_all(self) -> None:
        folder = paths.disk_root() / self.name
        for path in sorted(
            folder.glob("*/machine.json"), key=lambda p: (len(p.parent.name), p.parent.name)
        ):
            self._adopt(Config.load(path))

    def _adopt(self, config: Config) -> Machine:
        if config.kind in ("host", "booted"):
            made = (BootedHost if config.kind == "booted" else Host)(config, self.record.holder)
            machine: Machine = self.hosts.setdefault(config.name, made)
        elif config.kind == "etcd":
            machine = self.etcd.setdefault(config.name, EtcdMember(config, self.record.holder))
        elif config.kind == "dns":
            server = DnsServer(config, self.record.holder)
            machine = self.name_servers.setdefault(config.name, server)
        else:
            machine = Machine(config, self.record.holder)
            if config.kind == "gateway":
                self.world = machine
            if config.kind in ("gateway", "router"):
                machine = self.routers.setdefault(config.name, machine)
            else:
                self.stranger = machine
        return machine

    def _populate(self, options: LabOptions, say: images.Say) -> None:
        say(f"booting {options.hosts} hosts and {options.etcd_members} etcd")
        for link in self.topology.links:
            if link.drop_udp:
                self.drop_udp(link.name, link.drop_udp)
        base, token = self._base(options.all_packages), f"lab-{self.name}"
        configs = [kinds.router(base, router) for router in self.topology.routers]
        configs += [kinds.stranger(base), kinds.dns(base)]
        members = options.etcd_members
        configs += [kinds.etcd(base, n, members, token) for n in range(1, members + 1)]
        others = [self._adopt(config) for config in configs]
        for machine in others:
            machine.create_disk({})
        hosts = [self._new_host(n, options) for n in range(1, options.hosts + 1)]
        # etcd first: an agent that finds it at once does not wait out a back-off.
        in_parallel(lambda machine: machine.power_on(), others, self._cut_power)
        in_parallel(lambda machine: machine.wait_booted(), others, self._cut_power)
        mesh = _completed(options.host, options).settings.get("mesh")
        if mesh and options.host.agent and self.etcd:
            self._create_mesh(mesh, options.backend)
        in_parallel(lambda machine: machine.boot(), hosts, self._cut_power)

    def _create_mesh(self, mesh: Mapping[str, Any], backend: Mapping[str, Any]) -> None:
        """Write the config as `agentctl config init` does for the operator.

        An agent that brings it in its settings has new claims wait: it cannot know that there
        was no mesh before.
        """
        cidr, length = IPv4Network(mesh["cidr"]), int(mesh.get("subnet_len", 16))
        last = cidr.broadcast_address - ((1 << (32 - length)) - 1)
        config = {
            "Network": str(cidr),
            "SubnetLen": length,
            "SubnetMin": mesh.get("subnet_min", str(cidr.network_address)),
            "SubnetMax": mesh.get("subnet_max", str(last)),
            "Backend": dict(backend),
        }
        self.etcdctl("put", "/hostmesh/config", json.dumps(config))

    def _cut_power(self) -> None:
        cgroups.kill(cgroups.lab_group(self.name))

    def _new_host(self, index: int, options: LabOptions) -> Host:
        name = f"host{index}"
        chosen = options.hosts_differ.get(name, options.host)
        return self._create_host(index, _completed(chosen, options))

    def _create_host(self, index: int, chosen: HostOptions) -> Host:
        if set(wireguard.PACKAGES) <= set(chosen.packages):
            own = wireguard.settings(self.topology, index)
            chosen = replace(chosen, settings=_over(own, chosen))
        config = kinds.host(self._base(chosen.packages), index, chosen)
        host = self._adopt(config)
        assert isinstance(host, Host)
        servers = self.topology.first.addresses(DNS)
        host.create_disk(kinds.host_files(chosen, self.endpoints(), servers))
        return host

    def join(self, options: HostOptions | None = None, *, boot: bool = True) -> Host:
        """Add the next host and boot it, or leave that to the caller, who has to do something to
        its disk first. Without options it is like the lab's others."""
        with state.locked(self.name):
            self._adopt_all()
            index = 1 + max((int(name.removeprefix("host")) for name in self.hosts), default=0)
            host = self._create_host(index, options or self.host_defaults())
            if boot:
                host.boot()
            return host

    def host_defaults(self) -> HostOptions:
        """Return the options that the lab's hosts were made with."""
        raw: dict[str, Any] = dict(self.record.host_defaults)
        return HostOptions(**raw)

    def machine(self, name: str) -> Machine:
        """Return the machine of that name, of any kind."""
        everything: dict[str, Machine] = {
            **self.hosts,
            **self.etcd,
            **self.routers,
            **self.name_servers,
        }
        if self.stranger is not None:
            everything[self.stranger.name] = self.stranger
        if name not in everything:
            raise LabError(
                f"no machine {name!r} in lab {self.name}", "one of " + ", ".join(everything)
            )
        return everything[name]

    def host(self, name: str) -> Host:
        """Return the host of that name."""
        machine = self.machine(name)
        if not isinstance(machine, Host):
            raise LabError(f"{name} is no host", "one of " + ", ".join(self.hosts))
        return machine

    # -- etcd

    def endpoints(self) -> list[str]:
        """Return the URLs by which clients reach etcd."""
        numbers = [etcd_number(n) for n in range(1, self.record.etcd_members + 1)]
        addresses = [self.topology.first.addresses(number)[0] for number in numbers]
        return [f"http://{in_url(address)}:2379" for address in addresses]

    # -- the underlay and its names

    @property
    def dns(self) -> DnsServer:
        """The name server of the hosts' resolv.conf."""
        return self.name_servers["dns"]

    def drop_udp(self, link: str, ports: Iterable[int] = ()) -> None:
        """Let a link's switch drop UDP to these ports, and to no other from now on."""
        image = Path(self.record.layers[-1])
        net.drop_udp(self.record.holder, image, self.topology.link(link).name, list(ports))

    def etcdctl(self, *args: str, check: bool = True) -> str:
        """Run etcdctl against the lab's etcd and return what it prints."""
        for member in self.etcd.values():
            if member.proc() is not None:
                argv = ["etcdctl", "--endpoints=" + ",".join(self.endpoints()), *args]
                return member.run(argv, check=check, env={"ETCDCTL_API": "3"}).stdout
        raise LabError("no machine of etcd is on", "hostmesh-lab start etcd1")

    # -- looking

    def wait_ready(self, timeout_s: float = 60.0, hosts: Iterable[str] = ()) -> None:
        """Return when the agents of these hosts (or of all that are on) say that they are ready."""
        names = list(hosts) or [name for name, host in self.hosts.items() if host.proc()]
        deadline = time.monotonic() + timeout_s
        while True:
            late = [name for name in names if not self.hosts[name].ready()]
            if not late:
                return
            if time.monotonic() > deadline:
                raise LabError(
                    f"not ready within {timeout_s:g} s: {', '.join(late)}",
                    f"hostmesh-lab logs {late[0]} --name {self.name}",
                )
            time.sleep(0.2)

    def copy_logs(self, target: Path) -> None:
        """Copy logs, and what kernels and agents say, to a folder that outlives the lab."""
        for folder in sorted((paths.disk_root() / self.name).glob("*/log")):
            shutil.copytree(folder, target / folder.parent.name, dirs_exist_ok=True)
        for name, host in self.hosts.items():
            if host.proc() is not None:
                said = host.run(["sh", "-c", _REPORT], timeout_s=60, check=False)
                (target / name / "state.txt").write_text(said.stdout)


def prepare(options: LabOptions, say: images.Say) -> tuple[list[str], str]:
    """Make whatever is not cached yet of what a lab needs; its layers and Docker's image.

    pytest does it before the first test, whose time-out must not cover a build.
    """
    chosen = [options.host, *options.hosts_differ.values()]
    sets = {tuple(sorted({*options.all_packages, *each.packages})) for each in chosen}
    return layers.ensure(
        options.suite,
        [options.all_packages, *sorted(sets)],
        say,
        agent=options.host.agent,
        libcs=sorted({name for each in chosen for name in each.images}),
    )


def _completed(host: HostOptions, options: LabOptions) -> HostOptions:
    """Return a host's options with what holds for the whole lab: the mesh's range, packages."""
    chosen = replace(host, packages=[*options.all_packages, *host.packages])
    if options.cidr is None or "mesh" in host.settings:
        return chosen
    return replace(chosen, settings={"mesh": {"cidr": options.cidr}, **host.settings})


def _over(own: Mapping[str, Mapping[str, Any]], chosen: HostOptions) -> dict[str, Any]:
    """Put a host's own settings over others, table by table."""
    names = {*own, *chosen.settings}
    return {each: {**own.get(each, {}), **chosen.settings.get(each, {})} for each in names}


def _require_free_name(name: str, say: images.Say) -> None:
    record = state.load(name)
    if record is not None and record.alive() and not record.orphaned():
        raise LabError(
            f"lab {name!r} is up already", f"hostmesh-lab down --name {name}, or another name"
        )
    if name in state.known_names():
        say(f"clearing what was left of lab {name}")
        state.clear(name)
