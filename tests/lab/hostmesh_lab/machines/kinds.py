"""Configure each kind of machine in the lab: hosts, etcd members, routers, the stranger."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hostmesh_lab import paths, toml
from hostmesh_lab.filesystems import agent_layer, images, libc_image
from hostmesh_lab.machines.config import Bind, Config, Restart, Service
from hostmesh_lab.underlay import topology
from hostmesh_lab.underlay.topology import Forward, Nic, Router, Topology, in_url

LAB_IMAGE = "/run/lab/lab-image.tar"
DAEMON_JSON = "/etc/docker/daemon.json"
SETTINGS = "/etc/hostmesh/agent.toml"
NAME_SERVERS = ("169.254.20.53", "169.254.20.54")
ETCD_DATA = "/var/lib/etcd"
_GUEST = Path(__file__).parents[1] / "guest"
# A distribution sets these; a fresh namespace has the kernel's or the machine's values.
_SYSCTLS = {
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.eth0.rp_filter": "2",
    "net.ipv4.ping_group_range": "0 2147483647",
}
# A package layer has no host keys, since every machine needs its own.
_SSH_KEYS = """\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""


@dataclass(frozen=True)
class HostOptions:
    """Options of a host that a test may choose.

    `mtu` is eth0's, if it is not to be its link's; `links` overrides the topology's places.
    `settings` is merged over the lab's own agent settings, table by table; `settings_text` takes
    the place of the whole file. `reject_forward` ends FORWARD as on the first operator's hosts.
    `systemd` boots a whole machine with systemd as PID 1 (booted.py); with `agent` it runs the
    clone's units and source, without it the disk is a fresh Debian's with Docker. `packages` are
    Debian's, in a layer above the image; their services do not start unasked. `images` are more
    Docker images that it has: lab-glibc, lab-musl. `authorized_key` lets root of a booted machine
    log in by ssh with that key; its `packages` have openssh-server. `names` runs the two name
    servers, which nothing asks unless the mesh has names.
    """

    agent: bool = True
    names: bool = True
    iptables: str = "nft"
    mtu: int | None = None
    reject_forward: bool = False
    docker: bool = True
    daemon_json: Mapping[str, Any] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings_text: str | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    systemd: bool = False
    packages: Sequence[str] = ()
    links: tuple[str, ...] = ()
    images: Sequence[str] = ()
    authorized_key: str = ""


@dataclass(frozen=True)
class Base:
    """The base of a lab's machines. `layers` may have the agent's environment and packages."""

    lab: str
    suite: str
    layers: tuple[str, ...]
    lab_image: str
    topology: Topology = topology.ONE_LAN


def host(base: Base, index: int, options: HostOptions) -> Config:
    """Return a Docker host with an agent."""
    services = [docker_service(options)]
    if _has_agent(base):
        servers = [name_service(each) for each in NAME_SERVERS] if options.names else []
        services = [*servers, *services, agent_service(options)]
    fresh = options.systemd and not options.agent
    number = topology.host_number(index)
    links = options.links or base.topology.place(index)
    return Config(
        base.lab,
        f"host{index}",
        "booted" if options.systemd else "host",
        base.suite,
        _address(base, links[0], number),
        [layer for layer in base.layers if not (fresh and _is_agent(layer))],
        services,
        ports=base.topology.ports(
            f"host{index}", tuple(Nic(link, number) for link in links), options.mtu
        ),
        sysctls={**_SYSCTLS, **options.sysctls},
        commands=_first_commands(options),
        binds=[
            Bind(str(paths.clone_root() / "agent"), f"{agent_layer.SOURCE}/agent"),
            Bind(base.lab_image, LAB_IMAGE),
            *(Bind(_archive(base, name), f"/run/lab/{name}.tar") for name in options.images),
        ],
    )


def _address(base: Base, link: str, number: int) -> str:
    """Return a machine's main address on a link; "" on a link without ranges."""
    return next(iter(base.topology.link(link).addresses(number)), "")


def _archive(base: Base, name: str) -> str:
    return str(libc_image.archive(images.image_of(base.suite, base.layers), name))


def load_commands(names: Sequence[str]) -> list[str]:
    """Shell commands by which Docker gets the lab's images; one that it has is not loaded again."""
    archives = {"lab": LAB_IMAGE, **{name: f"/run/lab/{name}.tar" for name in names}}
    return [
        f"docker image inspect {name} >/dev/null 2>&1 || docker load -q -i {archive}"
        for name, archive in archives.items()
    ]


def _has_agent(base: Base) -> bool:
    return any(map(_is_agent, base.layers))


def _is_agent(layer: str) -> bool:
    return (Path(layer) / "usr/local/bin/hostmesh-agent").exists()


def _first_commands(options: HostOptions) -> list[list[str]]:
    """Return the services before Docker: the choice of iptables, the operator's own rules."""
    commands = [
        ["update-alternatives", "--set", name, f"/usr/sbin/{name}-{options.iptables}"]
        for name in ("iptables", "ip6tables")
    ]
    if options.names and not options.systemd:  # their units do it there
        commands += [
            ["ip", "address", "replace", f"{each}/32", "dev", "lo"] for each in NAME_SERVERS
        ]
        commands.append(["mkdir", "-p", "/run/hostmesh-dns", "/var/lib/hostmesh/names"])
    if options.reject_forward:
        reject = ["-j", "REJECT", "--reject-with", "icmp-host-prohibited"]
        commands.append(["iptables", "-A", "FORWARD", *reject])
    return commands


def docker_service(options: HostOptions) -> Service:
    """dockerd as its unit runs it: without flags that would forbid keys in daemon.json."""
    return Service(
        "docker",
        ["dockerd"],
        {"kind": "ping", "path": "/run/docker.sock"},
        restart=Restart(delay_s=2, max_delay_s=2, burst=3),
        autostart=options.docker,
        # Loaded once: afterwards it is on the disk.
        afterwards=[["sh", "-c", command] for command in load_commands(options.images)],
    )


def agent_service(options: HostOptions) -> Service:
    """Return the agent, always restarted, as its unit has it."""
    return Service(
        "agent",
        ["/usr/local/bin/hostmesh-agent"],
        {"kind": "settled", "seconds": 0.3},
        restart=Restart(delay_s=1, max_delay_s=10),
        autostart=options.agent,
    )


def name_service(address: str) -> Service:
    """Return one of a host's two name servers, always restarted, as its unit has it."""
    return Service(
        f"dns-{address.rpartition('.')[2]}",
        ["/usr/local/bin/hostmesh-dns", "--listen", address],
        {"kind": "port", "host": address, "port": 53},
        restart=Restart(delay_s=0.1, max_delay_s=0.1),
    )


def host_files(
    options: HostOptions, endpoints: Sequence[str], nameservers: Sequence[str] = ()
) -> dict[str, str]:
    """Return a host's configuration files. Only the settings file differs from a real host's."""
    files = {"/etc/resolv.conf": "".join(f"nameserver {each}\n" for each in nameservers)}
    if options.agent or not options.systemd:
        files[SETTINGS] = settings_text(options, endpoints)
    if options.authorized_key:
        units = "/etc/systemd/system"
        files["/root/.ssh/authorized_keys"] = options.authorized_key
        files[f"{units}/multi-user.target.d/ssh.conf"] = "[Unit]\nWants=ssh.service\n"
        files[f"{units}/ssh.service.d/keys.conf"] = _SSH_KEYS
    if options.daemon_json is not None:
        files[DAEMON_JSON] = json.dumps(options.daemon_json, indent=2) + "\n"
    return files


def settings_text(options: HostOptions, endpoints: Sequence[str]) -> str:
    """Return the agent's settings file."""
    if options.settings_text is not None:
        return options.settings_text
    tables: dict[str, dict[str, Any]] = {"etcd": {"endpoints": list(endpoints)}}
    if not options.systemd:
        restart = ["/usr/local/sbin/lab-service", "restart", "docker"]
        tables["docker"] = {"restart_command": restart}
    for name, values in options.settings.items():
        tables[name] = {**tables.get(name, {}), **values}
    return toml.dumps(tables)


def etcd(base: Base, index: int, members: int, token: str) -> Config:
    """Return one member of the lab's etcd."""
    first = base.topology.first.name
    number = topology.etcd_number(index)
    address = _address(base, first, number)
    host = in_url(address)
    others = [
        (n, in_url(_address(base, first, topology.etcd_number(n)))) for n in range(1, members + 1)
    ]
    cluster = ",".join(f"etcd{n}=http://{other}:2380" for n, other in others)
    argv = [
        "etcd",
        "--name",
        f"etcd{index}",
        "--data-dir",
        f"{ETCD_DATA}/{token}",
        "--listen-client-urls",
        f"http://{'[::]' if ':' in address else '0.0.0.0'}:2379",
        "--advertise-client-urls",
        f"http://{host}:2379",
        "--listen-peer-urls",
        f"http://{host}:2380",
        "--initial-advertise-peer-urls",
        f"http://{host}:2380",
        "--initial-cluster",
        cluster,
        "--initial-cluster-token",
        token,
        "--initial-cluster-state",
        "new",
    ]
    service = Service(
        "etcd",
        argv,
        {"kind": "port", "host": address, "port": 2379},
        restart=None,
        stop_timeout_s=10,
    )
    return _on_first_link(base, f"etcd{index}", "etcd", number, [service])


def _on_first_link(
    base: Base, name: str, kind: str, number: int, services: list[Service]
) -> Config:
    """Return a machine that is no host, on the topology's first link."""
    link = base.topology.first.name
    return Config(
        base.lab,
        name,
        kind,
        base.suite,
        _address(base, link, number),
        list(base.layers),
        services,
        ports=base.topology.ports(name, (Nic(link, number),)),
    )


def router(base: Base, described: Router) -> Config:
    """A router between links; the world, too, whose web servers tell clients their address."""
    web = _outside(base, described)
    commands = [["ip", "address", "add", address, "dev", "lo"] for address in web]
    commands += [["ip", "route", "add", network, "via", via] for network, via in described.routes]
    if described.masquerade:
        commands += _nat(described.forwards)
    first = described.nics[0]
    return Config(
        base.lab,
        described.name,
        "gateway" if described.outside else "router",
        base.suite,
        _address(base, first.link, first.number),
        list(base.layers),
        [_web_service(address) for address in web],
        ports=base.topology.ports(described.name, described.nics),
        sysctls={
            "net.ipv4.ip_forward": "1",
            "net.ipv6.conf.all.forwarding": "1",
            "net.ipv4.conf.all.send_redirects": "0",
            **{f"net.ipv4.conf.eth{n}.send_redirects": "0" for n in range(len(described.nics))},
        },
        commands=commands,
        binds=[Bind(str(_GUEST / "world_web.py"), "/run/lab/world_web.py")] if web else [],
    )


def _outside(base: Base, router: Router) -> list[str]:
    """Return the addresses outside that a router has, of the families of its links."""
    links = [base.topology.link(nic.link) for nic in router.nics if router.outside]
    v4 = [topology.OUTSIDE] if any(link.v4 for link in links) else []
    return [*v4, topology.OUTSIDE6] if any(link.v6 for link in links) else v4


def _web_service(address: str) -> Service:
    argv = ["/usr/bin/python3", "-I", "-B", "/run/lab/world_web.py", address, "80"]
    name = "web6" if ":" in address else "web"
    return Service(name, argv, {"kind": "port", "host": address, "port": 80})


def _nat(forwards: Sequence[Forward]) -> list[list[str]]:
    """Return the rules of a NAT router: out by eth0 with its address, in only what is asked for."""
    rules = [
        "-t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "-A FORWARD ! -i eth0 -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j ACCEPT",
        "-P FORWARD DROP",
    ]
    rules += [
        f"-t nat -A PREROUTING -i eth0 -p {each.protocol} --dport {each.port}"
        f" -j DNAT --to-destination {each.to}"
        for each in forwards
    ]
    return [["iptables", *rule.split()] for rule in rules]


def dns(base: Base) -> Config:
    """Return the name server of the hosts' resolv.conf, on the first link."""
    addresses = base.topology.first.addresses(topology.DNS)
    argv = ["/usr/bin/python3", "-I", "-B", "/run/lab/dns_server.py", "/etc/lab-dns.json"]
    ready = {"kind": "port", "host": addresses[0], "port": 53}
    service = Service("dns", [*argv, *addresses], ready)
    config = _on_first_link(base, "dns", "dns", topology.DNS, [service])
    program = Bind(str(_GUEST / "dns_server.py"), "/run/lab/dns_server.py")
    return replace(config, binds=[program])


def stranger(base: Base) -> Config:
    """Return a machine on the first link that is no part of the mesh."""
    return _on_first_link(base, "stranger", "stranger", topology.STRANGER, [])
