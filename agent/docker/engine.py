"""The engine's API: what it says of itself, and its event stream.

The ``docker`` package costs 20 MB and 0.2 s, so it is imported when an engine is first
spoken to, not before.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from agent.docker.stream import EventStream
from agent.docker.wants import DOCKER_MTU
from agent.errors import DockerError
from agent.model import DockerFacts, DockerNetwork

if TYPE_CHECKING:
    import docker

__all__ = ["Engine", "EngineKind", "EngineReading"]

_BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_ACTIVE = ("running", "paused", "restarting")
_POOLS_SINCE_API = (1, 40)
"""From this API version GET /info carries DefaultAddressPools when any are configured."""


class EngineKind(enum.Enum):
    """Who answers on the socket."""

    DOCKER = "docker"
    PODMAN = "podman"
    SILENT = "silent"  # somebody listens and does not answer in time, or answers nonsense
    ABSENT = "absent"  # nobody listens


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """What an engine said, with what :class:`DockerFacts` has no place for.

    Attributes:
        kind: Who answered.
        facts: For the other rooms.
        bip: docker0's address, None when the engine has no docker0.
        mtu: docker0's MTU in bytes, None when the engine does not say.
        pools: None when the engine is too old to say which pools it has.
        swarm: Swarm's local node state, "inactive" when there is none.
    """

    kind: EngineKind
    facts: DockerFacts
    bip: IPv4Interface | None = None
    mtu: int | None = None
    pools: tuple[tuple[IPv4Network, int], ...] | None = None
    swarm: str = "inactive"


class Engine:
    """The engine behind one socket. Each call opens a connection and closes it again.

    Args:
        socket: The engine's unix socket.
        timeout_s: Deadline of each request; an engine that hangs costs one of them.
        asleep: Says why the engine must not be woken, "" when it may be spoken to. systemd
            starts dockerd when somebody connects to its socket; an agent that only looks
            must not be that somebody.
    """

    def __init__(
        self,
        socket: Path,
        timeout_s: float = 5.0,
        *,
        asleep: Callable[[], str] = lambda: "",
    ) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._asleep = asleep
        self._lock = threading.Lock()
        self._stream: EventStream | None = None
        self._quiet = False

    def facts(self) -> DockerFacts:
        """Return what the engine says of itself; never raises for one that is not there."""
        return self.read().facts

    def read(self) -> EngineReading:
        """Return what the engine says of itself, or why it says nothing. Never raises."""
        why = self._unavailable()
        if why:
            return _unreachable(EngineKind.ABSENT, why)
        failures = _Failures(self._socket, self._timeout_s)
        with failures, contextlib.closing(self._open()) as client:
            return _read(client, self._socket)
        return failures.reading()

    def ping(self) -> bool:
        """Return whether anybody answers within the deadline."""
        if self._unavailable():
            return False
        with _Failures(self._socket, self._timeout_s), contextlib.closing(self._open()):
            return True
        return False

    def stay_down(self, expendable: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Name the active containers that a restart of dockerd would not bring back.

        Those are the ones without a restart policy, with "on-failure" (dockerd's own end is
        no failure of theirs) and with --rm. Names nobody when the engine does not answer.
        """
        if self._unavailable():
            return ()
        with (
            _Failures(self._socket, self._timeout_s),
            contextlib.closing(self._open()) as client,
        ):
            active = client.containers(filters={"status": list(_ACTIVE)})
            names = {str(each["Id"]): _container_name(each) for each in active}
            return tuple(
                sorted(
                    name
                    for identity, name in names.items()
                    if name not in expendable and _stays_down(client.inspect_container(identity))
                )
            )
        return ()

    def events(self, *, idle_s: float) -> EventStream:
        """Open the engine's event stream.

        Args:
            idle_s: How long the stream may be silent before it ends by itself.

        Raises:
            DockerError: The engine does not answer, or is not Docker.
        """
        why = "Docker is being restarted" if self._quiet else self._unavailable()
        failures = _Failures(self._socket, self._timeout_s)
        if not why:
            with failures:
                return self._kept(EventStream(self._open(), idle_s))
            why = failures.reading().facts.problem
        raise DockerError(why)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Close the event stream and open none meanwhile: for the time of a restart.

        dockerd 26.1 waits 5 s at its end for a connection that is still open (seen).
        """
        with self._lock:
            self._quiet = True
            if self._stream is not None:
                self._stream.close()
        try:
            yield
        finally:
            self._quiet = False

    def _kept(self, stream: EventStream) -> EventStream:
        with self._lock:
            self._stream = stream
            if self._quiet:
                stream.close()
        return stream

    def _unavailable(self) -> str:
        why = self._asleep()
        if not why and not self._socket.exists():
            why = f"{self._socket} does not exist"
        return why

    def _open(self) -> docker.APIClient:
        import docker as package  # noqa: PLC0415 - 20 MB: loaded when first needed

        return package.APIClient(
            base_url=f"unix://{self._socket}",
            version="auto",
            timeout=self._timeout_s,  # type: ignore[arg-type]  # seconds; floats work
        )


class _Failures:
    """Catches what a request to an engine can end in, and says what it means."""

    def __init__(self, socket: Path, timeout_s: float) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        import docker.errors  # noqa: PLC0415
        import requests.exceptions  # noqa: PLC0415

        self._error = error
        return isinstance(
            error,
            docker.errors.DockerException
            | requests.exceptions.RequestException
            | OSError
            | KeyError
            | TypeError
            | ValueError
            | AttributeError,
        )

    def reading(self) -> EngineReading:
        """Return the reading of an engine that failed so."""
        import docker.errors  # noqa: PLC0415
        import requests.exceptions  # noqa: PLC0415

        chain = list(_chain(self._error))
        if any(isinstance(e, TimeoutError | requests.exceptions.Timeout) for e in chain):
            what = f"{self._socket} does not answer within {self._timeout_s:g} s"
            return _unreachable(EngineKind.SILENT, what)
        for error in chain:
            if isinstance(error, FileNotFoundError | ConnectionRefusedError | PermissionError):
                return _unreachable(EngineKind.ABSENT, f"{self._socket}: {error.strerror}")
            if isinstance(error, docker.errors.APIError):
                what = f"{self._socket}: {error.explanation or error}"
                return _unreachable(EngineKind.SILENT, what)
        what = f"{self._socket} answers what no Docker Engine would: {self._error}"
        return _unreachable(EngineKind.SILENT, what)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, through arguments too: urllib3 nests them there."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__]
        waiting += [part for part in error.args if isinstance(part, BaseException)]


def _unreachable(kind: EngineKind, problem: str) -> EngineReading:
    return EngineReading(kind=kind, facts=DockerFacts(reachable=False, problem=problem))


# --- from the API's answers to facts -----------------------------------------------------


def _read(client: docker.APIClient, socket: Path) -> EngineReading:
    version = client.version(api_version=False)
    components = {str(part.get("Name")) for part in version.get("Components") or ()}
    if any("podman" in name.lower() for name in components):
        problem = f"podman answers on {socket}, not Docker"
        return _unreachable(EngineKind.PODMAN, problem)
    info = client.info()
    networks = client.networks(filters={"driver": "bridge"})
    active = client.containers(filters={"status": list(_ACTIVE)})
    pools = _pools(info)
    default = next((n for n in networks if n.get("Name") == "bridge"), None)
    known = _at_least(str(version.get("ApiVersion")), _POOLS_SINCE_API)
    bridges = tuple(network for raw in networks if (network := _network(raw)))
    facts = DockerFacts(
        reachable=True,
        version=str(version.get("Version") or ""),
        bridge=next((network for network in bridges if network.default), None),
        networks=bridges,
        pools=pools,
        running=tuple(sorted(_container_name(c) for c in active)),
        firewall_backend=_firewall(info),
        live_restore=bool(info.get("LiveRestoreEnabled")),
    )
    return EngineReading(
        kind=EngineKind.DOCKER,
        facts=facts,
        bip=_bip(default) if default else None,
        mtu=_mtu(default) if default else None,
        pools=pools if known else None,
        swarm=str((info.get("Swarm") or {}).get("LocalNodeState") or "inactive"),
    )


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    try:
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) >= wanted
    except ValueError:
        return False


def _firewall(info: Mapping[str, Any]) -> str:
    """Return "iptables", "nftables" or ""; engines before 29 say nothing and use iptables."""
    driver = (info.get("FirewallBackend") or {}).get("Driver") or ""
    return str(driver).partition("+")[0]


def _pools(info: Mapping[str, Any]) -> tuple[tuple[IPv4Network, int], ...]:
    found = []
    for pool in info.get("DefaultAddressPools") or ():
        with contextlib.suppress(ValueError):  # an IPv6 pool
            found.append((IPv4Network(pool["Base"]), int(pool["Size"])))
    return tuple(found)


def _ipam(network: Mapping[str, Any]) -> tuple[IPv4Network, str] | None:
    """Return a network's first IPv4 subnet and its gateway, None when it has none."""
    for config in (network.get("IPAM") or {}).get("Config") or ():
        with contextlib.suppress(ValueError):
            subnet = IPv4Network(config.get("Subnet") or "", strict=False)
            return subnet, str(config.get("Gateway") or "").partition("/")[0]
    return None


def _network(raw: Mapping[str, Any]) -> DockerNetwork | None:
    ipam = _ipam(raw)
    if ipam is None or raw.get("Driver") != "bridge":
        return None
    identity = str(raw["Id"])
    options = raw.get("Options") or {}
    return DockerNetwork(
        id=identity,
        name=str(raw.get("Name")),
        bridge=str(options.get(_BRIDGE_NAME) or f"br-{identity[:12]}"),
        subnet=ipam[0],
        internal=bool(raw.get("Internal")),
        default=raw.get("Name") == "bridge",
        labels=MappingProxyType(dict(raw.get("Labels") or {})),
    )


def _bip(default: Mapping[str, Any]) -> IPv4Interface | None:
    ipam = _ipam(default)
    if ipam is None:
        return None
    subnet, gateway = ipam
    address = gateway or str(subnet.network_address + 1)
    return IPv4Interface(f"{address}/{subnet.prefixlen}")


def _mtu(default: Mapping[str, Any]) -> int | None:
    """Return docker0's MTU; an engine that lists no such option uses Docker's own."""
    try:
        return int((default.get("Options") or {}).get(_MTU) or DOCKER_MTU)
    except ValueError:
        return None


def _stays_down(container: Mapping[str, Any]) -> bool:
    policy = (container.get("HostConfig") or {}).get("RestartPolicy") or {}
    return policy.get("Name") not in {"always", "unless-stopped"}


def _container_name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [str(container.get("Id"))[:12]]
    return str(names[0]).removeprefix("/")
