"""The sections of agent.toml as frozen dataclasses; docs/settings.md explains each key.

Fields made with ``setting`` can be set by file, environment and flags; the kind says what
they accept. Constructing a section directly checks nothing: it is for tests and defaults.
"""

# ruff: noqa: RUF009 - setting() is dataclasses.field() that keeps the type

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from agent.errors import SettingsError
from agent.model import BACKENDS, DEFAULT_BACKEND, LEVEL, PRIVATE_RANGES, Access, Bounds, MeshConfig
from agent.model.family import IPV4, Address, Network, last_subnet, read_address
from agent.settings import value_types as kinds
from agent.settings.place import DEFAULT_PATH, DEFAULT_RUN_DIR, SOCKET_NAME
from agent.settings.value_types import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_PATH",
    "AgentSettings",
    "CheckSettings",
    "Docker0Share",
    "DockerAttach",
    "DockerSettings",
    "EtcdSettings",
    "FirewallSettings",
    "FirewallVariant",
    "HostSettings",
    "LeaseSettings",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "MeshSettings",
    "MetricsSettings",
    "NetworkSettings",
    "RestartPolicy",
    "RouteSettings",
    "Settings",
    "UiSettings",
]

FirewallVariant = Literal["auto", "nft", "legacy"]
EtcdContainers = Literal["mesh", "allow", "closed"]
FirewalldSources = Literal["operator", "manage"]
RestartPolicy = Literal["when-idle", "always", "never"]
DockerAttach = Literal["daemon", "network"]
Docker0Share = Literal["all", "half", "quarter", "eighth", "sixteenth"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


_MAX_TTL_S = 9_000_000_000  # etcd's own limit for a lease

# linux/rtnetlink.h: the kernel's own numbers, then those that routing daemons use.
_TAKEN_PROTOCOLS = (
    dict.fromkeys(range(5), "rtnetlink reserves 0 to 4 for the kernel and the operator")
    | {8: "gated", 9: "router advertisements", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted"}
    | {14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived", 42: "babel"}
    | {99: "openr", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"}
)
_REFUSED_PROTOCOLS = {
    number: why if number < 5 else f"routes of {why} carry it"  # noqa: PLR2004 - RTPROT_STATIC + 1
    for number, why in _TAKEN_PROTOCOLS.items()
}
_REFUSED_TABLES = {255: "table local is the kernel's own"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """[etcd]: where the hosts meet."""

    endpoints: tuple[str, ...] = setting(kinds.ENDPOINTS, ())
    domain: str = setting(
        kinds.pattern("a DNS domain", r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,240})?"), ""
    )
    prefix: str = setting(
        kinds.pattern("a key prefix such as /hostmesh", r"(/[A-Za-z0-9._-]+){1,16}"), "/hostmesh"
    )
    ca_file: Path | None = setting(kinds.FILE, None)
    cert_file: Path | None = setting(kinds.FILE, None)
    key_file: Path | None = setting(kinds.FILE, None)
    username: str = setting(kinds.pattern("a user name", r"[^\s:]{0,255}"), "")
    password_file: Path | None = setting(kinds.FILE, None)
    containers: EtcdContainers = setting(kinds.choice(get_args(EtcdContainers)), "mesh")
    call_timeout_s: float = setting(kinds.seconds(0.1, 300), 5.0)

    @property
    def password(self) -> str:
        """The password, read from ``password_file`` each time so that it can be rotated.

        Raises:
            SettingsError: The file cannot be read. The message never holds its content.
        """
        if self.password_file is None:
            return ""
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise SettingsError(
                (f"{self.password_file}: etcd.password_file: {why}",),
                hint="the user who runs the command must be able to read it",
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """[mesh]: the config to create in etcd if there is none, and what any config may be.

    Attributes:
        cidr: None when this host brings no config. What is in etcd wins.
        within: The ranges in which this host lets a mesh be, whatever etcd says.
    """

    cidr: Network | None = setting(kinds.CIDR, None)
    subnet_len: int = setting(kinds.integer(*IPV4.subnet_lengths), 16)
    subnet_min: Address | None = setting(kinds.ADDRESS, None)
    subnet_max: Address | None = setting(kinds.ADDRESS, None)
    backend: str = setting(kinds.choice(BACKENDS), DEFAULT_BACKEND)
    access: Access = setting(kinds.choice(Access), Access.PUBLISHED)
    within: tuple[Network, ...] = setting(kinds.RANGES, PRIVATE_RANGES)

    def bounds(self) -> Bounds:
        """Return what a config in etcd may be; a CIDR in this file is allowed."""
        config = self.config()
        outside = Bounds(allowed=self.within).outside(config) if config else ()
        return Bounds(allowed=(*self.within, *outside))

    def config(self) -> MeshConfig | None:
        """Make the config that these settings ask for; bounds not set are the CIDR's own."""
        if self.cidr is None:
            return None
        last = last_subnet(self.cidr, self.subnet_len)
        return MeshConfig(
            cidr=self.cidr,
            subnet_len=self.subnet_len,
            subnet_min=self.subnet_min or self.cidr.network_address,
            subnet_max=self.subnet_max or last.network_address,
            backend=self.backend,
            access=self.access,
            level=LEVEL,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """[host]: this host's name and address; an empty value is found automatically."""

    name: str = setting(kinds.pattern("a host name", r"([A-Za-z0-9_]([A-Za-z0-9._-]{0,252}))?"), "")
    id: str = setting(kinds.pattern("32 hexadecimal digits", r"([0-9a-f]{32})?"), "")
    uplink: str = setting(kinds.UPLINK, "")
    node_address: Address | None = setting(kinds.NODE_ADDRESS, None)
    link: str = setting(kinds.pattern("a name", r"[A-Za-z0-9._-]{0,63}"), "")
    public_endpoint: str = setting(
        kinds.pattern(
            'an IPv4 address with a port, or "none"',
            r"(none|[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5})?",
        ),
        "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """[routes]: the protocol number of the agent's routes, and how often they are compared."""

    protocol: int = setting(kinds.integer(1, 255, refused=_REFUSED_PROTOCOLS), 140)
    table: int = setting(kinds.integer(1, 2**32 - 1, refused=_REFUSED_TABLES), 254)
    resync_s: float = setting(kinds.seconds(1, 86_400), 60.0)
    sweep_grace_s: float = setting(kinds.seconds(0, 86_400), 10.0)
    probe: bool = setting(kinds.BOOLEAN, True)  # noqa: FBT003 - the default's value


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallSettings:
    """[firewall]: whether and through which iptables the agent's rules are kept.

    Attributes:
        firewalld: Whether the agent or the operator keeps the mesh's sources in firewalld's zone
            trusted.
    """

    manage: bool = setting(kinds.BOOLEAN, default=True)
    variant: FirewallVariant = setting(kinds.choice(get_args(FirewallVariant)), "auto")
    check_s: float = setting(kinds.seconds(1, 3600), 5.0)
    access: Access = setting(kinds.choice(Access), Access.OPEN)
    firewalld: FirewalldSources = setting(kinds.choice(get_args(FirewalldSources)), "operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """[networks]: the mesh networks that this host takes part in.

    Attributes:
        allow: Names, with ``*`` and ``?``; what a label or a record says beyond them does nothing.
    """

    allow: tuple[str, ...] = setting(kinds.NAME_PATTERNS, ("*",))


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """[docker]: what the agent may do to the host's Docker.

    Attributes:
        restart_command: Program and arguments that restart dockerd; empty: find out.
        expendable: Names of containers that may be restarted with dockerd.
        replace: Whether the operator's own ``bip`` and pools may be replaced.
        attach: Where Docker gets the lease: docker0 and the pools, by daemon.json, or one network
            made through Docker's API, which needs no restart.
        docker0_share: docker0's share of the lease; the rest is for networks that Docker makes.
        network_len: Prefix length of each of those.
    """

    manage: bool = setting(kinds.BOOLEAN, default=True)
    socket: Path = setting(kinds.PATH, Path("/var/run/docker.sock"))
    daemon_json: Path = setting(kinds.PATH, Path("/etc/docker/daemon.json"))
    restart: RestartPolicy = setting(kinds.choice(get_args(RestartPolicy)), "when-idle")
    restart_command: tuple[str, ...] = setting(kinds.texts("list: program, arguments"), ())
    restart_timeout_s: float = setting(kinds.seconds(1, 3600), 60.0)
    replace: bool = setting(kinds.BOOLEAN, default=False)
    expendable: tuple[str, ...] = setting(kinds.texts("list of container names"), ())
    attach: DockerAttach = setting(kinds.choice(get_args(DockerAttach)), "daemon")
    docker0_share: Docker0Share = setting(kinds.choice(get_args(Docker0Share)), "half")
    network_len: int = setting(kinds.integer(16, 28), IPV4.pool_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """[lease]: how long the records in etcd outlive the agent that keeps them."""

    ttl_s: int = setting(kinds.integer(60, _MAX_TTL_S, "seconds"), 86_400)
    heartbeat_ttl_s: int = setting(kinds.integer(5, 3600, "seconds"), 30)
    memory_ttl_s: int = setting(kinds.integer(60, _MAX_TTL_S, "seconds"), 2_592_000)
    empty_cluster_grace_s: float = setting(kinds.seconds(0, 86_400), 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """[agent]: the agent's own files."""

    state_dir: Path = setting(kinds.PATH, Path("/var/lib/hostmesh"))
    run_dir: Path = setting(kinds.PATH, DEFAULT_RUN_DIR)
    socket_group: str = setting(
        kinds.pattern("a group name", r"([A-Za-z_][A-Za-z0-9_.-]{0,31}\$?)?"), ""
    )

    @property
    def mesh_copy(self) -> Path:
        """The host's own copy of the mesh, from its first join on."""
        return self.state_dir / "copy.json"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.run_dir / SOCKET_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardSettings:
    """[wireguard]: the backend wireguard on this host.

    Attributes:
        start_command: Program and arguments that start wireguard-go where the kernel has no
            wireguard; empty: systemd starts hostmesh-wireguard.service.
    """

    start_command: tuple[str, ...] = setting(kinds.texts("list: program, arguments"), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """[check]: how this host checks every peer on its own.

    Attributes:
        every_s: 0: only when an operator asks.
        start_command: Program and arguments that run ``agentctl check`` as root; empty: systemd
            starts hostmesh-check.service.
    """

    every_s: float = setting(kinds.seconds(0, 86_400), 900.0)
    start_command: tuple[str, ...] = setting(kinds.texts("list: program, arguments"), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """[metrics]: where Prometheus may ask besides the control socket; nowhere by default."""

    listen: str = setting(kinds.LISTEN, "")

    @property
    def address(self) -> tuple[str, int] | None:
        """Address and port, None when metrics are on the control socket only."""
        return _listened(self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    """[ui]: where browsers may ask for the web page besides the control socket; nowhere by default.

    Attributes:
        open_to_network: The address may be one that other machines reach.
    """

    listen: str = setting(kinds.LISTEN, "")
    open_to_network: bool = setting(kinds.BOOLEAN, default=False)

    @property
    def address(self) -> tuple[str, int] | None:
        """Address and port, None when the page is on the control socket only."""
        return _listened(self.listen)

    @property
    def is_open(self) -> bool:
        """Whether other machines reach the address."""
        return self.address is not None and not read_address(self.address[0]).is_loopback


def _listened(listen: str) -> tuple[str, int] | None:
    host, _, port = listen.rpartition(":")
    return (host, int(port)) if port else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]: which events are logged, and in which form."""

    level: LogLevel = setting(kinds.choice(get_args(LogLevel)), "info")
    format: LogFormat = setting(kinds.choice(get_args(LogFormat)), "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of the agent on this host.

    Attributes:
        path: The settings file, there or not.
        sources: "section.key" to where the value came from, for keys that are not defaults.
        notes: Remarks for the operator that are no errors.
    """

    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)
    host: HostSettings = field(default_factory=HostSettings)
    routes: RouteSettings = field(default_factory=RouteSettings)
    firewall: FirewallSettings = field(default_factory=FirewallSettings)
    networks: NetworkSettings = field(default_factory=NetworkSettings)
    docker: DockerSettings = field(default_factory=DockerSettings)
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    wireguard: WireGuardSettings = field(default_factory=WireGuardSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    ui: UiSettings = field(default_factory=UiSettings)
    log: LogSettings = field(default_factory=LogSettings)
    path: Path = DEFAULT_PATH
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
