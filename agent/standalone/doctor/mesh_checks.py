"""The doctor's look at etcd, at the mesh, and at what lies between this host and its peers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from agent.daemon.membership.endpoint_finder import source_of
from agent.daemon.names.servers import look_at_servers
from agent.daemon.wiring import host_name
from agent.docker.daemonjson.desired import wanted_docker_names
from agent.docker.manager import DockerManager
from agent.docker.report import Preview
from agent.errors import EtcdError, EtcdUnavailable
from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import open_condition
from agent.kernel.liveness.prober import is_silent
from agent.mesh.backends import container_mtu
from agent.mesh.needed import needed_in, needed_of_members
from agent.mesh.overlap import host_overlaps
from agent.mesh.peer_rules import PeerRules
from agent.mesh.ranges import subnet_at
from agent.mesh.world import World
from agent.model import (
    LEVEL_OF_0_1,
    Condition,
    HostFacts,
    HostId,
    Lease,
    MeshConfig,
    Uplink,
    View,
    first_few,
)
from agent.model.family import IPV4, Address, Network
from agent.registry.claiming.identity_conflicts import CLONE_HINT
from agent.registry.claiming.request import ClaimRequest
from agent.registry.claiming.selection import Selection
from agent.registry.copy import bounds_of
from agent.registry.etcd_checks import EndpointAnswer, ask_endpoint, may_write
from agent.registry.own.identity import own_host_id, read_boot_id
from agent.registry.record_store import RecordStore
from agent.registry.registry import Registry
from agent.settings import Settings
from agent.standalone.doctor.findings import Findings, State

__all__ = ["Mesh", "look_at_docker", "look_at_etcd", "look_at_mesh"]

_OLDEST = (3, 4)
_CLOCK_S = 10.0
_ASKED_PEERS = 3


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh as etcd has it.

    Attributes:
        own: This host's lease, or what flannel leases to it; None when it is no member.
        subnet: Its subnet, or the one that it would get; None when there is none.
    """

    registry: Registry
    host_id: HostId
    view: View
    config: MeshConfig
    own: Lease | None
    subnet: Network | None

    @property
    def is_member(self) -> bool:
        """Return whether the lease is this host's by its identity, not only by flannel's."""
        return self.own is not None and self.own.host_id is not None


def look_at_etcd(settings: Settings, client: EtcdClient, findings: Findings) -> None:
    """Check where etcd's endpoints come from, and each one: reachable, version, clock."""
    if not client.endpoints:
        findings.attempt("etcd", lambda: _raise_unknown(client))
        return
    source = source_of(settings)
    told_by = source["told_by"] or "DNS"
    findings.add("etcd", State.OK, f"{', '.join(client.endpoints)}, named by {told_by}")
    answers: dict[str, EndpointAnswer | EtcdUnavailable] = {}
    for endpoint in client.endpoints:
        try:
            answers[endpoint] = ask_endpoint(endpoint, settings.etcd)
        except EtcdUnavailable as error:
            answers[endpoint] = error
    # The agent needs one of them: a member that is down is only a warning.
    some = any(isinstance(each, EndpointAnswer) for each in answers.values())
    for endpoint, answer in answers.items():
        if isinstance(answer, EndpointAnswer):
            _endpoint(endpoint, answer, findings)
            _access(client, endpoint, findings)
        else:
            state = State.WARN if some else State.FAIL
            findings.add("etcd endpoint", state, answer.message, answer.hint)


def _access(client: EtcdClient, endpoint: str, findings: Findings) -> None:
    try:
        condition = open_condition(client, endpoint)
    except EtcdError:  # "etcd account" says why
        return
    if condition is not None:
        findings.add("etcd access", State.WARN, condition.cause, condition.hint)


def _raise_unknown(client: EtcdClient) -> None:
    client.range(b"/", limit=1)


def _endpoint(endpoint: str, answer: EndpointAnswer, findings: Findings) -> None:
    number = re.match(r"(\d+)\.(\d+)", answer.version)
    known = (int(number[1]), int(number[2])) if number else None
    if known is None or known < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        findings.add(
            "etcd endpoint",
            State.FAIL,
            f"{endpoint} is etcd {answer.version}",
            f"Hostmesh needs {wanted} or later",
        )
    else:
        findings.add("etcd endpoint", State.OK, f"{endpoint} answers, etcd {answer.version}")
    if answer.ahead_s is None:
        return
    if abs(answer.ahead_s) > _CLOCK_S:
        word = "ahead of" if answer.ahead_s > 0 else "behind"
        findings.add(
            "clock",
            State.WARN,
            f"the clock of {endpoint} is {abs(answer.ahead_s):.0f} s {word} this host's",
            "leases do not depend on clocks, but certificates do, and ages will look odd: run NTP",
        )
    else:
        findings.add("clock", State.OK, f"this host's and that of {endpoint} agree")


def look_at_mesh(
    settings: Settings,
    client: EtcdClient,
    host: tuple[HostFacts, Uplink] | None,
    findings: Findings,
) -> Mesh | None:
    """Check account, config, overlaps with this host, peers, and the subnet it would get."""
    needed = host[0].needed if host else ()
    bounds = replace(bounds_of(settings), needed=needed)
    registry = Registry(client, settings.etcd.prefix, bounds=bounds)
    own = own_host_id(settings)
    records = registry.records()
    view = records.view()
    _account(registry, records, own, settings.etcd.prefix, findings)
    config = _config(settings, view, findings)
    if config is None:
        return None
    address = host[1].node_address if host else None
    lease = view.lease_of(own) or _flannels(view, address)
    _identity(view, own, address, findings)
    if host is not None:
        _overlap(host[0], config, lease, view, findings)
        _peers(view, own, host, config, findings)
    subnet = lease.subnet if lease else None
    if lease is not None:
        _member(lease, findings)
    elif view.config is not None:
        request = ClaimRequest(
            host_id=own,
            host_name=host_name(settings),
            node_address=address or IPV4.address(0),
        )
        subnet = next(iter(Selection(records, view, request).peek(1)), None)
        _candidate(subnet, findings)
    return Mesh(registry, own, view, config, lease, subnet)


def _account(
    registry: Registry, records: RecordStore, own: HostId, prefix: str, findings: Findings
) -> None:
    findings.add("etcd account", State.OK, f"reads {prefix}")
    if unknown := records.unknown:
        findings.add(
            "etcd keys",
            State.OK,
            f"{prefix} holds keys that this version does not know, such as"
            f" {unknown.names[0]} ({unknown.count} or more): they are left alone",
        )
    level = records.last_config.level if records.last_config else LEVEL_OF_0_1
    findings.attempt("etcd account", lambda: _may_write(registry, own, level, findings))


def _may_write(registry: Registry, own: HostId, level: int, findings: Findings) -> None:
    may_write(registry, own, level)
    findings.add("etcd account", State.OK, "may write all that an agent writes")


def _member(lease: Lease, findings: Findings) -> None:
    if lease.host_id is None:
        findings.add("subnet", State.OK, f"flannel leases {lease.subnet} to this host's address")
        findings.would.append(f"take flannel's lease of {lease.subnet} over")
    else:
        findings.add("subnet", State.OK, f"this host is a member with {lease.subnet}")


def _candidate(subnet: Network | None, findings: Findings) -> None:
    if subnet is None:
        findings.add("subnet", State.FAIL, "every subnet is held or reserved")
    else:
        findings.add("subnet", State.OK, f"{subnet} would be this host's, or another free one")
        findings.would.append(f"claim {subnet} in etcd")


def _flannels(view: View, address: Address | None) -> Lease | None:
    """Return the lease of a flannel on this host: the agent would take it over."""
    own = (each for each in view.leases if each.host_id is None and each.node_address == address)
    return next(own, None)


def _identity(view: View, own: HostId, address: Address | None, findings: Findings) -> None:
    """Check whether another machine has this one's identity, such as from a copied disk."""
    beat = view.heartbeats.get(own)
    if beat is None or beat.boot_id == read_boot_id() or beat.node_address == address:
        return
    findings.add(
        "identity",
        State.FAIL,
        f"{beat.host_name or 'a host'} at {beat.node_address} is alive with this host's id",
        f"a copied disk, or a token used twice? {CLONE_HINT}",
    )


def _config(settings: Settings, view: View, findings: Findings) -> MeshConfig | None:
    if view.config is not None:
        config = view.config
        findings.add(
            "mesh", State.OK, f"{config.cidr}, a /{config.subnet_len} each, {config.backend}"
        )
        return config
    if view.config_problem:
        hint = view.config_problem.hint or "agentctl config show"
        findings.add("mesh", State.FAIL, view.config_problem.reason, hint)
        return None
    brought = settings.mesh.config()
    if brought is not None:
        findings.add("mesh", State.OK, f"not in etcd yet; [mesh] brings {brought.cidr}")
        findings.would.append(f"create the mesh's config with {brought.cidr}")
        return brought
    findings.add(
        "mesh",
        State.FAIL,
        f"there is no {settings.etcd.prefix}/config in etcd",
        "create the mesh once, on any host: agentctl config init",
    )
    return None


def _overlap(
    host: HostFacts, config: MeshConfig, own: Lease | None, view: View, findings: Findings
) -> None:
    state = State.FAIL if own is None else State.WARN
    needed = needed_in(config.cidrs, host.needed)
    reported = tuple(needed_of_members(view, config.cidrs))
    for words, how in ((first_few(needed), state), (", ".join(reported), State.WARN)):
        if words:
            findings.add(
                "overlap",
                how,
                f"{config.cidr} holds {words}",
                "give the mesh a CIDR without it: agentctl config set --cidr CIDR --move",
            )
    found = host_overlaps(host, config.cidr, None, (own.subnet,) if own else (), view.by_subnet)
    if not found and not needed:
        findings.add("overlap", State.OK, f"nothing of this host lies in {config.cidr}")
    elif found:
        # One of these routes may be the way to what the host needs.
        remove = "" if needed else "remove it, or "
        findings.add(
            "overlap",
            state,
            f"{config.cidr} meets {', '.join(found[:5])}",
            f"{remove}give the mesh another CIDR: agentctl config set",
        )


def _peers(
    view: View,
    own: HostId,
    host: tuple[HostFacts, Uplink],
    config: MeshConfig,
    findings: Findings,
) -> None:
    facts, uplink = host
    here = uplink.node_address
    peers = [each for each in view.leases if each.host_id != own and each.node_address != here]
    rules = PeerRules.of(World(host_id=own, config=config, uplink=uplink, host=facts))
    if isinstance(rules, Condition):
        findings.conditions("mesh", (rules,))
    if not peers:
        findings.add("peers", State.OK, "there are none yet")
        return
    if isinstance(rules, PeerRules):
        found = ((each.host_name or "?", rules.outcome(each)) for each in peers)
        off = [(name, why) for name, why in found if isinstance(why, Condition)]
        if off:
            named = ", ".join(name for name, _ in off[:5])
            why = off[0][1]
            findings.add(
                "peers",
                State.FAIL if len(off) == len(peers) else State.WARN,
                f"{len(off)} of {len(peers)} cannot be reached from here ({named}): {why.cause}",
                why.hint,
            )
    near = [each for each in peers if each.node_address in uplink.on_link]
    if near:
        findings.add("peers", State.OK, f"{len(near)} of {len(peers)} are on {uplink.on_link}")
    alive = [each for each in near if each.host_id in view.heartbeats][:_ASKED_PEERS]
    for each in alive if os.geteuid() == 0 else ():  # ARP and ping take root
        if is_silent(each.node_address, uplink, attempts=3, interval_s=0.3):
            findings.add(
                "peers",
                State.WARN,
                f"{each.host_name} {each.node_address} answers no ARP or ping",
                "etcd hears it, this host does not: look at the link between them",
            )


def look_at_docker(
    settings: Settings, mesh: Mesh | None, uplink: Uplink | None, findings: Findings
) -> None:
    """Docker, what speaks against its taking the subnet, and what would be done to it."""
    docker = DockerManager(settings.docker, settings.agent.state_dir)
    if os.geteuid() != 0:
        _docker_without_root(settings, docker, findings)
        return
    subnet = mesh.subnet if mesh else None
    if subnet is None and mesh is not None:
        subnet = subnet_at(mesh.config, 0)
    if subnet is None:
        seen = Preview(docker.engine.facts())
    else:
        config = mesh.config if mesh else None
        mtu = container_mtu(uplink, config) if uplink else None
        names = wanted_docker_names(config, served=any(each.runs for each in look_at_servers()))
        seen = docker.attacher.preview(docker.desired_for(subnet, mtu, names))
    facts = seen.facts
    if facts.reachable:
        running = f", {len(facts.running)} containers run" if facts.running else ""
        findings.add("docker", State.OK, f"Docker {facts.version}{running}")
    elif not seen.conditions:
        findings.add(
            "docker", State.WARN, facts.problem or "no Docker answers", "install or start it"
        )
    findings.conditions("docker", seen.conditions)
    findings.would.extend(seen.would)


def _docker_without_root(settings: Settings, docker: DockerManager, findings: Findings) -> None:
    facts = docker.engine.facts()
    untested = f"what would change in {settings.docker.daemon_json}"
    if facts.reachable:
        findings.add("docker", State.OK, f"Docker {facts.version}")
    elif not settings.docker.socket.exists():
        findings.add("docker", State.WARN, facts.problem, "install or start Docker")
    else:
        untested = f"whether Docker answers, and {untested}"
    if settings.docker.manage:
        found = f"needs root: {untested} is not tested"
        findings.add("docker", State.UNKNOWN, found, "sudo agentctl doctor")
