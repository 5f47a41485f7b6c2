"""What each kind of machine in the lab runs: hosts, etcd members, the gateway, the stranger."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostmesh_lab import agentlayer, net, paths, toml
from hostmesh_lab.config import Bind, Config, Restart, Service

LAB_IMAGE = "/run/lab/lab-image.tar"
DAEMON_JSON = "/etc/docker/daemon.json"
SETTINGS = "/etc/hostmesh/agent.toml"
ETCD_DATA = "/var/lib/etcd"
_WORLD_WEB = Path(__file__).parent / "guest/world_web.py"
# What a distribution sets; a fresh namespace has the kernel's or the machine's values.
_SYSCTLS = {
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.eth0.rp_filter": "2",
    "net.ipv4.ping_group_range": "0 2147483647",
}


@dataclass(frozen=True)
class HostOptions:
    """What a test may choose for a host.

    `settings` is merged over the lab's own agent settings, table by table; `settings_text` takes
    the place of the whole file. `reject_forward` ends FORWARD as on the first operator's hosts.
    `systemd` boots a whole machine with systemd as PID 1 (booted.py); with `agent` it runs the
    clone's units and source, without it the disk is a fresh Debian's with Docker. `packages` are
    Debian's, in a layer above the image; their services do not start unasked.
    """

    agent: bool = True
    iptables: str = "nft"
    mtu: int = 1500
    reject_forward: bool = False
    docker: bool = True
    daemon_json: Mapping[str, Any] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings_text: str | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    systemd: bool = False
    packages: Sequence[str] = ()


@dataclass(frozen=True)
class Base:
    """What a lab's machines share. `layers` may have the agent's environment and packages."""

    lab: str
    suite: str
    layers: tuple[str, ...]
    lab_image: str


def host(base: Base, index: int, options: HostOptions) -> Config:
    """A Docker host with an agent."""
    services = [docker_service(options), agent_service(options)]
    if not _has_agent(base):
        services.pop()
    fresh = options.systemd and not options.agent
    return Config(
        base.lab,
        f"host{index}",
        "booted" if options.systemd else "host",
        base.suite,
        str(net.host_address(index)),
        [layer for layer in base.layers if not (fresh and _is_agent(layer))],
        services,
        mtu=options.mtu,
        sysctls={**_SYSCTLS, **options.sysctls},
        commands=_first_commands(options),
        binds=[
            Bind(str(paths.clone_root() / "agent"), f"{agentlayer.SOURCE}/agent"),
            Bind(base.lab_image, LAB_IMAGE),
        ],
    )


def _has_agent(base: Base) -> bool:
    return any(map(_is_agent, base.layers))


def _is_agent(layer: str) -> bool:
    return (Path(layer) / "usr/local/bin/hostmesh-agent").exists()


def _first_commands(options: HostOptions) -> list[list[str]]:
    """What start-up does before Docker: the choice of iptables, the operator's own rules."""
    commands = [
        ["update-alternatives", "--set", name, f"/usr/sbin/{name}-{options.iptables}"]
        for name in ("iptables", "ip6tables")
    ]
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
        afterwards=[
            [
                "sh",
                "-c",
                f"docker image inspect lab >/dev/null 2>&1 || docker load -q -i {LAB_IMAGE}",
            ]
        ],
    )


def agent_service(options: HostOptions) -> Service:
    """The agent, restarted whatever it ends with, as its unit has it."""
    return Service(
        "agent",
        ["/usr/local/bin/hostmesh-agent"],
        {"kind": "settled", "seconds": 0.3},
        restart=Restart(delay_s=1, max_delay_s=10),
        autostart=options.agent,
    )


def host_files(options: HostOptions, endpoints: Sequence[str]) -> dict[str, str]:
    """A host's configuration files. Only the settings file differs from a real host's."""
    files = (
        {}
        if options.systemd and not options.agent
        else {SETTINGS: settings_text(options, endpoints)}
    )
    if options.daemon_json is not None:
        files[DAEMON_JSON] = json.dumps(options.daemon_json, indent=2) + "\n"
    return files


def settings_text(options: HostOptions, endpoints: Sequence[str]) -> str:
    """The agent's settings file."""
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
    """One member of the lab's etcd."""
    address = net.etcd_address(index)
    cluster = ",".join(f"etcd{n}=http://{net.etcd_address(n)}:2380" for n in range(1, members + 1))
    argv = [
        "etcd",
        "--name",
        f"etcd{index}",
        "--data-dir",
        f"{ETCD_DATA}/{token}",
        "--listen-client-urls",
        "http://0.0.0.0:2379",
        "--advertise-client-urls",
        f"http://{address}:2379",
        "--listen-peer-urls",
        f"http://{address}:2380",
        "--initial-advertise-peer-urls",
        f"http://{address}:2380",
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
        {"kind": "port", "host": str(address), "port": 2379},
        restart=None,
        stop_timeout_s=10,
    )
    return Config(
        base.lab, f"etcd{index}", "etcd", base.suite, str(address), list(base.layers), [service]
    )


def gateway(base: Base) -> Config:
    """The LAN's router, with an address outside that tells web clients theirs."""
    argv = ["/usr/bin/python3", "-I", "-B", "/run/lab/world_web.py", str(net.OUTSIDE), "80"]
    web = Service("web", argv, {"kind": "port", "host": str(net.OUTSIDE), "port": 80})
    return Config(
        base.lab,
        "world",
        "gateway",
        base.suite,
        str(net.GATEWAY),
        list(base.layers),
        [web],
        sysctls={
            "net.ipv4.ip_forward": "1",
            "net.ipv4.conf.all.send_redirects": "0",
            "net.ipv4.conf.eth0.send_redirects": "0",
        },
        binds=[Bind(str(_WORLD_WEB), "/run/lab/world_web.py")],
    )


def stranger(base: Base) -> Config:
    """A machine on the LAN that is no part of the mesh."""
    return Config(
        base.lab, "stranger", "stranger", base.suite, str(net.STRANGER), list(base.layers), []
    )
