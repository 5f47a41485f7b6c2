"""Judge the facts of all hosts before anything is changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.deploy.facts import HostFacts
from agent.deploy.folder import Host, Mesh
from agent.model.family import meet, read_network, within

__all__ = ["Finding", "judge", "propose_cidr", "reads_python"]

_RELEASES: Final = ("bookworm", "trixie", "forky")
_OLDEST_DOCKER: Final = (20, 10)
_FREE_MB: Final = 500
_CLOCK_S: Final = 10.0
_ETCD_PORTS: Final = (2379, 2380)
_NEW_PYTHON: Final = (3, 12)
_READS_NEW_PYTHON: Final = (2, 16)
_CANDIDATES: Final = (
    "10.64.0.0/10", "10.32.0.0/11", "10.16.0.0/12", "100.64.0.0/10", "10.128.0.0/10",
    "10.192.0.0/10",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something that an operator must know of a host before it is changed.

    Attributes:
        stops: It must be put right first.
    """

    host: str
    cause: str
    hint: str = ""
    stops: bool = True


def reads_python(ansible: tuple[int, int], python: tuple[int, ...]) -> bool:
    """Return whether modules of this ansible-core run with a host's Python."""
    return python < _NEW_PYTHON or ansible >= _READS_NEW_PYTHON


def judge(
    mesh: Mesh,
    facts: Mapping[str, HostFacts],
    *,
    ansible: tuple[int, int],
    endpoints: Iterable[str],
) -> tuple[Finding, ...]:
    """Return everything that prevents a deployment, or that the operator must know.

    Args:
        mesh: What is asked for, with its CIDR.
        facts: Those of each host that was reached, by name.
        ansible: The version of ansible-core here.
        endpoints: Of the mesh's etcd: a host with others belongs to another mesh.
    """
    found = list(_clones(facts))
    own = {_endpoint(url) for url in endpoints}
    for host in mesh.hosts:
        if host.name in facts:
            found += _host(host, facts[host.name], mesh, ansible)
            found += _membership(host, facts[host.name], mesh, own)
    return tuple(found)


def _host(host: Host, facts: HostFacts, mesh: Mesh, ansible: tuple[int, int]) -> Iterator[Finding]:
    name = host.name
    if facts.uid != 0:
        yield Finding(name, f"{host.destination} is not root and sudo asks for a password",
                      f"--hosts root@{host.address}, or allow sudo without a password")  # fmt: skip
    if facts.system != "debian" or facts.codename not in _RELEASES:
        has = " ".join(part for part in (facts.system, facts.release, facts.codename) if part)
        yield Finding(name, f"{has or 'an unknown system'} is not Debian 12, 13 or forky",
                      "deploy/install.sh installs on other distributions")  # fmt: skip
    if facts.init != "systemd":
        yield Finding(name, "systemd is not its init, and Hostmesh runs as a unit of systemd",
                      "use a Debian host with systemd")  # fmt: skip
    if facts.python and not reads_python(ansible, facts.python):
        version, core = ".".join(map(str, facts.python)), ".".join(map(str, ansible))
        yield Finding(name, f"ansible-core {core} of this machine cannot use its Python {version}",
                      "pipx install 'ansible-core>=2.17' on this machine")  # fmt: skip
    if facts.free_mb < _FREE_MB:
        yield Finding(name, f"{facts.free_mb} MB are free on /usr, /var or /run,"
                      f" {_FREE_MB} are needed",
                      f"make space: ssh {host.destination} df -h")  # fmt: skip
    if abs(facts.clock_off_s) > _CLOCK_S:
        where = "ahead" if facts.clock_off_s > 0 else "behind"
        yield Finding(name, f"its clock is {abs(facts.clock_off_s):.0f} s {where} of this"
                      " machine's, so certificates may not be valid",
                      f"ssh {host.destination} timedatectl set-ntp true")  # fmt: skip
    if facts.other_installation:
        yield Finding(name, f"install.sh installed Hostmesh in {facts.other_installation}",
                      "deploy/install.sh --uninstall --keep-membership, there")  # fmt: skip
    yield from _docker(host, facts)
    yield from _ports(host, facts, mesh)
    yield from _overlaps(name, facts, mesh.cidr)


def _docker(host: Host, facts: HostFacts) -> Iterator[Finding]:
    name = host.name
    if facts.docker == "stopped":
        yield Finding(name, "Docker is installed and does not run",
                      f"ssh {host.destination} systemctl start docker")  # fmt: skip
    elif facts.docker != "missing":
        numbers = tuple(int(part) for part in facts.docker.split(".")[:2] if part.isdigit())
        if numbers < _OLDEST_DOCKER:
            yield Finding(name, f"Docker {facts.docker} is older than 20.10", "upgrade Docker")
    if facts.swarm in ("active", "locked"):
        yield Finding(name, "Docker is in swarm mode, whose networks stay outside of the mesh",
                      "fine if you use both", stops=False)  # fmt: skip


def _ports(host: Host, facts: HostFacts, mesh: Mesh) -> Iterator[Finding]:
    if not (mesh.own_etcd and host.member_address) or facts.etcd_runs:
        return
    for port in _ETCD_PORTS:
        if port in facts.listens:
            yield Finding(host.name, f"port {port} of etcd is in use by another program",
                          f"ssh {host.destination} ss -ltnp 'sport = :{port}'")  # fmt: skip


def _overlaps(name: str, facts: HostFacts, cidr: str) -> Iterator[Finding]:
    if not cidr:
        return
    mesh = read_network(cidr)
    for network in facts.used:
        member = facts.settings is not None and within(network, mesh)  # its own subnet
        if network.prefixlen and meet(network, mesh) and not member:
            yield Finding(name, f"its address or route {network} overlaps the mesh's {cidr}",
                          "choose another range: --cidr")  # fmt: skip


def _membership(host: Host, facts: HostFacts, mesh: Mesh, own: set[str]) -> Iterator[Finding]:
    """Find a host that belongs to another mesh, or whose settings are not of a deployment."""
    name = host.name
    settings = facts.settings or {}
    section = settings.get("etcd")
    urls = section.get("endpoints", []) if isinstance(section, dict) else []
    others = [url for url in urls if isinstance(url, str) and _endpoint(url) not in own]
    if others:
        yield Finding(name, f"it belongs to another mesh: its etcd is {others[0]}",
                      f"to leave it: ssh {host.destination} apt-get purge hostmesh")  # fmt: skip
    elif settings and not facts.settings_of_ansible:
        yield Finding(name, "another program or person wrote its /etc/hostmesh/agent.toml",
                      "move it away; give other settings by --settings FILE")  # fmt: skip
    members = {f"{each.name}=https://{each.member_address}:2380" for each in mesh.members}
    if facts.etcd_cluster and set(facts.etcd_cluster.split(",")) != members:
        yield Finding(name, f"its etcd belongs to another mesh: {facts.etcd_cluster}",
                      "if that one is gone, there: rm -r /etc/hostmesh-etcd")  # fmt: skip
    if host.member_address == "-":
        yield Finding(name, "it has no default route, whose address its etcd would use",
                      f"--with-etcd {name}=ADDRESS, with the other members")  # fmt: skip
    elif host.member_address and host.member_address not in facts.addresses:
        yield Finding(name, f"it has no address {host.member_address}, which its etcd would use",
                      f"--with-etcd {name}=ADDRESS")  # fmt: skip


def _endpoint(url: str) -> str:
    return url.rstrip("/").lower()


def _clones(facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, each in facts.items():
        if each.machine and each.machine in seen:
            yield Finding(name, f"it has the machine-id of {seen[each.machine]}: a clone",
                          "there: rm /etc/machine-id; systemd-machine-id-setup")  # fmt: skip
        seen[each.machine] = name


def propose_cidr(facts: Iterable[HostFacts]) -> str:
    """Return a range for a new mesh that no host uses; "" when all usual ones are taken."""
    used = [network for each in facts for network in each.used if network.prefixlen]
    for text in _CANDIDATES:
        if not any(meet(network, read_network(text)) for network in used):
            return text
    return ""
