"""The doctor's probe: whether the underlay carries what containers send."""

from __future__ import annotations

import os

from agent.daemon.wiring import host_name
from agent.errors import HostmeshError
from agent.kernel.diagnose.source_filter import Passage, passage
from agent.mesh.backends import backend_by_name
from agent.model import BackendChoice, Lease, Uplink
from agent.model.family import IPV4, Address, Network
from agent.model.untrusted import Fields
from agent.registry.claiming.request import ClaimRequest
from agent.registry.own.identity import read_boot_id
from agent.settings import Settings
from agent.standalone.doctor.findings import Findings, State
from agent.standalone.doctor.mesh_checks import Mesh
from agent.standalone.leave import agent_runs

__all__ = ["look_at_underlay"]

_ASKED_PEERS = 3
_PROBE_TTL_S = 60
"""For how long a subnet is claimed, should this process not live to give it back."""


def look_at_underlay(
    mesh: Mesh, uplink: Uplink, settings: Settings, findings: Findings, *, claim: bool
) -> None:
    """Send from a container's address to a peer, as containers will.

    Where all packets travel in a tunnel, no container's address is on the underlay.

    Args:
        claim: A host that is no member may claim a subnet for the time of the probe: without
            one peers have nowhere to answer to.
    """
    if all(map(_encloses, mesh.config.choices)):
        return
    peers = [
        lease
        for lease in mesh.view.leases
        if lease.host_id != mesh.host_id
        and lease.host_id in mesh.view.heartbeats
        and lease.node_address in uplink.on_link
        and lease.node_address != uplink.node_address
    ]
    untested = _untested(mesh, uplink, settings, peers, claim=claim)
    if untested is not None:
        findings.add("underlay", State.UNKNOWN, *untested)
    elif mesh.own is not None:
        _probe(mesh.own.subnet, uplink, peers, findings)
    else:
        _probe_on_loan(mesh, uplink, settings, peers, findings)


def _encloses(choice: BackendChoice) -> bool:
    """Return whether a backend sends every packet in a tunnel."""
    backend = backend_by_name(choice.name)
    if backend is None or not backend.overhead(IPV4):
        return False
    options = choice.data.fields if choice.data else {}
    try:
        return not Fields(options).flag("DirectRouting", default=False)
    except ValueError:  # the condition backend-options-unusable says so
        return False


def _untested(
    mesh: Mesh, uplink: Uplink, settings: Settings, peers: list[Lease], *, claim: bool
) -> tuple[str, str] | None:
    """Return why nothing is sent, and a hint; None when it is."""
    if not peers:
        return "no live peer on the link to ask", ""
    if os.geteuid() != 0:
        found = "needs root: whether it carries containers' addresses is not tested"
        return found, "sudo agentctl doctor"
    if mesh.own is not None:
        there = mesh.own.node_address
        here = f"peers answer to {there}, where this host's lease says it is"
        return None if there == uplink.node_address else (here, "")
    if not claim:
        return (
            "whether it carries containers' addresses: peers can answer only to a subnet in etcd",
            "agentctl doctor --probe claims one for some seconds and gives it back",
        )
    if agent_runs(settings.agent.socket):
        # It may claim at any moment, and would hold what is given back here.
        return (
            "an agent runs here that has no subnet yet: none is claimed beside it",
            "agentctl status says what it waits for",
        )
    return None


def _probe_on_loan(
    mesh: Mesh, uplink: Uplink, settings: Settings, peers: list[Lease], findings: Findings
) -> None:
    """Claim, probe, and end the etcd lease: with it goes what was claimed, and nothing else."""
    lease = mesh.registry.claim(
        ClaimRequest(
            host_id=mesh.host_id,
            host_name=host_name(settings),
            node_address=uplink.node_address,
            boot_id=read_boot_id(),
            ttl_s=_PROBE_TTL_S,
            memory_ttl_s=0,  # what this host had before is remembered as it is
        )
    )
    try:
        _probe(lease.subnet, uplink, peers, findings)
    finally:
        _end_loan(mesh, lease, findings)


def _end_loan(mesh: Mesh, lease: Lease, findings: Findings) -> None:
    try:
        mesh.registry.client.revoke(lease.etcd_lease_id)
    except HostmeshError as error:
        findings.add(
            "underlay",
            State.WARN,
            f"{lease.subnet} could not be given back: {error.message}",
            f"it expires within {_PROBE_TTL_S} s",
        )


def _probe(subnet: Network, uplink: Uplink, peers: list[Lease], findings: Findings) -> None:
    """Probe a few peers: a single one may filter, or learn of the subnet late."""
    source = subnet.network_address + 2
    filtered: list[str] = []
    for lease in peers[:_ASKED_PEERS]:
        peer = lease.node_address
        outcome = passage(uplink, peer, source, beyond=lease.subnet.network_address + 2)
        if outcome is Passage.OPEN:
            findings.add("underlay", State.OK, f"{peer} answers to {source}, a container's address")
            if filtered:
                found = _dropped(filtered, uplink, source)
                findings.add("underlay", State.WARN, found, "is there a firewall on that peer?")
            return
        if outcome is Passage.FILTERED:
            filtered.append(str(peer))
    if filtered:
        findings.add(
            "underlay",
            State.FAIL,
            f"{_dropped(filtered, uplink, source)}: packets with containers' addresses are dropped"
            " on the way",
            "clouds: switch the source check off (source/dest check, IP forwarding, allowed"
            " address pairs); switches: port security",
        )
    else:
        findings.add("underlay", State.UNKNOWN, "no peer answers a ping", "do they drop ICMP?")


def _dropped(peers: list[str], uplink: Uplink, source: Address) -> str:
    verb = "answers" if len(peers) == 1 else "answer"
    return f"{', '.join(peers)} {verb} to {uplink.node_address}, not to {source}"
